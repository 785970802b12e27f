"""What the live database has, against what this code needs: for the gate, /readyz and the migrations.

It reads only the catalogue and our own bookkeeping tables; the revisions themselves belong to `migrations`.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Connection, Engine, MetaData, NullPool, create_engine, select, text
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from common import clock
from common.settings import settings

log = logging.getLogger(__name__)

VERSION_TABLE = "wxiai_alembic_version"
SETUP_KEY = "setup"  # the row of app_setting that says: the first admin and the catalogue are there
GUARD_KEY = int.from_bytes(hashlib.blake2b(b"wxiai:schema", digest_size=8).digest(), "big", signed=True)
GUARD_NAME = "wxiai-migrate"  # application_name of the connection that upgrades, followed by its process
PULSE_NAME = "wxiai-pulse"  # of the one beside it that shows its process is alive

_HEAD_FILE = Path(__file__).parents[2] / "migrations" / "HEAD"
_CACHED_S = 2.0
_SILENT_S = 15.0  # a pulse file older than this was left behind by a killed process

_POSTGRES_COLUMNS = text(
    "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
    " WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))"
    " AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped"
)
_SQLITE_COLUMNS = text(
    "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
    " WHERE m.type IN ('table', 'view')"
)
_READY = text(
    f"SELECT version_num, (SELECT count(*) FROM app_setting WHERE key = :setup) FROM {VERSION_TABLE}"  # noqa: S608 - a constant
)
_POSTGRES_HOLDER = text(
    "SELECT guard.application_name,"
    " extract(epoch FROM clock_timestamp() - greatest(guard.state_change, pulse.state_change))"
    " FROM pg_locks held JOIN pg_stat_activity guard ON guard.pid = held.pid"
    " LEFT JOIN pg_stat_activity pulse ON pulse.datid = guard.datid"
    " AND pulse.application_name = replace(guard.application_name, :guard, :pulse)"
    " WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1"
    " AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND (held.classid::bigint << 32 | held.objid::bigint) = :key"
)

Name = Literal["current", "ahead", "behind", "degraded", "empty", "foreign"]
Missing = dict[str, list[str]]


@dataclass(frozen=True)
class SchemaState:
    """How the database's schema stands to this code. `usable`: models can work on it, compat included."""

    state: Name
    db: list[str]  # revisions the database is at
    code: str  # revision the code wants
    missing: Missing  # model columns that the database lacks, by table
    holder: str | None  # process that is upgrading right now
    usable: bool


@dataclass(frozen=True)
class Holder:
    """The process that holds the schema guard, and for how long it has given no sign of life."""

    name: str
    silent_s: float


@cache
def head() -> str:
    """The revision this code wants, from `migrations/HEAD`, which is read as data."""
    return _HEAD_FILE.read_text().strip()


def probe(url: str) -> Engine:
    """An engine for short looks: keeps no connection, changes nothing, not even SQLite's journal mode."""
    if url.startswith("sqlite"):
        return create_engine(url, poolclass=NullPool, connect_args={"timeout": 1})
    return create_engine(
        url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",  # a waiter must never hold a snapshot
        connect_args={
            "connect_timeout": 5,
            "application_name": "wxiai-look",
            "options": "-c statement_timeout=5000",
        },
    )


def is_ready(connection: Connection) -> bool:
    """Is the schema exactly what this code wants, and was the first run completed? One SELECT."""
    try:
        rows = connection.execute(_READY, {"setup": SETUP_KEY}).all()
    except DBAPIError:
        return False
    return [tuple(row) for row in rows] == [(head(), 1)]


def columns(connection: Connection) -> dict[str, set[str]]:
    """Every table of the database with the names of its columns, in one query."""
    query = _SQLITE_COLUMNS if connection.dialect.name == "sqlite" else _POSTGRES_COLUMNS
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(query):
        found.setdefault(table, set()).add(column)
    return found


def missing_columns(have: dict[str, set[str]], metadata: MetaData) -> Missing:
    """The columns of `metadata` that the database lacks; a missing table lacks them all."""
    lacking = {
        table.name: [column.name for column in table.columns if column.name not in have.get(table.name, ())]
        for table in metadata.sorted_tables
    }
    return {table: names for table, names in lacking.items() if names}


def unbearable(missing: Missing, have: dict[str, set[str]], metadata: MetaData) -> list[str]:
    """What no compatibility can bridge: missing tables, primary keys, NOT NULL columns without a default."""
    tables = [table for table in missing if table not in have]
    lone = [(table, metadata.tables[table].columns[name]) for table in missing for name in missing[table]]
    return tables + [f"{table}.{c.name}" for table, c in lone if table in have and not is_bearable(c)]


def is_bearable(column: Column[object]) -> bool:
    """Can models work while the database lacks this column?"""
    has_default = (
        column.server_default is not None
        or "compat_default" in column.info
        or (column.default is not None and column.default.is_scalar)
    )
    return not column.primary_key and (bool(column.nullable) or has_default)


def holder(connection: Connection) -> Holder | None:
    """Who is upgrading this database at the moment, if anyone."""
    if connection.dialect.name == "sqlite":
        return _sqlite_holder(connection.engine.url.render_as_string(hide_password=False))
    names = {"guard": GUARD_NAME, "pulse": PULSE_NAME, "key": GUARD_KEY}
    row = connection.execute(_POSTGRES_HOLDER, names).first()
    return Holder(str(row[0]).removeprefix(GUARD_NAME).strip(), float(row[1] or 0)) if row else None


def pulse_file(url: str) -> Path | None:
    """Where the process that upgrades a SQLite database shows its name and, by touching it, its life."""
    path = make_url(url).database
    return Path(f"{path}-migration") if path and path != ":memory:" else None


def _sqlite_holder(url: str) -> Holder | None:
    path = pulse_file(url)
    try:
        assert path is not None
        silent_s = clock.epoch() - path.stat().st_mtime
        return Holder(path.read_text().strip(), max(silent_s, 0.0)) if silent_s < _SILENT_S else None
    except (AssertionError, OSError):
        return None


_warned: set[str] = set()
_cache: WeakKeyDictionary[Engine, tuple[float, SchemaState]] = WeakKeyDictionary()


def schema_state(engine: Engine, metadata: MetaData) -> SchemaState:
    """How this database stands to the code and to `metadata`; looked up at most every two seconds.

    Raises SQLAlchemy's errors where the database cannot be asked.
    """
    at, known = _cache.get(engine, (0.0, None))
    now = clock.epoch()
    if known is None or not at <= now < at + _CACHED_S:
        with engine.connect().execution_options(reads_only=True) as connection:
            known = _look(connection, metadata)
        _cache[engine] = (now, known)
        if known.usable:
            warn(known.missing)
    return known


def warn(missing: Missing) -> None:
    """Tell which columns are missing: once per column and process, and not at all if the settings say so."""
    if not settings().log_compatibility_warnings:
        return
    for name in (f"{table}.{column}" for table, columns in missing.items() for column in columns):
        if name not in _warned:
            _warned.add(name)
            log.warning("the database lacks %s: see `python -m migrations status`", name)


def _look(connection: Connection, metadata: MetaData) -> SchemaState:
    from common.db.compat import is_supported  # which needs this module itself

    have = columns(connection)
    db = sorted(_strings(connection, have, VERSION_TABLE, "version_num"))
    state = _name(connection, have, db)
    missing = missing_columns(have, metadata)
    running = holder(connection)
    bearable = not missing or (
        settings().enable_backward_compatibility
        and is_supported()
        and not unbearable(missing, have, metadata)
    )
    return SchemaState(
        state=state,
        db=db,
        code=head(),
        missing=missing,
        holder=running.name if running else None,
        usable=state not in ("empty", "foreign") and bearable,
    )


def _name(connection: Connection, have: dict[str, set[str]], db: list[str]) -> Name:
    """Ours are exactly the revisions in the ledger: a head found there but no longer current was passed."""
    if db == [head()]:
        return "current"
    ledger = set(_strings(connection, have, "migration_ledger", "revision"))
    if db and not set(db) <= ledger:
        return "foreign"
    if db and head() in ledger:
        return "ahead"
    if not db and not have.keys() - {
        VERSION_TABLE,
        "migration_ledger",
        "migration_report",
        "sqlite_sequence",
    }:
        return "empty"
    return "degraded" if _last_verdict(connection, have) == "degraded" else "behind"


def _strings(connection: Connection, have: dict[str, set[str]], table: str, column: str) -> list[str]:
    if column not in have.get(table, ()):
        return []
    return list(connection.execute(select(sql_column(column)).select_from(sql_table(table))).scalars())


def _last_verdict(connection: Connection, have: dict[str, set[str]]) -> str | None:
    if "verdict" not in have.get("migration_report", ()):
        return None
    last = text("SELECT verdict FROM migration_report WHERE to_revision = :head ORDER BY id DESC LIMIT 1")
    return connection.execute(last, {"head": head()}).scalar()
