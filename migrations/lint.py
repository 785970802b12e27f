"""May these revisions be released? Our own rules over their files, squawk over their SQL, and the chain itself."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alembic import command

from migrations import scratch
from migrations.chain import Chain
from migrations.errors import MigrationError, Refused, one_line
from migrations.lint_revision import Finding, is_allowed, read
from migrations.new import HEAD, named
from migrations.origin import Place, place, raised_at

# Matters of taste that the models decide; everything that locks, removes or breaks stays on.
_TASTE = ("prefer-text-field", "prefer-bigint-over-int", "prefer-identity", "prefer-timestamp-tz")
_OLDEST_POSTGRES = "14"


def lint(chain: Chain) -> list[Finding]:
    """Every broken rule of every revision. Raises MissingTool when squawk is not installed or fails."""
    files = sorted(chain.files.values())
    found = [finding for path in files for finding in read(path)]
    found += _names(chain)
    if chain.broken:
        return [*found, Finding("versions", 1, "broken", chain.broken)]
    found += [*_heads(chain), *_tried(_sql, chain), *_tried(_drift, chain)]
    return sorted(set(found))


def _tried(look: Callable[[Chain], Iterator[Finding]], chain: Chain) -> list[Finding]:
    """What it finds; a revision that cannot even be run for it is a finding."""
    try:
        return list(look(chain))
    except MissingTool:
        raise
    except Exception as error:  # a revision is Python: anything may come out of it
        origin = raised_at(error, Path(chain.script.dir) / "versions")
        file, line = (origin.path.name, origin.line) if origin else ("versions", 1)
        return [Finding(file, line, "broken", one_line(error))]


def _names(chain: Chain) -> Iterator[Finding]:
    for revision, path in chain.files.items():
        if path.stem.partition("_")[0] != revision and path.stem != revision:
            yield Finding(path.name, 1, "name", f"the file's name must begin with {revision}")


def _heads(chain: Chain) -> Iterator[Finding]:
    """Two branches that each add a revision must meet in git, not in production."""
    folder = Path(chain.script.dir)
    named_head = (folder / HEAD).read_text().strip()
    if len(chain.heads) > 1:
        yield Finding(HEAD, 1, "heads", f"the chain has {len(chain.heads)} heads: {chain.aim}")
    elif named_head != chain.aim:
        yield Finding(HEAD, 1, "heads", f"names {named_head}, but the chain's head is {chain.aim}")


def _drift(chain: Chain) -> Iterator[Finding]:
    """What `alembic check` would say: the models and the chain must make the same."""
    with scratch.upgraded(chain) as connection:
        for operation in scratch.each(scratch.difference(connection)):
            try:
                what = f'no revision adds {named(operation)}: python -m migrations new "add …"'
            except Refused as refused:
                what = str(refused)
            yield Finding(HEAD, 1, "drift", what)


# ---------------------------------------------------------------- the SQL


class MissingTool(MigrationError):
    """A program that lint is composed of is not there."""


class _Script(io.StringIO):
    """What `--sql` prints, with the place in a revision that each line comes from."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.places: list[Place | None] = []

    def write(self, text: str) -> int:
        self.places += [place(self._folder)] * text.count("\n")
        return super().write(text)


def _sql(chain: Chain) -> Iterator[Finding]:
    """What squawk has against the SQL for PostgreSQL."""
    script = _Script(Path(chain.script.dir) / "versions")
    chain.config.attributes["dialect"] = "postgresql"
    chain.config.output_buffer = script
    with scratch.quietly():
        command.upgrade(chain.config, "heads", sql=True)
    for item in _squawk(script.getvalue()):
        origin = next((where for where in script.places[item["line"] :] if where is not None), None)
        if origin is not None:
            finding = Finding(origin.path.name, origin.line, item["rule_name"], _plain(item["message"]))
            if not is_allowed(origin.path.read_text(), finding):
                yield finding


def _squawk(sql: str) -> list[dict[str, Any]]:
    program = shutil.which("squawk", path=str(Path(sys.executable).parent)) or shutil.which("squawk")
    if program is None:
        raise MissingTool("squawk is missing, without which no SQL is judged: requirements-dev.txt has it")
    command_line = [program, "--pg-version", _OLDEST_POSTGRES, "--reporter", "json"]
    command_line += [part for rule in _TASTE for part in ("--exclude", rule)]
    done = subprocess.run(command_line, input=sql, capture_output=True, text=True, timeout=60, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        raise MissingTool(f"squawk failed: {done.stderr.strip()[:200]}") from None
    return found


def _plain(message: str) -> str:
    return re.sub(r"\s+", " ", message).rstrip(".")
