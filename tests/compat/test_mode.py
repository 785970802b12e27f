"""Into the compatibility mode when a column vanishes, out of it when the column is back, and nothing in between."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from common import db
from common.db import build_engine, compat, schema
from common.db.compat import Compat, SchemaDrift
from tests.infrastructure.children import wait_until


class Base(DeclarativeBase):
    """One table."""


class Thing(Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    size: Mapped[int | None]
    color: Mapped[str] = mapped_column(default="red")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = build_engine(database_url)
    Base.metadata.create_all(made)
    with made.begin() as connection:
        connection.execute(insert(Thing).values(id=1, name="a", size=5))
    yield made
    made.dispose()


@pytest.fixture
def mode(engine: Engine) -> Iterator[Compat]:
    made = compat.install(engine, Base.metadata)
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def alter(database_url: str) -> Iterator[Callable[[str], None]]:
    """Change the table as somebody else would."""
    other = build_engine(database_url)

    def change(what: str) -> None:
        with other.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE thing {what}")

    yield change
    other.dispose()


def load(engine: Engine) -> tuple[Any, ...]:
    with Session(engine) as session:
        thing = session.get_one(Thing, 1)
        return thing.name, thing.size, thing.color


def test_a_column_vanishes_and_comes_back(
    engine: Engine, mode: Compat, alter: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "LOOK_EVERY_S", 0.05)
    usual = engine.dialect
    assert load(engine) == ("a", 5, "red")
    alter("DROP COLUMN size")
    with pytest.raises(SchemaDrift):
        load(engine)
    assert load(engine) == ("a", None, "red")
    alter("DROP COLUMN color")
    assert db.again(lambda: load(engine)) == ("a", None, "red")
    assert mode.lacking == {"thing": {"size", "color"}}

    alter("ADD COLUMN size INTEGER")
    wait_until(lambda: mode.lacking == {"thing": {"color"}}, what="one of them is noticed")
    with Session(engine) as session, session.begin():
        session.execute(update(Thing).values(size=7, color="blue"))
    assert load(engine) == ("a", 7, "red")
    alter("ADD COLUMN color VARCHAR DEFAULT 'green' NOT NULL")
    wait_until(lambda: engine.dialect is usual, what="the mode is left")
    assert load(engine) == ("a", 7, "green")


def test_what_was_done_before_in_the_transaction_is_done_once(
    engine: Engine, mode: Compat, alter: Callable[[str], None]
) -> None:
    tries = []

    def work() -> None:
        with Session(engine) as session, session.begin():
            tries.append(1)
            session.execute(insert(Thing.__table__).values(id=2 if mode.lacking else 3, name="b"))
            session.execute(update(Thing).values(name="c", size=6))

    alter("DROP COLUMN size")
    db.again(work)
    with engine.connect() as connection:
        assert connection.execute(select(Thing.id, Thing.name).order_by(Thing.id)).all() == [
            (1, "c"),
            (2, "c"),
        ]
    assert len(tries) == 2


def test_a_committed_transaction_is_never_done_again() -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        db._commits.set(db._commits.get() + 1)
        raise SchemaDrift

    with pytest.raises(SchemaDrift):
        db.again(work)
    assert len(tries) == 1


def test_columns_that_change_without_end_end_in_an_answer() -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise SchemaDrift

    with pytest.raises(SchemaDrift):
        db.again(work)
    assert len(tries) == 3


def test_a_column_that_comes_back_with_another_type(
    engine: Engine, mode: Compat, alter: Callable[[str], None], database_url: str
) -> None:
    for _ in range(8):  # until the driver has prepared the statement
        load(engine)
    alter("DROP COLUMN size")
    alter("ADD COLUMN size BIGINT")
    assert db.again(lambda: load(engine)) == ("a", None, "red")


def test_other_errors_stay_what_they_are(engine: Engine, mode: Compat, alter: Callable[[str], None]) -> None:
    wrong = (OperationalError, ProgrammingError)
    with Session(engine) as session, pytest.raises(wrong):
        session.execute(text("SELECT nonsense FROM thing"))
    with Session(engine) as session, pytest.raises(wrong):
        session.execute(text("SELECT 1 FROM nowhere"))
    with Session(engine) as session, pytest.raises(IntegrityError):
        session.execute(insert(Thing).values(id=1, name="twice"))
    alter("DROP COLUMN name")  # NOT NULL, without a default: nothing that can be borne
    with Session(engine) as session, pytest.raises(wrong):
        session.get(Thing, 1)
    assert mode.lacking == {}


def test_an_upgrade_is_not_needed_to_start_on_an_old_schema(
    engine: Engine, alter: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    alter("DROP COLUMN size")
    made = compat.install(engine, Base.metadata)
    assert made is not None
    assert load(engine) == ("a", None, "red")
    made.close()


def test_a_child_looks_for_itself(engine: Engine, mode: Compat, alter: Callable[[str], None]) -> None:
    alter("DROP COLUMN size")
    mode.look()
    before = mode._watcher
    mode.forked()
    assert mode._watcher not in (None, before)


def test_what_is_lost_is_counted_and_told_once(
    engine: Engine,
    mode: Compat,
    alter: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compat, "_told", set())
    counted: Counter[tuple[str, str]] = Counter()
    monkeypatch.setattr(
        compat, "_observers", [lambda table, column, rows: counted.update({(table, column): rows})]
    )
    alter("DROP COLUMN size")
    alter("DROP COLUMN color")
    mode.look()
    with Session(engine) as session, session.begin():
        session.add_all([Thing(id=number, name=str(number), size=number) for number in range(10, 20)])
        session.flush()
        session.execute(update(Thing).values(size=1))
        session.execute(insert(Thing.__table__).values(id=20, name="no size"))
    assert counted == {("thing", "size"): 11, ("thing", "color"): 11}
    told = [record.getMessage() for record in caplog.records if record.name == compat.__name__]
    assert sorted(told) == [
        f"what is written to thing.{name} is lost until the database has it" for name in ("color", "size")
    ]


@pytest.mark.parametrize("reason", ["setting", "library"])
def test_where_it_is_not_wanted_or_not_possible_drift_means_not_ready(
    reason: str, engine: Engine, monkeypatch: pytest.MonkeyPatch, alter: Callable[[str], None]
) -> None:
    alter("DROP COLUMN size")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {schema.VERSION_TABLE} (version_num VARCHAR(32))")
        connection.exec_driver_sql(f"INSERT INTO {schema.VERSION_TABLE} VALUES ('{schema.head()}')")
    known = schema.schema_state(engine, Base.metadata)
    assert (known.state, known.missing, known.usable) == ("current", {"thing": ["size"]}, True)
    if reason == "setting":
        given = compat.settings().model_copy(update={"enable_backward_compatibility": False})
        monkeypatch.setattr(compat, "settings", lambda: given)
        monkeypatch.setattr(schema, "settings", lambda: given)
    else:
        monkeypatch.setattr(compat, "is_supported", lambda: False)
    schema._cache.clear()
    assert compat.install(engine, Base.metadata) is None
    assert schema.schema_state(engine, Base.metadata).usable is False


def test_a_library_that_changed_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert compat.is_supported()
    monkeypatch.setattr(compat, "_usual_params", None)
    assert not compat.is_supported.__wrapped__()
    assert "is not the one" in caplog.text


# ---------------------------------------------------------------- what it costs


def test_nothing_is_called_more_often_while_the_schema_is_whole(engine: Engine, database_url: str) -> None:
    """Python calls per statement, with and without the mode installed: the time they take varies more."""
    other = build_engine(database_url)
    made = compat.install(other, Base.metadata)
    assert made is not None
    for work in (load, _write):
        bare, ready = _calls(lambda: work(engine)), _calls(lambda: work(other))  # noqa: B023
        assert ready <= bare * 1.02, work
        assert bare > 100
    other.dispose()


def _write(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.get_one(Thing, 1).size = 1
        session.execute(update(Thing).where(Thing.id == 1).values(size=2))


def _calls(work: Callable[[], object]) -> int:
    """How many Python functions run, once all caches are warm: the fewest of some tries."""
    for _ in range(8):
        work()
    counts = []
    for _ in range(5):
        seen = [0]

        def count(_frame: object, what: str, _argument: object, seen: list[int] = seen) -> None:
            seen[0] += what == "call"

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            work()
        finally:
            sys.setprofile(before)
        counts.append(seen[0])
    return min(counts)


def test_the_metadata_may_grow_after_the_start(engine: Engine, alter: Callable[[str], None]) -> None:
    alter("DROP COLUMN size")
    grown = MetaData()
    made = compat.install(engine, grown)
    assert made is not None
    assert made.lacking == {}
    Thing.__table__.to_metadata(grown)  # type: ignore[attr-defined]
    assert db.again(lambda: load(engine)) == ("a", None, "red")
    made.close()
