"""The ledger read back: what was applied and from which files, and what has become of those since."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, select

from common import clock
from common.db import schema
from migrations.chain import Chain
from migrations.state import State
from migrations.target import LEDGER

Ledger = dict[str, Row[Any]]


@dataclass(frozen=True)
class Remark:
    """Something that the chain, the ledger and the version table do not agree on. Only `ahead` is no fault."""

    kind: Literal["ahead", "diverged", "foreign", "broken chain", "missing file", "edited", "unrecorded"]
    revision: str
    line: str

    @property
    def is_fault(self) -> bool:
        return self.kind != "ahead"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read(connection: Connection) -> Ledger:
    """Every line, by revision; none where the table is missing, or another program's."""
    if not set(LEDGER.columns.keys()) <= schema.columns(connection).get(LEDGER.name, set()):
        return {}
    return {row.revision: row for row in connection.execute(select(LEDGER))}


def remarks(state: State, ledger: Ledger, chain: Chain) -> list[Remark]:
    """Everything that an operator should know, in words that say what it means and what to do."""
    return [
        *_broken(chain),
        *_unknown(state, ledger, chain),
        *_missing_files(state, ledger, chain),
        *_edited(ledger, chain),
        *_unrecorded(state, ledger, chain),
    ]


def _broken(chain: Chain) -> list[Remark]:
    if not chain.broken:
        return []
    return [Remark("broken chain", "", f"the revisions cannot be loaded: {chain.broken}")]


def _unknown(state: State, ledger: Ledger, chain: Chain) -> list[Remark]:
    if state.name == "foreign" and not state.db:
        line = f"the table {schema.VERSION_TABLE} has another shape: another program made it"
        return [Remark("foreign", "", line)]
    if state.name not in ("ahead", "foreign"):
        return []
    return [_stranger(state, name, ledger, chain) for name in state.db if name not in chain.ids]


def _stranger(state: State, name: str, ledger: Ledger, chain: Chain) -> Remark:
    applied = f"{name} was applied on {_day(ledger[name])}" if name in ledger else ""
    if state.name == "ahead":
        return Remark(
            "ahead", name, f"{applied} by a later release; this one (at {chain.aim}) may serve the database"
        )
    if applied:
        line = f"{applied} by a release of another branch, and {chain.aim} never was: deploy a release that has both"
        return Remark("diverged", name, line)
    line = f"the version table names {name}, which is neither in this code nor in the ledger: nobody knows what it did"
    return Remark("foreign", name, line)


def _missing_files(state: State, ledger: Ledger, chain: Chain) -> list[Remark]:
    """Not told of a database that a later release, or one of another branch, has upgraded: it has more revisions."""
    if state.name == "ahead" or any(name in ledger and name not in chain.ids for name in state.db):
        return []
    return [
        Remark(
            "missing file",
            name,
            f"{name} was applied on {_day(line)}, but its file is gone: put it back, the chain needs it",
        )
        for name, line in sorted(ledger.items())
        if name not in chain.files
    ]


def _edited(ledger: Ledger, chain: Chain) -> list[Remark]:
    return [
        Remark(
            "edited",
            name,
            f"the file of {name} is not the one that was applied on {_day(line)} ({line.checksum[:8]}, now"
            f" {chain.checksum(name)[:8]}): a released revision never changes, a new one follows it",
        )
        for name, line in sorted(ledger.items())
        if is_edited(name, ledger, chain)
    ]


def is_edited(name: str, ledger: Ledger, chain: Chain) -> bool:
    """Has the file of an applied revision changed since?"""
    line = ledger.get(name)
    return line is not None and name in chain.files and line.checksum not in ("", chain.checksum(name))


def _unrecorded(state: State, ledger: Ledger, chain: Chain) -> list[Remark]:
    behind_us = chain.applied(state.db) if state.name in ("current", "behind") else set()
    return [
        Remark(
            "unrecorded", name, f"{name} is behind the database's revision, but the ledger has no line for it"
        )
        for name in sorted(behind_us - ledger.keys())
    ]


def _day(line: Row[Any]) -> str:
    return (clock.iso(line.applied_at) or "")[:10]
