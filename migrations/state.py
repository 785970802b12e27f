"""How a database stands to the chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, ScalarResult, Text, cast, column, select, table

from common.db import schema
from migrations.chain import Chain
from migrations.target import BOOKKEEPING, LEDGER, SETTING

_NOT_CONTENT = BOOKKEEPING | {schema.VERSION_TABLE, "sqlite_sequence", "sqlite_stat1", "sqlite_stat4"}


@dataclass(frozen=True)
class State:
    """`current`, `behind` (a taken-over database is behind from the start), `empty` (no tables at all),
    `ahead` (a later release of ours was here) or `foreign` (a revision that nobody knows)."""

    name: Literal["current", "behind", "empty", "ahead", "foreign"]
    db: tuple[str, ...]
    prepared: bool  # the first run's own work (admin, catalogue) is done

    @property
    def is_ready(self) -> bool:
        """Is there nothing left to do?"""
        return self.name == "current" and self.prepared


def look(connection: Connection, chain: Chain) -> State:
    """Read the state from the database alone. Runs outside the guard as well as under it."""
    have = schema.columns(connection)
    tables = have.keys()
    prepared = "key" in have.get(SETTING.name, ()) and _is_prepared(connection)
    if "version_num" not in have.get(schema.VERSION_TABLE, {"version_num"}):
        return State("foreign", (), prepared)  # somebody else's table has the name of ours
    db = _revisions(connection) if schema.VERSION_TABLE in tables else ()
    if set(db) == set(chain.heads):
        return State("current", db, prepared)
    if not set(db) <= chain.ids:
        ours = _ledger(connection) if LEDGER.c.revision.name in have.get(LEDGER.name, ()) else set()
        # Every head of ours was applied once, and what is there now is in the same ledger: a later release.
        return State("ahead" if ours >= {*db, *chain.heads} else "foreign", db, prepared)
    return State("behind" if db or tables - _NOT_CONTENT else "empty", db, prepared)


def _revisions(connection: Connection) -> tuple[str, ...]:
    found: ScalarResult[str | None] = connection.scalars(
        select(column("version_num")).select_from(table(schema.VERSION_TABLE))
    )
    return tuple(sorted(str(revision) for revision in found))


def _is_prepared(connection: Connection) -> bool:
    key = cast(SETTING.c.key, Text)  # another program's table may have the name of ours
    row = connection.execute(select(key).where(key == schema.SETUP_KEY)).first()
    return row is not None


def _ledger(connection: Connection) -> set[str]:
    return set(connection.execute(select(LEDGER.c.revision)).scalars())
