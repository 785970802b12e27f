"""Random models, random missing columns, random statements: the result is that of the whole schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import IntegrityError

from common.db.compat import _adapted
from tests.compat.conftest import Pair, Pairs
from tests.compat.models import without

EXAMPLES = 40
VALUES: Mapping[type, st.SearchStrategy[Any]] = {
    Integer: st.integers(-3, 3),
    String: st.sampled_from(["", "a", "b'", "50%", "Ä"]),
    Boolean: st.booleans(),
    Float: st.sampled_from([-0.5, 0.0, 1.5]),
}
Build = Callable[..., Any]


@dataclass(frozen=True)
class World:
    """Two tables that belong together, what an old schema lacks of them, and rows of both."""

    metadata: MetaData
    lacking: Mapping[str, frozenset[str]]
    rows: Mapping[str, list[dict[str, Any]]]

    def known(self, table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in self.lacking.get(table.name, ())}


@st.composite
def columns(draw: st.DrawFn) -> list[tuple[str, type, bool, Any]]:
    """Name, type, whether it may be NULL, and its default."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        type_ = draw(st.sampled_from(list(VALUES)))
        default = draw(st.none() | VALUES[type_])
        found.append((f"c{number}", type_, default is None or draw(st.booleans()), default))
    return found


@st.composite
def worlds(draw: st.DrawFn) -> World:
    metadata = MetaData()
    lacking, rows = {}, {}
    for name in ("left", "right"):
        made = draw(columns())
        table = Table(
            name,
            metadata,
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("other", Integer),
            *(Column(c, type_(), nullable=nullable, default=default) for c, type_, nullable, default in made),
        )
        gone = draw(st.sets(st.sampled_from([c for c, *_ in made])))
        lacking[name] = frozenset(gone)
        rows[name] = [
            {"id": key, "other": draw(st.none() | st.integers(0, 3))}
            | {c: draw(value_of(table.c[c])) for c, *_ in made if c not in gone}
            for key in range(draw(st.integers(0, 4)))
        ]
    return World(metadata, {name: gone for name, gone in lacking.items() if gone}, rows)


def value_of(column: Column[Any]) -> st.SearchStrategy[Any]:
    values = VALUES[type(column.type)]
    return st.none() | values if column.nullable else values


# ---------------------------------------------------------------- statements


def conditions(table: Any) -> st.SearchStrategy[Any]:
    names = [column for column in table.c if column.key != "id"]

    def simple(column: Any) -> st.SearchStrategy[Any]:
        values = VALUES[type(column.type)]
        return st.one_of(
            st.just(column.is_(None)),
            st.just(column.is_not(None)),
            values.map(lambda value: column == value),
            values.map(lambda value: column != value),
            values.map(lambda value: func.coalesce(column, value) == value),
            st.lists(values, max_size=2).map(column.in_),
        )

    return st.recursive(
        st.sampled_from(names).flatmap(simple),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: and_(*two)),
            st.tuples(inner, inner).map(lambda two: or_(*two)),
            inner.map(not_),
        ),
        max_leaves=3,
    )


def shown(table: Any) -> st.SearchStrategy[list[Any]]:
    plain = [column for column in table.c if column.key != "id"]
    one = st.sampled_from(plain)
    derived = st.one_of(
        one,
        one.map(lambda column: func.coalesce(column, null())),
        one.map(lambda column: case((column.is_(None), literal(1)), else_=literal(0))),
        one.map(lambda column: column.label("named")),
    )
    return st.lists(derived, min_size=1, max_size=3)


@st.composite
def reads(draw: st.DrawFn, world: World) -> Any:
    """A query whose order is certain."""
    left, right = world.metadata.tables["left"], world.metadata.tables["right"]
    source = draw(st.sampled_from([left, left.alias("other_name")]))
    match draw(
        st.sampled_from(["plain", "distinct", "group", "outer", "subquery", "union", "exists", "window"])
    ):
        case "plain":
            by = draw(st.sampled_from(list(source.c)))
            query = select(source.c.id, *draw(shown(source))).where(draw(conditions(source)))
            return query.order_by(by.nulls_first(), source.c.id).limit(draw(st.integers(0, 4)))
        case "distinct":
            return select(*draw(shown(source))).distinct()
        case "group":
            by = draw(st.sampled_from(list(source.c)))
            return select(by, func.count(), func.count(draw(st.sampled_from(list(source.c))))).group_by(by)
        case "outer":
            joined = source.outerjoin(right, source.c.other == right.c.id)
            return select(source.c.id, *draw(shown(right))).select_from(joined).where(draw(conditions(right)))
        case "subquery":
            inner = draw(st.sampled_from(["subquery", "cte"]))
            wrapped = getattr(select(source).where(draw(conditions(source))), inner)()
            return select(wrapped.c.id, *draw(shown(wrapped))).where(draw(conditions(wrapped)))
        case "union":
            name = draw(st.sampled_from([column.key for column in left.c if column.key != "id"]))
            return union_all(
                *(select(left.c.id, left.c[name]).where(draw(conditions(left))) for _ in range(2))
            )
        case "exists":
            inside = select(right.c.id).where(right.c.id == source.c.other, draw(conditions(right)))
            return select(source.c.id).where(inside.exists())
        case _:
            by = draw(st.sampled_from(list(source.c)))
            return select(source.c.id, func.count().over(partition_by=by))


@st.composite
def writes(draw: st.DrawFn, world: World) -> Callable[[bool], Any]:
    """Makes a statement; for the whole schema without values that an old one cannot take."""
    table = world.metadata.tables["left"]
    names = [column.key for column in table.c if column.key not in ("id", "other")]
    given_ = {name: draw(value_of(table.c[name])) for name in sorted(draw(st.sets(st.sampled_from(names))))}
    found = draw(conditions(table))
    # No more than columns: SQLite 3.40 says of an inserted NULL in RETURNING that it IS NOT NULL.
    back = [table.c.id, *(table.c[name] for name in draw(st.lists(st.sampled_from(names), max_size=2)))]
    kind = draw(st.sampled_from(["insert", "many", "update", "copy", "delete"]))
    needed = {name: draw(value_of(table.c[name])) for name in names}

    def make(whole: bool) -> Any:
        known = (lambda values: world.known(table, values)) if whole else dict
        match kind:
            case "insert":
                return insert(table).values(id=10, **known(needed | given_)).returning(*back)
            case "many":
                return (
                    insert(table).values([{"id": 20 + n, **known(needed)} for n in range(2)]).returning(*back)
                )
            case "update":
                return update(table).where(found).values({"other": 7} | known(given_)).returning(*back)
            case "copy":
                query = select(table.c.id + 30, *(table.c[name] for name in names)).where(found)
                return insert(table).from_select(["id", *names], query)
            case _:
                return delete(table).where(found).returning(*back)

    return make


# ---------------------------------------------------------------- the proof


@pytest.fixture(scope="module")
def empty(pairs: Pairs) -> Pair:
    """Two databases in which each example makes its own tables, and takes them back."""
    return pairs.make(MetaData(), {})


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(data=st.data())
def test_any_statement_on_any_old_schema(empty: Pair, data: st.DataObject) -> None:
    world = data.draw(worlds())
    statements: list[Callable[[bool], Any]] = []
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            query = data.draw(reads(world))
            statements.append(lambda _, query=query: query)
        else:
            statements.append(data.draw(writes(world)))
    statements.append(lambda _: select(world.metadata.tables["left"]))
    usual = empty.old.dialect
    empty.old.dialect = _adapted(usual, world.lacking)
    try:
        with empty.whole.connect() as whole, empty.old.connect() as old:
            world.metadata.create_all(whole)
            without(world.metadata, world.lacking).create_all(old)
            for connection in (whole, old):
                for name, rows in world.rows.items():
                    if rows:
                        connection.execute(insert(world.metadata.tables[name]), rows)
            for make in statements:
                statement = make(False)
                wanted = outcome(whole, make(True))
                assert outcome(old, statement) == wanted, str(statement.compile(old))
    finally:
        empty.old.dialect = usual


def outcome(connection: Connection, statement: Any) -> Any:
    """The rows, in an order of their own where the statement has none; or that such a row was there before."""
    try:
        with connection.begin_nested():
            done = connection.execute(statement)
            return sorted(map(tuple, done), key=repr) if done.returns_rows else done.rowcount
    except IntegrityError:
        return "refused"
