"""Every way leads to the same schema: the chain, create_all, and the chain from any earlier point, with rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from common.settings import Settings
from migrations import reports, runner
from migrations.chain import Chain
from migrations.guard import guard_for
from migrations.target import METADATA
from tests.migrations.shapes import sample_values, shape

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


def test_the_chain_and_create_all_make_the_same(
    given: Settings, engine: sa.Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert runner.upgrade(given, Chain()).code == 0
    by_chain = shape(engine)
    if engine.dialect.name == "sqlite":
        other = sa.create_engine(f"sqlite:///{tmp_path}/other.db")
    else:
        other = engine
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
    METADATA.create_all(other)
    by_models = shape(other)
    assert by_chain.keys() == by_models.keys()
    for table in by_models:
        assert by_chain[table] == by_models[table], table


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_every_earlier_revision_upgrades_and_keeps_its_rows(
    revision: str, given: Settings, engine: sa.Engine
) -> None:
    upgrade_to(given.database_url, revision)
    rows = fill(engine)
    assert runner.upgrade(given, Chain()).code == 0
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
