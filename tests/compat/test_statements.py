"""Every kind of statement gives on a schema without some columns what it gives where they hold their defaults."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import String as SqlString
from sqlalchemy import (
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    inspect,
    lateral,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
    type_coerce,
    union,
    union_all,
    update,
)
from sqlalchemy.orm import (
    Bundle,
    Session,
    aliased,
    defer,
    joinedload,
    load_only,
    selectinload,
    subqueryload,
    undefer,
    with_polymorphic,
)

from common.db.compat import RequiredColumnMissing
from tests.compat.conftest import Pair
from tests.compat.models import LONG_AGO, Book, Config, Counter, Item, Tool, User, Vault

Lost = Callable[..., dict[str, Any]]
Case = Callable[[Session, Lost], Any]
CASES: list[Case] = []


def kind(call: Case) -> Case:
    """One kind of statement. `lost(…)`: values that an old schema cannot take; the whole one is not given them."""
    CASES.append(call)
    return call


@pytest.mark.parametrize("given", CASES, ids=lambda call: call.__name__.replace("_", " "))
def test_as_if_the_columns_were_there(pair: Pair, given: Case) -> None:
    with Session(pair.whole) as session:
        wanted = plain(given(session, lambda **_: {}))
    with Session(pair.old) as session:
        assert plain(given(session, lambda **values: values)) == wanted
    assert wanted is not None


def plain(value: Any) -> Any:
    """Rows and entities as what they hold, so that those of two databases can be compared."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if hasattr(value, "_mapping") or isinstance(value, tuple):
        return tuple(plain(one) for one in value)
    if isinstance(value, (User, Tool, Config, Item, Counter, Vault)):
        names = [attribute.key for attribute in inspect(value).mapper.column_attrs]
        return {
            name: getattr(value, name) for name in names if name != "nick"
        }  # which is made anew each time
    return value


def upsert(session: Session) -> Any:
    return importlib.import_module(f"sqlalchemy.dialects.{session.get_bind().dialect.name}").insert


def reread(session: Session, key: str = "u9") -> Any:
    session.flush()
    session.expire_all()
    return session.get(User, key)


# ---------------------------------------------------------------- reading


@kind
def entities(s: Session, lost: Lost) -> Any:
    return s.scalars(select(User).order_by(User.id)).all()


@kind
def entity_by_key(s: Session, lost: Lost) -> Any:
    return s.get(User, "u1")


@kind
def legacy_query(s: Session, lost: Lost) -> Any:
    return s.query(User).filter_by(id="u1", phone=None).first()


@kind
def legacy_count(s: Session, lost: Lost) -> Any:
    return s.query(User).count(), s.query(User.phone).distinct().count()


@kind
def one_column(s: Session, lost: Lost) -> Any:
    return s.execute(select(User.phone, User.id).order_by(User.id)).all()


@kind
def only_missing_columns(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(User.phone, User.level, User.since, User.prefs, User.flag, User.ratio, User.odd)
    ).all()


@kind
def core_table(s: Session, lost: Lost) -> Any:
    table = User.__table__
    found = s.execute(select(table).order_by(table.c.id)).mappings()
    return [{name: value for name, value in row.items() if name != "nick"} for row in found]


@kind
def equals_nothing(s: Session, lost: Lost) -> Any:
    return s.scalars(select(User).where(User.phone == "123")).all()


@kind
def equals_the_default(s: Session, lost: Lost) -> Any:
    return [
        s.scalars(select(User.id).where(found).order_by(User.id)).all()
        for found in (
            User.level == 3,
            User.level > 3,
            User.flag.is_(False),
            User.grade == "new",
            User.since == LONG_AGO,
            User.ratio < 1,
            User.odd.like("100%"),
            ~User.flag,
        )
    ]


@kind
def is_null(s: Session, lost: Lost) -> Any:
    return s.scalar(select(func.count()).where(User.phone.is_(None), User.level.is_not(None)))


@kind
def in_like_and_functions(s: Session, lost: Lost) -> Any:
    found = or_(
        User.phone.in_(["1"]), User.phone.ilike("%1%"), func.lower(User.phone) == "x", User.level.in_([3])
    )
    return s.scalars(select(User.id).where(found).order_by(User.id)).all()


@kind
def between_and_arithmetic(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(User.id, (User.level * 2 + User.score).label("sum"))
        .where(User.level.between(1, 5))
        .order_by(User.id)
    ).all()


@kind
def concatenation_and_cast(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(User.id, (User.odd + "!"), cast(User.level, SqlString), User.grade.concat("-")).order_by(
            User.id
        )
    ).all()


@kind
def case_and_coalesce(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(
            User.id,
            case((User.phone.is_(None), "none"), else_=User.phone),
            func.coalesce(User.phone, User.email, "?"),
            func.nullif(User.level, 3),
        ).order_by(User.id)
    ).all()


@kind
def order_by_missing(s: Session, lost: Lost) -> Any:
    return s.scalars(
        select(User).order_by(User.level.desc(), User.phone.nulls_last(), User.id).limit(2)
    ).all()


@kind
def order_by_label(s: Session, lost: Lost) -> Any:
    return s.execute(select(User.id, User.level.label("rank")).order_by("rank", User.id)).all()


@kind
def pages_by_cursor(s: Session, lost: Lost) -> Any:
    return s.scalars(
        select(User.id)
        .where(tuple_(User.level, User.id) > (3, "u1"))
        .order_by(User.level, User.id)
        .limit(1)
        .offset(1)
    ).all()


@kind
def group_by_and_having(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(User.level, User.phone, func.count(), func.sum(User.score))
        .group_by(User.level, User.phone)
        .having(func.max(User.level) == 3, User.phone.is_(None))
        .order_by(User.phone)
    ).all()


@kind
def aggregates(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(func.count(User.phone), func.count(User.level), func.max(User.phone), func.sum(User.level))
    ).one()


@kind
def filtered_aggregate(s: Session, lost: Lost) -> Any:
    return s.execute(select(func.count().filter(User.level == 3), func.count(User.level.distinct()))).one()


@kind
def aggregate_of_no_rows(s: Session, lost: Lost) -> Any:
    return s.execute(select(User.level, func.count()).where(User.id == "none").group_by(User.level)).all()


@kind
def distinct(s: Session, lost: Lost) -> Any:
    return s.execute(select(User.phone, User.level).distinct()).all()


@kind
def distinct_ordered(s: Session, lost: Lost) -> Any:
    return s.execute(select(User.level).distinct().order_by(User.level)).all()


@kind
def window_functions(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(
            User.id,
            func.row_number().over(partition_by=User.level, order_by=User.id),
            func.rank().over(order_by=User.level),
            func.lag(User.phone).over(order_by=User.id),
        ).order_by(User.id)
    ).all()


@kind
def aliases(s: Session, lost: Lost) -> Any:
    other = aliased(User, name="other")
    return s.scalars(select(other).where(other.id == "u1", other.phone.is_(None), other.level == 3)).all()


@kind
def self_join(s: Session, lost: Lost) -> Any:
    a, b = aliased(User), aliased(User)
    return s.execute(
        select(a.id, b.id, b.level).join(b, a.level == b.level).where(a.id < b.id).order_by(a.id, b.id)
    ).all()


@kind
def self_join_on_nulls(s: Session, lost: Lost) -> Any:
    a, b = aliased(User), aliased(User)
    return s.execute(select(a.id).join(b, a.phone == b.phone)).all()


@kind
def inner_join(s: Session, lost: Lost) -> Any:
    return s.execute(select(User.level, Tool.id, Tool.config_id).join(Tool.owner).order_by(Tool.id)).all()


@kind
def outer_join_finds_nobody(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(Tool.id, User.id, User.level, User.prefs, User.grade).outerjoin(User, Tool.user_id == User.id)
        .order_by(Tool.id)
    ).all()  # fmt: skip


@kind
def outer_join_counts_nobody(s: Session, lost: Lost) -> Any:
    nobody = aliased(User)
    return s.scalars(
        select(Tool.id).outerjoin(nobody, Tool.user_id == nobody.id).where(nobody.level.is_(None))
    ).all()


@kind
def subquery(s: Session, lost: Lost) -> Any:
    inner = select(User.__table__).subquery()
    return s.execute(select(inner.c.phone, inner.c.level, inner.c.id).where(inner.c.id == "u1")).all()


@kind
def entity_from_subquery(s: Session, lost: Lost) -> Any:
    inner = aliased(User, select(User).where(User.level == 3).order_by(User.id).limit(1).subquery())
    return s.scalars(select(inner)).all()


@kind
def scalar_subquery(s: Session, lost: Lost) -> Any:
    most = select(func.max(User.level)).where(User.id == Tool.user_id).correlate(Tool).scalar_subquery()
    return s.execute(select(Tool.id, most).order_by(Tool.id)).all()


@kind
def correlated_exists(s: Session, lost: Lost) -> Any:
    used = select(Tool.id).where(Tool.user_id == User.id, Tool.config_id.is_(None), User.level == 3).exists()
    return s.scalars(select(User.id).where(used).order_by(User.id)).all()


@kind
def not_exists_and_relationship_any(s: Session, lost: Lost) -> Any:
    return (
        s.scalars(
            select(User.id).where(~User.tools.any(Tool.access_control.is_not(None))).order_by(User.id)
        ).all(),
        s.scalars(select(Tool.id).where(Tool.owner.has(User.level == 3)).order_by(Tool.id)).all(),
        s.scalar(select(exists().where(User.phone.is_not(None)))),
    )


@kind
def in_subquery(s: Session, lost: Lost) -> Any:
    return s.scalars(select(Tool.id).where(Tool.config_id.in_(select(Tool.config_id)))).all()


@kind
def common_table_expression(s: Session, lost: Lost) -> Any:
    all_users = select(User.id, User.phone, User.level).cte("all_users")
    return s.execute(select(all_users).where(all_users.c.level == 3).order_by(all_users.c.id)).all()


@kind
def recursive_expression(s: Session, lost: Lost) -> Any:
    first = select(Tool.id, Tool.parent_id, Tool.config_id).where(Tool.id == "t2").cte("line", recursive=True)
    line = first.union_all(
        select(Tool.id, Tool.parent_id, Tool.config_id).where(Tool.id == first.c.parent_id)
    )
    return s.execute(select(line).order_by(line.c.id)).all()


@kind
def unions(s: Session, lost: Lost) -> Any:
    both = union_all(select(User.id, User.phone), select(Tool.id, Tool.content)).order_by("id")
    same = union(select(User.level), select(User.level + 0))
    return s.execute(both).all(), s.execute(same).all()


@kind
def union_of_entities(s: Session, lost: Lost) -> Any:
    both = select(User).where(User.id == "u1").union_all(select(User).where(User.id == "u2"))
    return s.scalars(select(User).from_statement(both).execution_options(populate_existing=True)).all()


@kind
def except_and_intersect(s: Session, lost: Lost) -> Any:
    return (
        s.execute(select(User.level).except_(select(literal(3)))).all(),
        s.execute(select(User.level).intersect(select(literal(3)))).all(),
    )


@kind
def lateral_or_derived(s: Session, lost: Lost) -> Any:
    if s.get_bind().dialect.name == "sqlite":
        inner = select(Tool.user_id, Tool.config_id).subquery()
        query = select(User.id, inner.c.config_id).join(inner, inner.c.user_id == User.id)
    else:
        inner = lateral(select(Tool.config_id).where(Tool.user_id == User.id))
        query = select(User.id, inner.c.config_id).join(inner, true())
    return s.execute(query.order_by(User.id)).all()


@kind
def json_paths(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(
            User.id,
            User.prefs["it's"].as_string(),
            User.settings["a"]["b"].as_integer(),
            Tool.access_control["read"].as_string(),
        )
        .outerjoin(Tool, Tool.user_id == User.id)
        .order_by(User.id, Tool.id)
    ).all()


@kind
def json_in_filters(s: Session, lost: Lost) -> Any:
    return s.scalars(select(User.id).where(User.prefs["it's"].as_string() == "50%").order_by(User.id)).all()


@kind
def coerced_types_and_collation(s: Session, lost: Lost) -> Any:
    collation = "NOCASE" if s.get_bind().dialect.name == "sqlite" else "C"
    query = select(type_coerce(User.level, SqlString), User.grade.collate(collation)).order_by(
        User.grade.collate(collation), User.id
    )
    return [row[1] for row in s.execute(query)]


@kind
def bundles_and_labels(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(Bundle("pair", User.id, User.level), User.phone.label("p"), User.odd).order_by(User.id)
    ).all()


@kind
def duplicate_columns(s: Session, lost: Lost) -> Any:
    return s.execute(select(User.level, User.level, Tool.config_id, Tool.config_id).join(Tool.owner)).all()


@kind
def for_update(s: Session, lost: Lost) -> Any:
    return s.scalars(
        select(User).where(User.level == 3).order_by(User.level, User.id).limit(2)
        .with_for_update(skip_locked=True, of=User)
    ).all()  # fmt: skip


@kind
def streamed_in_portions(s: Session, lost: Lost) -> Any:
    found = s.scalars(select(User).order_by(User.id).execution_options(yield_per=2))
    return [list(portion) for portion in found.partitions()]


@kind
def raw_text_beside(s: Session, lost: Lost) -> Any:
    return s.execute(
        select(User.id, text("1 + 1"), User.phone).where(text("score > 5")).order_by(User.id)
    ).all()


@kind
def select_from_with_text_columns(s: Session, lost: Lost) -> Any:
    return (
        s.scalars(select(User).from_statement(text('SELECT id, name FROM "user" ORDER BY id'))).all()[0].name
    )


# ---------------------------------------------------------------- the ORM's own reading


@kind
def joined_eager_load(s: Session, lost: Lost) -> Any:
    found = (
        s.scalars(select(User).options(joinedload(User.tools)).order_by(User.level, User.id)).unique().all()
    )
    return [(user, list(user.tools)) for user in found]


@kind
def eager_load_with_limit(s: Session, lost: Lost) -> Any:
    found = s.scalars(
        select(User).options(joinedload(User.tools)).order_by(User.level, User.id).limit(2)
    ).unique()
    return [(user, list(user.tools)) for user in found]


@kind
def other_eager_loads(s: Session, lost: Lost) -> Any:
    by_in = s.scalars(select(User).options(selectinload(User.tools)).order_by(User.id)).all()
    by_subquery = s.scalars(select(User).options(subqueryload(User.tools)).order_by(User.id)).all()
    return [list(user.tools) for user in (*by_in, *by_subquery)]


@kind
def lazy_load(s: Session, lost: Lost) -> Any:
    user = s.get(User, "u1")
    assert user is not None
    return list(user.tools), user.tools[0].owner is user


@kind
def refresh(s: Session, lost: Lost) -> Any:
    user = s.get(User, "u1")
    assert user is not None
    s.refresh(user)
    s.refresh(user, ["phone", "level"])
    return user


@kind
def deferred_and_loaded_later(s: Session, lost: Lost) -> Any:
    user = s.scalars(select(User).options(defer(User.prefs)).where(User.id == "u1")).one()
    other = s.scalars(select(User).options(load_only(User.name)).where(User.id == "u2")).one()
    third = s.scalars(select(User).options(undefer(User.level)).where(User.id == "u3")).one()
    return user.prefs, other.level, other.phone, third.level


@kind
def hierarchy(s: Session, lost: Lost) -> Any:
    return [
        (item.title, getattr(item, "isbn", ""), getattr(item, "pages", ""))
        for item in s.scalars(select(Item).order_by(Item.id))
    ]


@kind
def hierarchy_at_once(s: Session, lost: Lost) -> Any:
    whole = with_polymorphic(Item, [Book], flat=True)
    return s.execute(select(whole.title, whole.Book.isbn, whole.Book.pages).order_by(whole.id)).all()


@kind
def hierarchy_by_subclass(s: Session, lost: Lost) -> Any:
    book = aliased(Book, flat=True)
    return s.scalars(select(book).where(book.isbn == "none", book.title == "a book")).all()


# ---------------------------------------------------------------- writing


@kind
def added_object(s: Session, lost: Lost) -> Any:
    s.add(User(id="u9", name="new", **lost(phone="123", nick="x", level=7, prefs={"x": 1}, since=None)))
    return reread(s)


@kind
def added_object_before_it_is_read_again(s: Session, lost: Lost) -> Any:
    user = User(id="u9", name="new")
    s.add(user)
    s.flush()
    return user.level, user.flag, user.prefs, user.grade, user.phone


@kind
def many_added_objects(s: Session, lost: Lost) -> Any:
    s.add_all([User(id=f"v{n}", name="many", **lost(phone=str(n), nick="y")) for n in range(40)])
    s.flush()
    s.expire_all()
    return s.scalars(select(User).where(User.name == "many").order_by(User.id).limit(3)).all()


@kind
def objects_with_generated_keys(s: Session, lost: Lost) -> Any:
    made = [Counter(**lost(note=str(n))) for n in range(5)]
    s.add_all(made)
    s.flush()
    s.expire_all()
    return len({one.id for one in made}), [one.note for one in made]


@kind
def bulk_insert(s: Session, lost: Lost) -> Any:
    s.execute(insert(User), [{"id": f"b{n}", "name": "b", **lost(phone=str(n), nick="z")} for n in range(5)])
    return s.scalars(select(User).where(User.name == "b").order_by(User.id)).all()


@kind
def core_insert(s: Session, lost: Lost) -> Any:
    made = s.execute(insert(User.__table__).values(id="u9", **lost(phone="9", nick="n", level=1)))
    return made.rowcount, reread(s)


@kind
def core_insert_of_one_dictionary(s: Session, lost: Lost) -> Any:
    s.execute(User.__table__.insert(), {"id": "u9", **lost(phone="9", nick="n")})
    return reread(s)


@kind
def several_values(s: Session, lost: Lost) -> Any:
    rows = [{"id": f"w{n}", "score": n, **lost(phone=str(n), nick="n")} for n in range(3)]
    s.execute(insert(User).values(rows))
    return s.scalars(select(User).where(User.id.like("w%")).order_by(User.id)).all()


@kind
def nothing_but_missing_columns(s: Session, lost: Lost) -> Any:
    s.execute(insert(Counter).values(**lost(note="x")))
    s.execute(insert(Counter), [lost(note="y"), lost(note="z")])
    return s.execute(select(Counter.note)).all()


@kind
def several_values_of_nothing(s: Session, lost: Lost) -> Any:
    s.execute(insert(Counter.__table__).values([{"note": "-"}, {"note": "-"}]))
    return s.execute(select(Counter.note)).all()


@kind
def sql_expressions_as_values(s: Session, lost: Lost) -> Any:
    s.execute(insert(User).values(id="u9", score=select(func.count(User.phone)).scalar_subquery(),
                                  **lost(phone=func.lower("X" + literal("y")), nick=func.upper("n"))))  # fmt: skip
    return reread(s)


@kind
def insert_returning_columns(s: Session, lost: Lost) -> Any:
    made = insert(User).values(id="u9", name="r", **lost(phone="1", nick="q"))
    return s.execute(made.returning(User.id, User.phone, User.level, User.prefs, User.level + 1)).all()


@kind
def insert_returning_entities(s: Session, lost: Lost) -> Any:
    rows = [{"id": f"x{n}", "name": "r", **lost(phone=str(n), nick="q")} for n in range(3)]
    return s.scalars(insert(User).returning(User, sort_by_parameter_order=True), rows).all()


@kind
def insert_from_select(s: Session, lost: Lost) -> Any:
    names = ["id", "phone", "name", "score", "nick"]
    query = select("c-" + User.id, User.phone, User.odd, User.level, literal(None)).where(User.level == 3)
    s.execute(insert(User).from_select(names, query))
    return s.scalars(select(User).where(User.id.like("c-%")).order_by(User.id)).all()


@kind
def insert_from_distinct_select(s: Session, lost: Lost) -> Any:
    query = select(User.level + 100, User.phone).distinct()
    s.execute(insert(Counter).from_select(["id", "note"], query))
    return s.scalars(select(Counter.id).where(Counter.id > 100)).all()


@kind
def insert_from_union(s: Session, lost: Lost) -> Any:
    query = union_all(
        select(literal("y1"), literal("1"), literal("a")), select(User.id + "-", User.phone, User.odd)
    )
    s.execute(insert(Tool).from_select(["id", "access_control", "content"], _as_json(query)))
    return s.execute(select(Tool.id, Tool.content).where(Tool.content.is_not(None)).order_by(Tool.id)).all()


def _as_json(query: Any) -> Any:
    inner = query.subquery()
    first, second, third = inner.c
    return select(first, cast(None, Tool.access_control.type), third).where(
        or_(second.is_(None), second == "1")
    )


@kind
def upsert_of_an_existing_row(s: Session, lost: Lost) -> Any:
    made = upsert(s)(User).values(id="u1", name="up", **lost(phone="5", nick="u"))
    made = made.on_conflict_do_update(index_elements=["id"], set_={"name": "up", **lost(phone="5", nick="u")})
    s.execute(made)
    return reread(s, "u1")


@kind
def upsert_with_the_proposed_row(s: Session, lost: Lost) -> Any:
    made = upsert(s)(User).values(id="u1", name="ex")
    made = made.on_conflict_do_update(
        index_elements=[User.id],
        set_={"name": made.excluded.name, "score": User.score + 1, User.email: made.excluded.phone},
        where=User.level == 3,
    )
    return s.execute(made.returning(User.id, User.name, User.level)).all(), reread(s, "u1")


@kind
def upsert_that_sets_nothing_else(s: Session, lost: Lost) -> Any:
    made = upsert(s)(Counter).values(id=1, note="-").on_conflict_do_update(
        index_elements=["id"], set_={"note": "-"}
    )  # fmt: skip
    return s.execute(made.returning(Counter.id, Counter.note)).all()


@kind
def upsert_where_nothing_can_conflict(s: Session, lost: Lost) -> Any:
    made = upsert(s)(User).values(id="u9", name="ok", phone=None)
    s.execute(made.on_conflict_do_nothing(index_elements=["phone"]))
    again = upsert(s)(User).values(id="u8", name="ok", phone=None)
    s.execute(again.on_conflict_do_update(index_elements=[User.phone], set_={"name": "never"}))
    return s.execute(select(User.id, User.name).where(User.id > "u4").order_by(User.id)).all()


@kind
def ignored_conflict(s: Session, lost: Lost) -> Any:
    made = upsert(s)(User).values(id="u1", name="no", **lost(phone="1", nick="i")).on_conflict_do_nothing()
    s.execute(made)
    return reread(s, "u1")


@kind
def changed_object(s: Session, lost: Lost) -> Any:
    user = s.get(User, "u1")
    assert user is not None
    user.name = "changed"
    for name, value in lost(phone="77", nick="c", level=9).items():
        setattr(user, name, value)
    return reread(s, "u1")


@kind
def object_changed_in_missing_columns_only(s: Session, lost: Lost) -> Any:
    user = s.get(User, "u1")
    assert user is not None
    for name, value in lost(phone="78", nick="c").items():
        setattr(user, name, value)
    return reread(s, "u1")


@kind
def bulk_update(s: Session, lost: Lost) -> Any:
    made = update(User).where(User.id == "u1").values(name="w", **lost(phone="5", nick="u"))
    return s.execute(made.execution_options(synchronize_session=False)).rowcount, reread(s, "u1")


@kind
def bulk_update_of_missing_columns_only(s: Session, lost: Lost) -> Any:
    made = update(User).where(User.level == 3).values(**{"nick": None} | lost(phone="5", nick="u"))
    return s.execute(made).rowcount, reread(s, "u1")


@kind
def update_where_missing(s: Session, lost: Lost) -> Any:
    return (
        s.execute(update(User).where(User.phone == "5").values(name="zz")).rowcount,
        s.execute(update(User).where(User.level == 3).values(name="yy")).rowcount,
    )


@kind
def update_from_a_missing_column(s: Session, lost: Lost) -> Any:
    s.execute(update(User).values(score=User.level + 1, name=User.odd, email=None))
    s.expire_all()
    return s.scalars(select(User).order_by(User.id)).all()


@kind
def update_by_keys(s: Session, lost: Lost) -> Any:
    s.execute(update(User), [{"id": f"u{n}", "name": "k", **lost(phone=str(n), nick="k")} for n in (1, 2)])
    s.execute(update(User), [{"id": "u3", "nick": None} | lost(phone="3", nick="k")])
    s.expire_all()
    return s.scalars(select(User).order_by(User.id)).all()


@kind
def update_returning(s: Session, lost: Lost) -> Any:
    made = update(User).where(User.id == "u1").values(name="r", **lost(phone="1", nick="n"))
    return s.execute(made.returning(User.phone, User.name, User.level)).all()


@kind
def update_in_order(s: Session, lost: Lost) -> Any:
    made = (
        update(User)
        .where(User.id == "u1")
        .ordered_values(("name", "o"), ("nick", None), ("score", User.level))
    )
    return s.execute(made).rowcount, reread(s, "u1")


@kind
def update_from_another_table(s: Session, lost: Lost) -> Any:
    made = update(User).where(Tool.user_id == User.id, Tool.id == "t1").values(name=Tool.content)
    return s.execute(made.execution_options(synchronize_session=False)).rowcount, reread(s, "u1")


@kind
def written_inside_a_query(s: Session, lost: Lost) -> Any:
    if s.get_bind().dialect.name == "sqlite":
        return "SQLite has no such thing"
    made = (
        insert(User)
        .values(id="u9", name="cte", **lost(phone="1", nick="n"))
        .returning(User.id, User.phone, User.level)
    )
    row = made.cte("made")
    return s.execute(select(row.c.id, row.c.phone, row.c.level)).all(), reread(s)


@kind
def merge(s: Session, lost: Lost) -> Any:
    s.merge(User(id="u1", name="mg", nick=None, **({} if not lost(phone="1") else {"phone": "3"})))
    return reread(s, "u1")


@kind
def delete_where(s: Session, lost: Lost) -> Any:
    s.execute(delete(Tool))
    made = delete(User).where(User.phone.is_(None), User.level == 3, User.id != "u2")
    return s.execute(made.returning(User.id, User.level)).all() and s.scalars(select(User.id)).all()


@kind
def deleted_object(s: Session, lost: Lost) -> Any:
    s.delete(s.get(Tool, "t4"))
    s.flush()
    return s.scalars(select(Tool.id).order_by(Tool.id)).all()


@kind
def rows_of_a_hierarchy(s: Session, lost: Lost) -> Any:
    made = Book(title="new", author="Eve", **lost(isbn="1", pages=5))
    s.add(made)
    s.flush()
    s.expire_all()
    return made.title, made.author, made.isbn, made.pages


@kind
def what_is_locked_away_until_then(s: Session, lost: Lost) -> Any:
    s.execute(text("INSERT INTO vault (id, label) VALUES (1, 'a')"))
    if "access" not in {column["name"] for column in inspect(s.connection()).get_columns("vault")}:
        return s.execute(select(Vault.label, Vault.secret, Vault.access)).all()
    return [("a", None, {})]


# ---------------------------------------------------------------- what may not be written


@pytest.mark.parametrize(
    "statement",
    [
        insert(Vault).values(label="a", secret="b"),
        insert(Vault).values([{"label": "a", "secret": "b"}]),
        update(Vault).values(secret="b"),
        insert(Vault).from_select(["label", "secret"], select(User.name, User.name)),
    ],
    ids=["insert", "values", "update", "select"],
)
def test_a_required_column_is_never_left_out(pair: Pair, statement: Any) -> None:
    with Session(pair.old) as session:
        for _ in range(2):  # the second time the statement has been compiled before
            with pytest.raises(RequiredColumnMissing):
                session.execute(statement)
        session.execute(update(Vault).values(label="all else is written"))


def test_a_required_column_is_never_left_out_of_an_upsert_or_an_object(pair: Pair) -> None:
    with Session(pair.old) as session:
        made = upsert(session)(Vault).values(id=1, label="a")
        with pytest.raises(RequiredColumnMissing):
            session.execute(made.on_conflict_do_update(index_elements=["id"], set_={"secret": "b"}))
        session.add(Vault(label="a"))
        with pytest.raises(RequiredColumnMissing):
            session.flush()
