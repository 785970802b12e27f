"""Operators' commands: what scripts read from them, and one line for everything that goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text, update

from common.db import transaction
from common.ids import new_id
from common.models import CreditAccount
from tests.infrastructure.children import wait_until
from tests.infrastructure.databases import Released
from tests.infrastructure.environment import ROOT, clean_environment
from tests.infrastructure.inside import configured
from tests.infrastructure.postgres import Postgres
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api, validator
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import BODY, PRICE, fail, jobs_of, succeed
from web.app import create_app

NO_REDIS = "redis://127.0.0.1:1/0"


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


def run(app: Flask, *arguments: str) -> Done:
    """A command in this process."""
    result = app.test_cli_runner().invoke(args=list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def run_alone(environment: Mapping[str, str], *arguments: str) -> Done:
    """A command as an operator types it, in a process of its own."""
    command = [sys.executable, "-m", "flask", "--app", "web.app", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(environment), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def refused(done: Done, *words: str) -> bool:
    """Whether it ended with 1 and a single line on standard error that has these words."""
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    return (done.code, done.out) == (1, "") and all(word in line for word in words)


@pytest.fixture
def email() -> str:
    return f"{new_id('e')}@example.com"


# ---------------------------------------------------------------- in processes of their own


def test_an_operators_first_minutes(
    released: Released, postgres_server: Postgres, valkey_server: Valkey, email: str
) -> None:
    url = released.postgresql().replace("postgresql://", "postgres://")  # as hosts write it
    environment = {"DATABASE_URL": url, "REDIS_URL": valkey_server.url, "SECRET_KEY": "s"}
    created = run_alone(environment, "users", "create", email, "--name", "Ann", "--role", "admin")
    token = run_alone(environment, "tokens", "create", email)
    granted = run_alone(environment, "credits", "grant", email, "500")
    verified = run_alone(environment, "ledger", "verify")
    examined = run_alone(environment, "doctor")
    assert [done.code for done in (created, token, granted, verified, examined)] == [0] * 5
    assert [done.err for done in (created, token, granted, verified, examined)] == [""] * 5
    assert (verified.out, examined.out) == ("", "")
    with configured(environment):
        ann = Api(token.out.strip(), app=create_app())
        me = ann.get("/v1/me")
        assert (me["id"], me["email"], me["name"], me["role"]) == (created.out.strip(), email, "Ann", "admin")
        assert ann.get("/v1/credits/ledger")["data"][0]["id"] == granted.out.strip()
        assert ann.credits() == (500, 0)
    postgres_server.drop_database(url)


def test_without_a_database_there_is_one_line() -> None:
    done = run_alone(
        {"DATABASE_URL": "postgresql://postgres@127.0.0.1:1/none", "REDIS_URL": NO_REDIS}, "doctor"
    )
    assert refused(done, "database: ", "127.0.0.1")


# ---------------------------------------------------------------- in this process


def test_users_create(app: Flask, nobody: Api, email: str) -> None:
    done = run(app, "users", "create", email.upper(), "--password", "long enough")
    assert (done.code, done.err) == (0, "")
    signed_in = nobody.post("/v1/auth/signin", {"email": email, "password": "long enough"})
    assert signed_in["user"] == {
        "id": done.out.strip(), "object": "user", "email": email, "name": email.partition("@")[0],
        "role": "user", "created_at": signed_in["user"]["created_at"],
    }  # fmt: skip
    assert refused(run(app, "users", "create", email), "already", email)
    assert refused(run(app, "users", "create", "nobody"), "e-mail")
    assert refused(run(app, "users", "create", "b@example.com", "--password", "short"), "8 characters")
    assert run(app, "users", "create", "b@example.com", "--role", "root").code == 2


def test_tokens_create(app: Flask, user: Api, nobody: Api) -> None:
    done = run(app, "tokens", "create", user.email, "--name", "backup")
    assert Api(done.out.strip(), app=app).get("/v1/me")["id"] == user.user_id
    assert "backup" in [token["name"] for token in user.get("/v1/tokens")["data"]]
    assert refused(run(app, "tokens", "create", "no@example.com"), "no@example.com")


def test_credits_grant(app: Flask, user: Api) -> None:
    done = run(app, "credits", "grant", user.email, "25", "--note", "sorry")
    entry = user.get("/v1/credits/ledger")["data"][0]
    assert (entry["id"], entry["kind"], entry["amount"], entry["note"]) == (
        done.out.strip(),
        "grant",
        25,
        "sorry",
    )
    run(app, "credits", "grant", user.email, "25", "--note", "sorry")
    assert user.credits() == (1050, 0)
    assert refused(run(app, "credits", "grant", user.email, "0"), "AMOUNT")
    assert refused(run(app, "credits", "grant", user.email, str(10**12 + 1)), "AMOUNT")
    assert refused(run(app, "credits", "grant", "no@example.com", "5"), "no@example.com")
    assert run(app, "credits", "grant", user.email, "--", "-5").code == 1
    assert run(app, "credits", "grant", user.email, "1.5").code == 2
    assert user.credits() == (1050, 0)


def test_ledger_verify_and_doctor_name_what_is_wrong(app: Flask, user: Api) -> None:
    user.post("/v1/jobs", BODY)
    assert run(app, "ledger", "verify") == Done(0, "", "")

    def steal(amount: int) -> None:
        with transaction() as session:
            session.execute(
                update(CreditAccount)
                .where(CreditAccount.user_id == user.user_id)
                .values(available=CreditAccount.available - amount)
            )

    steal(1)
    try:
        verified, examined = run(app, "ledger", "verify"), run(app, "doctor")
    finally:
        steal(-1)
    assert verified.code == examined.code == 1
    assert user.user_id in verified.out
    assert "979" in verified.out
    assert f"ledger: {verified.out}" in examined.out
    assert run(app, "ledger", "verify").code == 0


def test_doctor_looks_at_redis_and_the_schema(released: Released, tmp_path: Path) -> None:
    url = released.sqlite(tmp_path / "webui.db")
    with configured({"DATABASE_URL": url, "REDIS_URL": NO_REDIS, "SECRET_KEY": "s"}):
        app = create_app()
        done = run(app, "doctor")
        assert (done.code, len(done.out.splitlines())) == (1, 1)
        assert done.out.startswith("redis: ")
        with transaction() as session:
            session.execute(text("DROP TABLE app_setting"))
        wait_until(lambda: "schema: " in run(app, "doctor").out, 5, what="the cached look is old")


def test_jobs_show(app: Flask, user: Api) -> None:
    job = user.post("/v1/jobs", {**BODY, "metadata": {"name": "狐"}})
    succeed(job["id"])
    done = run(app, "jobs", "show", job["id"])
    shown = json.loads(done.out)
    assert shown == user.job(job["id"])
    assert "狐" in done.out
    validator({"$ref": "#/components/schemas/Job"}).validate(shown)
    assert refused(run(app, "jobs", "show", "job_none"), "no such job")


def test_jobs_retry_runs_it_again_as_a_new_job(app: Flask, user: Api) -> None:
    tool = user.post("/v1/tools", {"name": "T", **BODY})
    options = {"metadata": {"a": 1}, "priority": 3, "deadline_s": 600, "webhook_url": "https://example.com/h"}
    first = user.post(f"/v1/tools/{tool['id']}/run", options)
    fail(first["id"])
    done = run(app, "jobs", "retry", first["id"])
    assert (done.code, done.err) == (0, "")
    again = user.job(done.out.strip())
    assert (again["status"], again["cost"]) == ("queued", {"held": PRICE, "charged": None})
    assert user.credits() == (1000 - PRICE, PRICE)
    old, new = jobs_of(user)
    assert new.id == again["id"]
    for name in ("model", "input", "metadata_", "priority", "webhook_url", "tool_id", "action", "price"):
        assert getattr(new, name) == getattr(old, name), name
    assert new.deadline_at - new.created_at == old.deadline_at - old.created_at
    assert user.job(first["id"])["status"] == "failed"


def test_jobs_retry_refuses_what_needs_none(app: Flask, user: Api, admin: Api) -> None:
    job = user.post("/v1/jobs", BODY)
    assert refused(run(app, "jobs", "retry", job["id"]), "queued")
    succeed(job["id"])
    assert refused(run(app, "jobs", "retry", job["id"]), "succeeded")
    assert refused(run(app, "jobs", "retry", "job_none"), "job_none")
    canceled = user.post("/v1/jobs", BODY)
    user.post(f"/v1/jobs/{canceled['id']}/cancel", None)
    admin.ask("PATCH", f"/v1/admin/users/{user.user_id}", {"role": "pending"})
    assert refused(run(app, "jobs", "retry", canceled["id"]), "approval")
    assert len(jobs_of(user)) == 2


def test_jobs_retry_needs_credits(app: Flask, make_user: MakeUser) -> None:
    user = make_user(PRICE)
    job = user.post("/v1/jobs", BODY)
    fail(job["id"])
    user.post("/v1/jobs", BODY)
    assert refused(run(app, "jobs", "retry", job["id"]), "credits")
