"""What would break us on a legacy database is named and refused before anything changes; what would not is told."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import repair, runner, status
from migrations.chain import Chain
from migrations.outcomes import Exit
from migrations.plan import plan
from migrations.preflight import preflight
from tests.migrations.conftest import settings_for
from tests.migrations.shapes import catalogue
from tests.migrations.takeover.people import fill
from tests.migrations.takeover.releases import OPEN_WEBUI

PLAIN = OPEN_WEBUI["0.6.18"]

# What is done to such a database, on which of both, and what the refusal says.
BOTH, SQLITE, POSTGRES = ("sqlite", "postgresql"), ("sqlite",), ("postgresql",)
CONFLICTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "a table of another program": (BOTH, "CREATE TABLE job (id TEXT)", "the table job is there and is not ours by its"
                                   " shape: it lacks user_id, status, provider, model, action and "),
    "a view": (SQLITE, "CREATE VIEW artifact AS SELECT id FROM tool", "artifact is a view, and we need a table"),
    "the version table as a view": (SQLITE, "CREATE VIEW wxiai_alembic_version AS SELECT '' AS version_num WHERE 0 = 1",
                                    "wxiai_alembic_version is a view"),
    "an index's name": (BOTH, "CREATE INDEX ix_job_parent_id ON chat (title)",
                        "ix_job_parent_id is an index of chat, and we need the name for an index of job"),
    "an index as a table's name": (SQLITE, "CREATE INDEX ledger_entry ON chat (title)",
                                   "ledger_entry is an index of chat, and we need a table"),
    "an index on something else": (SQLITE, 'CREATE INDEX ix_user_phone ON "user" (name)',
                                   "the index ix_user_phone of user is on (name), not on (phone)"),
    "a column that must be given": (BOTH, 'ALTER TABLE "user" ADD COLUMN badge INTEGER NOT NULL',
                                    "user.badge must be given a value"),
    "our nullable column, but not null": (SQLITE, 'ALTER TABLE "user" ADD COLUMN phone VARCHAR NOT NULL DEFAULT \'\'',
                                          "user.phone must have a value"),
    "a column of another type": (BOTH, 'ALTER TABLE "user" ADD COLUMN phone INTEGER',
                                 "user.phone is INTEGER, not VARCHAR(64)"),
    "values that must be unique": (SQLITE, "ALTER TABLE \"user\" ADD COLUMN phone VARCHAR DEFAULT '0'",
                                   "1 values of user.phone occur more than once: ix_user_phone cannot be made"),
    "our bookkeeping's name": (BOTH, "CREATE TABLE migration_report (text TEXT)",
                               "the table migration_report is there and is not ours"),
    "our settings' name": (SQLITE, "CREATE TABLE app_setting (key INTEGER, value TEXT, updated_at TEXT)",
                           "app_setting.key is INTEGER, not VARCHAR(255)"),
    "a name in capitals": (SQLITE, "CREATE TABLE Job (id TEXT)",
                           "Job is a table, and SQLite does not tell it from job"),
    "a column in capitals": (SQLITE, 'ALTER TABLE "user" ADD COLUMN Phone TEXT',
                             "SQLite does not tell user.Phone from the phone that is ours"),
    "a virtual table": (SQLITE, "CREATE VIRTUAL TABLE job USING fts5(text)", "job is a virtual table"),
    "a sequence": (POSTGRES, "CREATE SEQUENCE job", "job is a sequence"),
    "a type": (POSTGRES, "CREATE TYPE job AS ENUM ('a')", "job is a type"),
    "a key's name": (POSTGRES, "CREATE SEQUENCE pk_job",
                     "pk_job is a sequence, and we need the name for an index of job"),
    "a materialized view": (POSTGRES, "CREATE MATERIALIZED VIEW job AS SELECT 1 AS id", "job is a materialized view"),
    "an enumeration": (POSTGRES, "CREATE TYPE colour AS ENUM ('a'); ALTER TABLE \"user\" ADD COLUMN phone colour",
                       "user.phone is colour, not VARCHAR(64)"),
    "a computed column": (POSTGRES, 'ALTER TABLE "user" ADD COLUMN phone VARCHAR GENERATED ALWAYS AS (id) STORED',
                          "user.phone is computed by the database"),
}  # fmt: skip
CASES = [(name, kind) for name, (kinds, *_) in CONFLICTS.items() for kind in kinds]


def facts(engine: sa.Engine) -> object:
    """What any change would show in."""
    if engine.dialect.name == "sqlite":
        return Path(engine.url.database or "").read_bytes()
    with engine.connect() as connection:
        return catalogue(connection)


@pytest.mark.parametrize(("name", "database_url"), CASES, indirect=["database_url"])
def test_a_conflict_is_refused_by_name(name: str, given: Settings, engine: sa.Engine) -> None:
    _, done, said = CONFLICTS[name]
    before = build(engine, done)
    outcome = runner.upgrade(given, Chain())
    assert (outcome.code, outcome.state) == (Exit.REFUSED, "refused")
    assert outcome.line.startswith("refused, and nothing was changed: ")
    assert said in outcome.line
    assert facts(engine) == before


def build(engine: sa.Engine, done: str) -> object:
    """What it holds then."""
    with engine.begin() as connection:
        if "INTEGER NOT NULL" in done:  # SQLite adds such a column to no table
            PLAIN.plus([], user=PLAIN.tables["user"].plus("badge INTEGER!")).build(connection)
        else:
            PLAIN.build(connection)
            if "DEFAULT '0'" in done:
                fill(connection, PLAIN)
            connection.exec_driver_sql(done)
    return facts(engine)


def test_every_command_shows_the_same_and_changes_nothing(given: Settings, engine: sa.Engine) -> None:
    before = build(engine, "CREATE VIEW artifact AS SELECT id FROM tool")
    said = "artifact is a view, and we need a table of that name"
    rehearsed = plan(given, Chain())
    assert (rehearsed.steps, rehearsed.error) == ([], "would be refused, and nothing changed")
    mending = repair.plan(given.database_url, Chain())
    shown = status.status(given.database_url, Chain())
    for lines in (rehearsed.lines(), mending.lines(), shown.lines()):
        assert sum(said in line for line in lines) == 1
    assert shown.findings == rehearsed.findings == mending.findings
    assert repair.repair(given, Chain(), mending).code == Exit.REFUSED
    assert runner.upgrade(given, Chain()).code == Exit.REFUSED
    assert facts(engine) == before


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_what_this_user_may_not_do_is_told_beforehand(given: Settings, engine: sa.Engine) -> None:
    """The tables belong to another role, as they do where somebody else made the database."""
    role = f"r{secrets.token_hex(4)}"
    with engine.begin() as connection:
        PLAIN.build(connection)
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        connection.exec_driver_sql(f'GRANT SELECT, INSERT, UPDATE ON "user", auth, tool TO {role}')
    as_role = settings_for(given.database_url.replace("postgres@", f"{role}@"))
    line = runner.upgrade(as_role, Chain()).line
    for said in (
        f"{role} may not create tables in the schema public",
        f"user belongs to postgres, so {role} may not add phone, ix_user_phone",
        f"{role} may not read and write group",
    ):
        assert said in line
    assert "auth belongs" not in line  # nothing has to be added there
    with engine.begin() as connection:
        connection.exec_driver_sql(f"GRANT ALL ON SCHEMA public TO {role}")
        for table in PLAIN.tables:
            connection.exec_driver_sql(f'ALTER TABLE "{table}" OWNER TO {role}')
    assert runner.upgrade(as_role, Chain()).code == 0


def test_who_waits_for_a_refused_upgrade_is_told_at_once(given: Settings, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE job (id TEXT)")
    outcome = runner.wait(given, Chain())
    assert (outcome.code, "the table job" in outcome.line) == (Exit.REFUSED, True)


HARMLESS = {
    "sqlite": {
        "user has no primary key",
        "auth.active is INTEGER, which serves as BOOLEAN",
        "tool.meta is JSON, which serves as TEXT",
        "user: profile_image_url may be NULL",
        "group.must must be given a value; we only read this table",
    },
    "postgresql": {
        "user has no primary key",
        "user.email holds 100 characters, ours 255",
        "user: profile_image_url may be NULL",
        "tool.access_control is TEXT, which serves as JSONB",
        "group.must must be given a value; we only read this table",
    },
}


def test_harmless_differences_are_told_and_borne(
    given: Settings, engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    kind = engine.dialect.name
    user, tool, group = (PLAIN.tables[name] for name in ("user", "tool", "group"))
    shape = PLAIN.plus(
        [],
        user=user.without("profile_image_url").without("email").plus("profile_image_url TEXT, email VARCHAR(100)!"),
        tool=tool.without("meta").plus("meta JSON") if kind == "sqlite"
        else tool.without("access_control").plus("access_control TEXT"),
        group=group.plus("must INTEGER!"),
    )  # fmt: skip
    with engine.begin() as connection:
        shape.build(connection)
    with engine.connect() as connection:
        found = preflight(connection)
    assert (found.conflicts, HARMLESS[kind] - set(found.differences)) == ([], set())
    assert {f"differs   {line}" for line in HARMLESS[kind]} <= set(plan(given, Chain()).lines())
    caplog.set_level("INFO")
    assert runner.upgrade(given, Chain()).code == 0
    assert {f"differs from ours, and may: {line}" for line in HARMLESS[kind]} <= set(caplog.messages)
