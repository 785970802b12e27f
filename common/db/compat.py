"""New code on an old schema: a column that the database lacks behaves as if it were there with its default.

All of it happens where SQLAlchemy compiles statements. While the database lacks a column of a model, the engine has
a copy of its dialect with a compiler of ours: the column reads as its declared default (or NULL), and writes to it
are left out. SQLAlchemy's caches are keyed by the dialect object, so nothing has to be flushed on the way in or out,
and while the schema is whole there is nothing in the way.

What is borne is for `schema.is_bearable` to say. A model may declare in a column's `info`:
    {"compat": "required"}       a write to it raises RequiredColumnMissing instead of being left out
    {"compat_default": value}    what it reads as, where that is not the column's own default

`look` compares the database with the models: at an engine's start, when a statement names a column that is not there,
and every few seconds as long as one is missing. The transaction that met the change is lost (PostgreSQL accepts nothing
more in it); it gets SchemaDrift, and the door that opened it does it again (`common.db.again`), all of it or nothing.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    JSON,
    Alias,
    Column,
    Dialect,
    Engine,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    TableSample,
    event,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import crud

from common.db import schema
from common.errors import Unavailable
from common.settings import settings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0  # while something is missing; it must be noticed within 30 s when it is there
_UNDEFINED_COLUMN = "42703"
_STALE_PLAN = ("0A000", "RevalidateCachedQuery")  # "cached plan must not change result type"
_SQLITE_UNDEFINED = re.compile(r"no such column: |table \S+ has no column named ")

Lacking = Mapping[str, frozenset[str]]  # columns by table, none of them unbearable


class SchemaDrift(Unavailable):
    """The database's schema has just changed; try again."""


class RequiredColumnMissing(Unavailable):
    """This cannot be written until the database is upgraded; try again later."""


# ---------------------------------------------------------------- what a statement becomes


def _declared(column: Any) -> Column[Any] | None:
    """The column as its table declares it: the columns of aliases know no defaults."""
    table = column.table
    while isinstance(table, (Alias, TableSample)):
        table = table.element
    return table.columns.get(column.key) if isinstance(table, Table) else None


class _Compiling:
    """Mixed into a dialect's own compiler."""

    lacking: Lacking = MappingProxyType({})
    left_out: frozenset[tuple[str, str]] = frozenset()  # what this statement does not write
    dialect: Any
    preparer: Any
    process: Callable[..., str]

    def lacks(self, column: Any) -> bool:
        """Whether this is a column that the database has not got."""
        declared = _declared(column)
        return declared is not None and declared.name in self.lacking.get(declared.table.name, ())

    def leave_out(self, column: Any) -> None:
        """Note that this statement does not write a column. Raises RequiredColumnMissing."""
        declared = _declared(column)
        assert declared is not None
        if declared.info.get("compat") == "required":
            raise RequiredColumnMissing
        self.left_out |= {(declared.table.name, declared.name)}

    def visit_column(self, column: Any, *args: Any, include_table: bool = True, **kwargs: Any) -> str:
        usual: Callable[..., str] = super().visit_column  # type: ignore[misc]
        text = usual(column, *args, include_table=include_table, **kwargs)
        if not self.lacks(column):
            return text
        default = value = self._default(_declared(column))
        if self.dialect.name != "sqlite":  # where a cast to DATETIME or JSON makes a number
            value = f"CAST({value or 'NULL'} AS {self.dialect.type_compiler_instance.process(column.type)})"
        if default is not None:
            value = f"CASE WHEN {self._is_a_row(column.table, include_table, kwargs)} THEN {value} END"
        named = kwargs.get("within_columns_clause") and not kwargs.get("within_label_clause")
        return f"({value or 'NULL'})" + (f" AS {self.preparer.quote(column.name)}" if named else "")

    def _is_a_row(self, table: Any, include_table: bool, kwargs: Mapping[str, Any]) -> str:
        """Where a table is named, it may be one that an outer join found no row of: then the column is NULL."""
        keys = list(table.primary_key)
        if not keys or not include_table:
            return "1 = 1"
        names = {"ambiguous_table_name_map": kwargs.get("ambiguous_table_name_map")}
        key: str = super().visit_column(keys[0], **names)  # type: ignore[misc]
        return f"{key} IS NOT NULL"

    def _default(self, column: Any) -> str | None:
        """What the column holds in every row, as SQL; None for NULL."""
        if "compat_default" in column.info:
            return self._literal(column.info["compat_default"], column.type)
        if column.server_default is not None:
            given = column.server_default.arg
            return self._literal(given, String()) if isinstance(given, str) else self._constant(given)
        if column.default is not None and column.default.is_scalar:
            return self._literal(column.default.arg, column.type)
        return None

    def _literal(self, value: Any, type_: Any) -> str | None:
        if value is None:
            return None
        if isinstance(getattr(type_, "impl", type_), JSON):
            value, type_ = json.dumps(value), String()
        return self._constant(literal(value, type_))

    def _constant(self, expression: Any) -> str:
        return self.process(expression, literal_binds=True)

    # ------------------------------------------------------------ writes

    def written(self, made: Any, compile_state: Any, counted: list[str] | None) -> Any:
        """What SQLAlchemy would write, less the columns that are not there."""
        single = self._kept(made.single_params, counted)
        multi = [self._kept(row, counted) for row in made.all_multi_params]
        if len(single) == len(made.single_params):
            return made
        state: Any = self
        entry = state.stack[-1]
        if "insert_from_select" in entry:
            kept = [number for number, given in enumerate(made.single_params) if given in single]
            entry["insert_from_select"] = _narrowed(entry["insert_from_select"], kept)
        elif not single and compile_state.isupdate:
            single = [self._as_it_is(entry["selectable"].table)]  # touches the row, so that it is counted
        elif not single and (multi or (state.for_executemany and self.dialect.supports_default_metavalue)):
            single = [self._by_default(entry["selectable"].table)]
            multi = [single for _ in multi]
            made = made._replace(is_default_metavalue_only=True)
        return made._replace(single_params=single, all_multi_params=multi)

    def _kept(self, given: Sequence[Any], counted: list[str] | None) -> list[Any]:
        """Those that can be written; the parameters of the others are no longer counted."""
        kept = []
        for one in given:
            column = getattr(one[0], "original", one[0])  # rows behind the first have columns of their own
            if not self.lacks(column):
                kept.append(one)
                continue
            self.leave_out(column)
            for name in one[3]:
                if counted and name in counted:
                    counted.remove(name)
        return kept

    def _as_it_is(self, table: Any) -> Any:
        key = next(iter(table.primary_key))
        return key, self.preparer.format_column(key), self.process(key), ()

    def _by_default(self, table: Any) -> Any:
        key = next(iter(table.primary_key))
        value = "NULL" if self.dialect.name == "sqlite" else self.dialect.default_metavalue_token
        return key, self.preparer.format_column(key), value, ()

    def visit_on_conflict_do_update(self, clause: Any, **kwargs: Any) -> str:
        usual: Callable[..., str] = super().visit_on_conflict_do_update  # type: ignore[misc]
        state: Any = self
        table = state.stack[-1]["selectable"].table
        if self._never_conflicts(clause, table):
            return ""
        given = dict(clause.update_values_to_set)
        kept = {key: value for key, value in given.items() if not self._leaves_out(table, key)}
        if len(kept) < len(given):
            clause = copy.copy(clause)
            key = next(iter(table.primary_key))
            clause.update_values_to_set = kept or {key.key: key}
        return usual(clause, **kwargs)

    def visit_on_conflict_do_nothing(self, clause: Any, **kwargs: Any) -> str:
        usual: Callable[..., str] = super().visit_on_conflict_do_nothing  # type: ignore[misc]
        state: Any = self
        never = self._never_conflicts(clause, state.stack[-1]["selectable"].table)
        return "" if never else usual(clause, **kwargs)

    def _leaves_out(self, table: Any, key: Any) -> bool:
        column = table.c.get(key) if isinstance(key, str) else key
        if column is None or not self.lacks(column):
            return False
        self.leave_out(column)
        return True

    def _never_conflicts(self, clause: Any, table: Any) -> bool:
        """A unique index over a column that is not there cannot be there either."""
        elements = clause.inferred_target_elements or ()
        columns = (table.c.get(one) if isinstance(one, str) else one for one in elements)
        return any(isinstance(column, Column) and self.lacks(column) for column in columns)


def _narrowed(query: Any, kept: list[int]) -> Any:
    """Only these columns of a query, by position."""
    if isinstance(query, Select) and not query._distinct:
        columns = list(query.selected_columns)
        return query.with_only_columns(*(columns[number] for number in kept), maintain_column_froms=True)
    columns = list(query.subquery().c)
    return select(*(columns[number] for number in kept))


class _Counting:
    """Mixed into a dialect's own execution context: counts what a statement did not write."""

    compiled: Any
    compiled_parameters: Any

    def post_exec(self) -> None:
        super().post_exec()  # type: ignore[misc]
        for table, column in getattr(self.compiled, "left_out", ()):
            _count(table, column, len(self.compiled_parameters))


def _adapted(dialect: Dialect, lacking: Lacking) -> Dialect:
    """A copy of a dialect whose statements do without these columns."""
    made: Any = copy.copy(dialect)
    compiler: Any = made.statement_compiler
    made.statement_compiler = type(compiler.__name__, (_Compiling, compiler), {"lacking": lacking})
    context: Any = made.execution_ctx_cls
    made.execution_ctx_cls = type(context.__name__, (_Counting, context), {})
    return made  # type: ignore[no-any-return]


# Private: where SQLAlchemy decides what an INSERT or UPDATE writes. `is_supported` tells whether it still does.
_usual_params: Callable[..., Any] | None = getattr(crud, "_get_crud_params", None)


def _params(compiler: Any, statement: Any, compile_state: Any, toplevel: bool, **kwargs: Any) -> Any:
    assert _usual_params is not None
    made = _usual_params(compiler, statement, compile_state, toplevel, **kwargs)
    if isinstance(compiler, _Compiling) and not compile_state.isdelete:
        return compiler.written(made, compile_state, kwargs.get("visited_bindparam"))
    return made


crud._get_crud_params = _params  # type: ignore[assignment]


@cache
def is_supported() -> bool:
    """Whether this release of SQLAlchemy compiles statements as this module expects."""
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("gone", Integer))
    dialect = _adapted(DefaultDialect(), {"t": frozenset({"gone"})})
    trials = {
        insert(table).values(id=1, gone=2): "INSERT INTO t (id) VALUES (:id)",
        update(table).values(gone=2): "UPDATE t SET id=t.id",
        select(table.c.gone): "SELECT (CAST(NULL AS INTEGER)) AS gone \nFROM t",
    }
    try:
        return all(str(statement.compile(dialect=dialect)) == sql for statement, sql in trials.items())
    except Exception:
        log.exception("this release of SQLAlchemy is not the one that the compatibility mode was made for")
        return False


# ---------------------------------------------------------------- what is not written, told

Observer = Callable[[str, str, int], None]
_observers: list[Observer] = []
_told: set[tuple[str, str]] = set()


def when_left_out(call: Observer) -> Observer:
    """Have `call(table, column, rows)` run whenever rows are written without a column."""
    _observers.append(call)
    return call


def _count(table: str, column: str, rows: int) -> None:
    if (table, column) not in _told:
        _told.add((table, column))
        if settings().log_compatibility_warnings:
            log.warning("what is written to %s.%s is lost until the database has it", table, column)
    for call in _observers:
        call(table, column, rows)


# ---------------------------------------------------------------- what the database lacks


class Compat:
    """Keeps one engine's dialect fit for what its database has."""

    def __init__(self, engine: Engine, metadata: MetaData) -> None:
        self.lacking: Lacking = {}
        self._engine, self._metadata = engine, metadata
        self._usual = engine.dialect
        self._probe = schema.probe(engine.url.render_as_string(hide_password=False))
        self._closed = threading.Event()
        self.forked()
        # A listener of the dialect, which its copies share.
        event.listen(engine, "handle_error", self._on_error)

    def forked(self) -> None:
        """In a new process: no thread of the parent lives here, and none lets go of a lock."""
        self._lock, self._looked_at = threading.Lock(), float("-inf")
        self._watcher: threading.Thread | None = None
        if self.lacking:
            self._watch()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def look(self) -> None:
        """Compare the database with the models, and adapt to it. Raises SQLAlchemy's errors.

        Who comes while another one looks takes what a look finds that began after it came.
        """
        asked_at = time.monotonic()
        with self._lock:
            if self._looked_at < asked_at:
                began_at = time.monotonic()
                self._adapt(self._find())
                self._looked_at = began_at

    def _find(self) -> Lacking:
        with self._probe.connect() as connection:
            have = schema.columns(connection)
        missing = schema.missing_columns(have, self._metadata)
        schema.warn({table: names for table, names in missing.items() if table in have})
        tables = self._metadata.tables
        lacking = {
            table: frozenset(name for name in names if schema.is_bearable(tables[table].columns[name]))
            for table, names in missing.items()
            if table in have
        }
        return {table: names for table, names in lacking.items() if names}

    def _adapt(self, lacking: Lacking) -> None:
        if lacking == self.lacking:
            return
        self.lacking = lacking
        self._engine.dialect = _adapted(self._usual, lacking) if lacking else self._usual
        if lacking:
            self._watch()
        else:
            log.warning("the database has every column again")

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._look_until_whole, name="compat", daemon=True)
            self._watcher.start()

    def _look_until_whole(self) -> None:
        while not self._closed.wait(LOOK_EVERY_S):
            self.try_to_look()
            with self._lock:  # so that nobody thinks that this thread goes on
                if not self.lacking:
                    self._watcher = None
                    return

    def try_to_look(self) -> None:
        """Look, unless the database cannot be asked now."""
        try:
            self.look()
        except SQLAlchemyError as error:
            log.warning("could not look for missing columns: %s", type(error).__name__)

    def _on_error(self, context: ExceptionContext) -> None:
        error = context.original_exception
        if _is_stale(error):
            raise SchemaDrift from error
        if _names_no_column(error):
            self.try_to_look()
            if context.dialect is not self._engine.dialect:
                raise SchemaDrift from error


def _names_no_column(error: BaseException) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return _SQLITE_UNDEFINED.match(str(error)) is not None
    return getattr(error, "sqlstate", None) == _UNDEFINED_COLUMN


def _is_stale(error: BaseException) -> bool:
    """Whether PostgreSQL has prepared this statement for columns of another type; a rollback forgets that."""
    diagnosis = getattr(error, "diag", None)
    return (getattr(error, "sqlstate", None), getattr(diagnosis, "source_function", None)) == _STALE_PLAN


def install(engine: Engine, metadata: MetaData) -> Compat | None:
    """Let the models of `metadata` work on whatever the engine's database has of them.

    None where the settings or this SQLAlchemy do not allow it: then drift means not ready.
    """
    if not settings().enable_backward_compatibility or not is_supported():
        return None
    made = Compat(engine, metadata)
    made.try_to_look()
    return made
