"""Every way leads to the same schema: the chain, create_all, and the chain from any earlier point, with rows."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic import command

from common.db.schema import VERSION_TABLE
from common.settings import Settings
from migrations import reports, runner
from migrations.chain import Chain
from migrations.guard import guard_for
from migrations.target import METADATA
from tests.infrastructure.postgres import Postgres
from tests.migrations.conftest import settings_for
from tests.migrations.shapes import catalogue, sample_values, shape

PRIVATE = """"'{}'::jsonb\""""
REVISIONS = [script.revision for script in Chain().revisions]


def upgrade_to(url: str, revision: str) -> None:
    """As an older release would have left it."""
    guard, chain = guard_for(url), Chain()
    connection = guard.take()
    assert connection is not None
    reports.ensure_tables(connection)
    if connection.dialect.name == "postgresql":
        connection.commit()
    chain.config.attributes["connection"] = connection
    chain.config.attributes["on_apply"] = reports.ledger_writer(chain, None)
    command.upgrade(chain.config, revision)
    connection.commit()
    guard.release()


def fill(engine: sa.Engine) -> dict[str, int]:
    """One row in every table that is there, as far as its columns go."""
    with engine.begin() as connection:
        there = sa.MetaData()
        there.reflect(connection)
        tables = [
            table
            for table in there.sorted_tables
            if "migration" not in table.name and "alembic" not in table.name
        ]
        for table in tables:
            connection.execute(table.insert().values(sample_values(table)))
    return {table.name: 1 for table in tables}


@pytest.fixture(scope="module")
def by_models(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What create_all makes, on each database."""
    url = postgres_server.create_database()
    made: dict[str, object] = {}
    for place in (f"sqlite:///{tmp_path_factory.mktemp('models')}/models.db", url):
        engine = sa.create_engine(settings_for(place).database_url, poolclass=sa.NullPool)
        METADATA.create_all(engine)
        made[engine.dialect.name] = likeness(engine)
    postgres_server.drop_database(url)
    return made


def likeness(engine: sa.Engine) -> object:
    """Every table, column by column. PostgreSQL's own catalogue is quicker to read, and has no order of columns.

    The default of `tool.access_control` is left out: where tools of a legacy program were there first there is one.
    """
    if engine.dialect.name == "sqlite":
        found = shape(engine)
        columns = found["tool"]["columns"]
        columns["access_control"] = columns["access_control"][:2]
        return found
    with engine.connect() as connection:
        lines = [line for line in catalogue(connection) if VERSION_TABLE not in line]
    return [line.replace(PRIVATE, "None") if "'access_control'" in line else line for line in lines]


def test_the_chain_and_create_all_make_the_same(
    given: Settings, engine: sa.Engine, by_models: dict[str, object]
) -> None:
    assert runner.upgrade(given, Chain()).code == 0
    assert likeness(engine) == by_models[engine.dialect.name]


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_every_earlier_revision_upgrades_and_keeps_its_rows(
    revision: str, given: Settings, engine: sa.Engine, by_models: dict[str, object]
) -> None:
    upgrade_to(given.database_url, revision)
    rows = fill(engine)
    assert runner.upgrade(given, Chain()).code == 0
    assert likeness(engine) == by_models[engine.dialect.name]
    with engine.connect() as connection:
        after = {
            table: connection.scalar(sa.select(sa.func.count()).select_from(sa.table(table)))
            for table in rows
        }
    # The first run's set-up adds its own rows, and takes none.
    assert all(after[table] >= rows[table] for table in rows)


def test_alembic_sees_no_difference_between_models_and_chain(given: Settings) -> None:
    assert runner.upgrade(given, Chain()).code == 0
    guard, chain = guard_for(given.database_url), Chain()
    chain.config.attributes["connection"] = guard.take()
    chain.config.attributes["on_apply"] = reports.ledger_writer(chain, None)
    try:
        command.check(chain.config)
    finally:
        guard.release()
