"""Databases that the original programs made, filled with made-up data: too large for the repository."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from tests.infrastructure.environment import ROOT
from tests.infrastructure.postgres import Postgres
from tests.integration.web.api import Api
from tests.migrations.takeover.contents import check_kept, contents

SAMPLES = ROOT.parent / "shared" / "legacy"  # looked for beside the checkout
LOGIN = {"email": "13318092044", "password": "Fixture-密码-1"}
OLD_KEYS = 'SELECT id, api_key FROM "user" WHERE api_key IS NOT NULL'
NEW_KEYS = "SELECT user_id, key FROM api_key WHERE expires_at IS NULL"
# The sample, where its API keys are, and a login that is known.
CASES: dict[str, tuple[str, dict[str, str] | None]] = {
    "owui-0.6.18-postgresql.sql": (OLD_KEYS, None),
    "owui-0.12.4-sqlite.db": (NEW_KEYS, None),
    "wxiai-f1-half-applied-sqlite.db": (OLD_KEYS, LOGIN),
    "wxiai-g1-startup-fallback-postgresql.sql": (OLD_KEYS, LOGIN),
}


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """DATABASE_URL of the sample's own kind, with all of it."""
    packed = SAMPLES / f"{request.param}.xz"
    if not packed.exists():
        pytest.skip(f"{packed} is not here")
    with lzma.open(packed) as source:
        if request.param.endswith(".db"):
            with (tmp_path / "webui.db").open("wb") as target:
                shutil.copyfileobj(source, target)
            yield f"sqlite:///{tmp_path}/webui.db"
            return
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.create_database()
        with psycopg.connect(url, autocommit=True) as connection:
            play(connection.cursor(), source)
        yield url
        server.drop_database(url)


def play(cursor: psycopg.Cursor, lines: Iterator[bytes]) -> None:
    """Run what pg_dump wrote: statements that end with their line, and the rows of COPY."""
    statement = b""
    for line in lines:
        if line.startswith(b"--") or not line.strip():
            continue
        statement += line
        if not line.rstrip().endswith(b";"):
            continue
        if statement.startswith(b"COPY"):
            with cursor.copy(statement.rstrip(b";\n")) as copy:
                while (row := next(iter(lines))) != b"\\.\n":
                    copy.write(row)
        else:
            cursor.execute(statement)
        statement = b""


@pytest.mark.parametrize(
    ("database_url", "keys", "login"),
    [(name, *facts) for name, facts in CASES.items()],
    indirect=["database_url"],
    ids=list(CASES),
)
def test_a_real_database(
    keys: str,
    login: dict[str, str] | None,
    given: Settings,
    engine: sa.Engine,
    serve: Callable[[], Callable[..., Api]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = contents(engine)
    caplog.set_level("INFO")
    assert runner.upgrade(given, Chain()).code == 0
    assert any("Existing users: 1250" in line and "tools: 40" in line for line in caplog.messages)
    check_kept(before, engine)
    client = serve()
    with engine.connect() as connection:
        roles = dict(tuple(row) for row in connection.exec_driver_sql('SELECT id, role FROM "user"'))
        found = [tuple(row) for row in connection.exec_driver_sql(keys)]
    assert len(found) > 30
    for user_id, key in found[:10]:
        answer = client(key).ask("GET", "/v1/me")
        assert answer.status == (200 if roles[user_id] in ("user", "admin") else 403)
        assert answer.status == 403 or answer.json["id"] == user_id
    if login is not None:
        assert client().ask("POST", "/v1/auth/signin", login).status == 200
