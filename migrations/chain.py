"""The chain of revisions as this code has it: heads, what is pending, and the rungs of the ladder."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from common.db import schema
from migrations.errors import one_line

HERE = Path(__file__).parent
MERGE_POINT = "merge_heads_final"

_REVISION = re.compile(r"""^revision(?:\s*:\s*\w+)?\s*=\s*["']([^"']+)["']""", re.MULTILINE)


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: a name for the report, and what Alembic shall upgrade to."""

    name: str
    target: str


class Chain:
    """The revisions under `folder/versions`.

    `broken` says why they cannot be loaded, if so; then the file `HEAD` names the head, and nothing their order.
    """

    def __init__(self, folder: Path = HERE) -> None:
        self._folder = folder
        self.config = Config()
        self.config.set_main_option("script_location", str(folder).replace("%", "%%"))
        self.config.set_main_option("path_separator", "os")
        self.heads: tuple[str, ...] = (schema.head(),)
        self.broken: str | None = None
        try:
            with warnings.catch_warnings(action="ignore"):  # about a missing file, which the error names too
                self.script = ScriptDirectory.from_config(self.config)
                self.heads = tuple(sorted(self.script.get_heads()))
        except Exception as error:  # a revision is Python: anything may come out of it
            self.broken = one_line(error)

    @cached_property
    def revisions(self) -> list[Script]:
        """Every revision, the oldest first."""
        return [] if self.broken else list(reversed(list(self.script.walk_revisions())))

    @cached_property
    def ids(self) -> frozenset[str]:
        return frozenset(self.heads) | self.files.keys()

    @property
    def aim(self) -> str:
        """The heads in one string, as reports name them."""
        return ",".join(self.heads)

    def applied(self, db: Iterable[str]) -> set[str]:
        """The known revisions that a database at `db` has behind it."""
        known = tuple(revision for revision in db if revision in self.ids)
        if self.broken or not known:
            return set(known)
        # One by one: together, Alembic would refuse revisions of which one is behind another.
        walks = (self.script.iterate_revisions(name, "base") for name in known)
        return {script.revision for walk in walks for script in walk}

    def pending(self, db: Iterable[str]) -> list[Script]:
        """What an upgrade from `db` would run, in order."""
        behind = self.applied(db)
        return [script for script in self.revisions if script.revision not in behind]

    def rungs(self, db: Iterable[str]) -> list[Rung]:
        """The ladder from `db` up: the merge point unless it is behind us, then the heads, or the one head.

        Resolved beforehand, not tried one after the other: a failing revision must not run once per rung, and
        the merge point must not be taken for the end once the chain has grown past it.
        """
        through_merge = MERGE_POINT in self.ids and MERGE_POINT not in self.applied(db)
        rungs = [Rung(MERGE_POINT, MERGE_POINT)] if through_merge else []
        return [*rungs, Rung("head" if len(self.heads) == 1 else "heads", "heads")]

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of every revision; of a chain that cannot be loaded, what the files say they are."""
        if not self.broken:
            return {script.revision: Path(script.path) for script in self.revisions}
        named = ((_REVISION.search(path.read_text()), path) for path in self._folder.glob("versions/*.py"))
        return {match[1]: path for match, path in named if match}

    def checksum(self, revision: str) -> str:
        """SHA-256 of the revision's file, as the ledger keeps it; empty where there is none."""
        path = self.files.get(revision)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""
