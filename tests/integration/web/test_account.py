"""The caller's own account: who they are, credits, history, tokens, sign-in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import argon2
import bcrypt
import pytest
from sqlalchemy import select, update

from common import clock
from common.db import reading, transaction
from common.ids import new_id
from common.models import ApiToken, Auth, User
from common.words import Role
from tests.infrastructure.client import Answer
from tests.infrastructure.databases import Released
from tests.integration.web.api import Api
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import BODY, PRICE, fail, succeed
from web.api import account

PASSWORD = "correct horse battery"
HASHES = {
    "bcrypt": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(),
    "bcrypt as PHP writes it": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4, b"2a")).decode(),
    "argon2": argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD),
}


def set_hash(user: Api, stored: str, *, active: bool = True) -> None:
    """Let the user have this password hash."""
    with transaction() as session:
        login = session.get_one(Auth, user.user_id)
        login.password, login.active = stored, active


def sign_in(nobody: Api, email: str, password: str = PASSWORD, address: str = "") -> Answer:
    headers = {"X-Forwarded-For": address} if address else {}
    return nobody.ask("POST", "/v1/auth/signin", {"email": email, "password": password}, headers)


# ---------------------------------------------------------------- me, credits, history


def test_me(user: Api) -> None:
    me = user.get("/v1/me")
    assert (me["id"], me["object"], me["email"], me["role"]) == (user.user_id, "user", user.email, "user")
    assert "password" not in me


@pytest.mark.parametrize("token", ["", "sk-wrong", "Bearer", "x" * 513, "a b"])
def test_without_a_valid_token_there_is_nothing(nobody: Api, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for path in ("/v1/me", "/v1/jobs", "/v1/models", "/v1/admin/users"):
        answer = nobody.ask("GET", path, headers=headers)
        assert (answer.status, answer.json["error"]["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("scheme", ["Basic", "Token", "", "Bearer:"])
def test_only_bearer_tokens_count(user: Api, nobody: Api, scheme: str) -> None:
    answer = nobody.ask("GET", "/v1/me", headers={"Authorization": f"{scheme} {user.token}"})
    assert answer.status == 401


def test_the_scheme_may_be_written_in_any_case(user: Api, nobody: Api) -> None:
    assert nobody.ask("GET", "/v1/me", headers={"Authorization": f"bearer  {user.token}"}).status == 200


def test_keys_that_open_webui_gave_are_tokens(make_user: MakeUser, nobody: Api) -> None:
    user = make_user()
    key = f"sk-{new_id('owui')}"
    with transaction() as session:
        session.execute(update(User).where(User.id == user.user_id).values(api_key=key))
    answer = nobody.ask("GET", "/v1/me", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status, answer.json["id"]) == (200, user.user_id)


def test_a_pending_user_may_do_nothing(make_user: MakeUser) -> None:
    pending = make_user(role=Role.PENDING)
    for method, path in (("GET", "/v1/me"), ("POST", "/v1/jobs")):
        answer = pending.ask(method, path, BODY if method == "POST" else None)
        assert (answer.status, answer.json["error"]["code"]) == (403, "awaiting_approval")


def test_a_role_that_nobody_knows_is_a_pending_one(user: Api) -> None:
    with transaction() as session:
        session.execute(update(User).where(User.id == user.user_id).values(role="emperor"))
    assert user.ask("GET", "/v1/me").status == 403


def test_credits_and_history(user: Api, other: Api) -> None:
    other.post("/v1/jobs", BODY)
    jobs = [user.post("/v1/jobs", BODY)["id"] for _ in range(2)]
    succeed(jobs[0])
    fail(jobs[1])
    assert user.get("/v1/credits") == {"object": "credits", "available": 1000 - PRICE, "held": 0}
    entries = user.get("/v1/credits/ledger")["data"]
    assert [(entry["kind"], entry["amount"], entry["job_id"]) for entry in entries] == [
        ("release", PRICE, jobs[1]),
        ("capture", PRICE, jobs[0]),
        ("hold", PRICE, jobs[1]),
        ("hold", PRICE, jobs[0]),
        ("grant", 1000, None),
    ]
    for field, after in (("available_delta", "available_after"), ("held_delta", "held_after")):
        total = 0
        for entry in reversed(entries):
            total += entry[field]
            assert entry[after] == total


def test_history_has_a_cursor(user: Api) -> None:
    for _ in range(4):
        user.post("/v1/jobs", BODY)
    seen: list[str] = []
    page = user.get("/v1/credits/ledger?limit=2")
    while True:
        seen += [entry["id"] for entry in page["data"]]
        if not page["has_more"]:
            break
        page = user.get(f"/v1/credits/ledger?limit=2&after={page['next']}")
    assert seen == [entry["id"] for entry in user.get("/v1/credits/ledger")["data"]]
    assert len(seen) == 5


def test_who_never_had_credits_has_none(make_user: MakeUser) -> None:
    poor = make_user(0)
    assert poor.credits() == (0, 0)
    assert poor.get("/v1/credits/ledger")["data"] == []


# ---------------------------------------------------------------- tokens


def test_a_secret_is_shown_once_and_kept_nowhere(user: Api, nobody: Api) -> None:
    answer = user.ask("POST", "/v1/tokens", {"name": "laptop"})
    assert answer.status == 201
    made = answer.json
    assert made["token"].startswith("sk-")
    assert len(made["token"]) >= 43
    listed = user.get("/v1/tokens")["data"]
    assert {key: value for key, value in made.items() if key != "token"} in listed
    assert made["token"] not in str(listed)
    with reading() as session:
        row = session.get_one(ApiToken, made["id"])
        assert made["token"] not in str(vars(row))
        assert row.fingerprint not in made["token"]
    me = nobody.ask("GET", "/v1/me", headers={"Authorization": f"Bearer {made['token']}"})
    assert me.json["id"] == user.user_id


def test_a_deleted_token_is_nobodys(user: Api, nobody: Api) -> None:
    made = user.post("/v1/tokens", {"name": "laptop"})
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert nobody.ask("POST", "/v1/jobs", BODY, headers).status == 202  # it is remembered now
    assert user.ask("DELETE", f"/v1/tokens/{made['id']}").status == 204
    assert nobody.ask("POST", "/v1/jobs", BODY, headers).status == 401
    assert nobody.ask("GET", "/v1/me", headers=headers).status == 401
    assert user.ask("DELETE", f"/v1/tokens/{made['id']}").status == 404


def test_tokens_are_the_users_own(user: Api, other: Api) -> None:
    made = user.post("/v1/tokens", {"name": "laptop"})
    assert other.ask("DELETE", f"/v1/tokens/{made['id']}").status == 404
    assert made["id"] not in [token["id"] for token in other.get("/v1/tokens")["data"]]
    assert made["id"] in [token["id"] for token in user.get("/v1/tokens")["data"]]


# ---------------------------------------------------------------- sign-in


@pytest.mark.parametrize("kind", HASHES)
def test_sign_in(user: Api, nobody: Api, kind: str) -> None:
    set_hash(user, HASHES[kind])
    answer = sign_in(nobody, user.email.upper())
    assert answer.status == 200
    session = answer.json
    assert (session["token_type"], session["user"]["id"]) == ("Bearer", user.user_id)
    assert session["expires_at"] > (clock.iso(clock.now() + timedelta(days=6)) or "")
    me = nobody.ask("GET", "/v1/me", headers={"Authorization": f"Bearer {session['token']}"})
    assert me.json == session["user"]
    assert len(user.get("/v1/tokens")["data"]) == 1  # a sign-in is not a token to manage


def test_the_first_admin_signs_in(nobody: Api, released: Released) -> None:
    answer = sign_in(nobody, released.admin_email, released.admin_password)
    assert (answer.status, answer.json["user"]["role"]) == (200, "admin")


def test_a_sign_in_ends(user: Api, nobody: Api) -> None:
    set_hash(user, HASHES["bcrypt"])
    token = sign_in(nobody, user.email).json["token"]
    with transaction() as session:
        session.execute(
            update(ApiToken)
            .where(ApiToken.user_id == user.user_id, ApiToken.expires_at.is_not(None))
            .values(expires_at=clock.now() - timedelta(seconds=1))
        )
    answer = nobody.ask("GET", "/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status, answer.json["error"]["code"]) == (401, "unauthenticated")


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong passwords cost no time: that they do is tested once, in the unit tests."""
    monkeypatch.setattr("common.services.users._decoys", tuple)


@pytest.mark.parametrize("kind", [*HASHES, "none", "rubbish", "inactive"])
def test_wrong_is_wrong_whatever_is_wrong(user: Api, nobody: Api, kind: str, quickly: None) -> None:
    stored = {"none": "!", "rubbish": "$2b$rubbish", "inactive": HASHES["bcrypt"]}.get(kind) or HASHES[kind]
    set_hash(user, stored, active=kind != "inactive")
    wrong = sign_in(nobody, user.email, PASSWORD if kind == "inactive" else "wrong")
    unknown = sign_in(nobody, "nobody@example.com", "wrong")
    assert (wrong.status, wrong.json["error"]["code"]) == (401, "wrong_credentials")
    assert (unknown.status, unknown.json) == (wrong.status, wrong.json)


def test_a_pending_user_is_told_so_but_only_after_the_password(
    make_user: MakeUser, nobody: Api, quickly: None
) -> None:
    pending = make_user(role=Role.PENDING)
    set_hash(pending, HASHES["bcrypt"])
    assert sign_in(nobody, pending.email, "wrong").status == 401
    answer = sign_in(nobody, pending.email)
    assert (answer.status, answer.json["error"]["code"]) == (403, "awaiting_approval")
    with reading() as session:
        tokens = session.scalars(select(ApiToken).where(ApiToken.user_id == pending.user_id)).all()
    assert [token.expires_at for token in tokens] == [None]


def test_too_many_wrong_passwords(user: Api, nobody: Api, quickly: None) -> None:
    set_hash(user, HASHES["bcrypt"])
    statuses = [sign_in(nobody, user.email, "wrong").status for _ in range(10)]
    assert set(statuses) == {401}
    for password in ("wrong", PASSWORD):
        answer = sign_in(nobody, user.email, password)
        assert (answer.status, answer.json["error"]["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert sign_in(nobody, user.email, address="203.0.113.7").status == 200  # from elsewhere all is well


def test_many_at_once_are_no_way_around(user: Api, nobody: Api, quickly: None) -> None:
    set_hash(user, HASHES["bcrypt"])
    with ThreadPoolExecutor(15) as pool:
        answers = list(pool.map(lambda _: sign_in(nobody, user.email, "wrong").status, range(15)))
    assert (answers.count(401), answers.count(429)) == (10, 5)


def test_a_success_forgives(user: Api, nobody: Api, quickly: None) -> None:
    set_hash(user, HASHES["bcrypt"])
    for _ in range(3):
        assert {sign_in(nobody, user.email, "wrong").status for _ in range(9)} == {401}
        assert sign_in(nobody, user.email).status == 200


def test_one_address_cannot_try_everybody(nobody: Api, quickly: None) -> None:
    most = account.attempts_from_address._most
    statuses = [
        sign_in(nobody, f"u{number}@example.com", address="203.0.113.8").status for number in range(most + 1)
    ]
    assert statuses == [401] * most + [429]
    assert sign_in(nobody, "u1@example.com", address="203.0.113.9").status == 401


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        ("127.0.0.1,::1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("*", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7", "127.0.0.1"),
        ("*", "", "127.0.0.1"),
    ],
)
def test_a_proxy_is_believed_where_the_operator_says_so(
    app: Any, trusted: str, forwarded: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    headers = {"X-Forwarded-For": forwarded}
    with app.test_request_context("/", headers=headers, environ_base={"REMOTE_ADDR": "127.0.0.1"}):
        assert account.client_address() == address
