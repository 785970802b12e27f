"""What administrators do: users, their tokens, their credits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from common.db import reading
from common.ids import new_id
from common.models import Auth, LedgerEntry
from common.words import Role
from tests.integration.web.api import Api
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import BODY

CALLS = [
    ("POST", "/v1/admin/users", {"email": "x@example.com"}),
    ("GET", "/v1/admin/users", None),
    ("GET", "/v1/admin/users/{id}", None),
    ("PATCH", "/v1/admin/users/{id}", {"role": "admin"}),
    ("POST", "/v1/admin/users/{id}/tokens", {"name": "t"}),
    ("POST", "/v1/admin/users/{id}/credits", {"amount": 10}),
]


def email() -> str:
    return f"{new_id('e')}@example.com"


def create(admin: Api, **fields: Any) -> Any:
    return admin.post("/v1/admin/users", {"email": email(), **fields})


@pytest.fixture
def key() -> dict[str, str]:
    """A header with a new key."""
    return {"Idempotency-Key": new_id("key")}


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_others_may_not(user: Api, nobody: Api, method: str, path: str, body: Any) -> None:
    path = path.format(id=user.user_id)
    answer = user.ask(method, path, body)
    assert (answer.status, answer.json["error"]["code"]) == (403, "permission_denied")
    assert nobody.ask(method, path, body).status == 401
    assert user.get("/v1/me")["role"] == "user"


@pytest.mark.parametrize(("method", "path", "body"), [call for call in CALLS if "{id}" in call[1]])
def test_unknown_users(admin: Api, method: str, path: str, body: Any) -> None:
    assert admin.ask(method, path.format(id="no-such-user"), body).status == 404


def test_create_and_show(admin: Api) -> None:
    address = email()
    answer = admin.ask(
        "POST", "/v1/admin/users", {"email": f" {address.upper()} ", "name": "Ann", "role": "admin"}
    )
    assert answer.status == 201
    user = answer.json
    assert (user["object"], user["email"], user["name"], user["role"]) == ("user", address, "Ann", "admin")
    assert admin.get(f"/v1/admin/users/{user['id']}") == user


def test_what_is_left_out_has_a_default(admin: Api) -> None:
    user = create(admin)
    assert (user["role"], user["name"]) == ("user", user["email"].partition("@")[0])


def test_an_email_is_taken_once(admin: Api) -> None:
    first = create(admin)
    answer = admin.ask("POST", "/v1/admin/users", {"email": first["email"].upper()})
    assert (answer.status, answer.json["error"]["code"]) == (409, "conflict")


def test_a_password_can_be_used_and_is_kept_as_bcrypt(admin: Api, nobody: Api) -> None:
    user = create(admin, password="eight or more")
    answer = nobody.ask("POST", "/v1/auth/signin", {"email": user["email"], "password": "eight or more"})
    assert answer.status == 200
    with reading() as session:
        stored = session.scalars(select(Auth.password).where(Auth.id == user["id"])).one()
    assert stored.startswith("$2b$12$")


def test_the_list_has_a_cursor(admin: Api) -> None:
    made = [create(admin)["id"] for _ in range(3)]
    seen: list[str] = []
    page = admin.get("/v1/admin/users?limit=2")
    while True:
        seen += [user["id"] for user in page["data"]]
        if not page["has_more"]:
            break
        page = admin.get(f"/v1/admin/users?limit=2&after={page['next']}")
    assert len(seen) == len(set(seen))
    assert set(made) < set(seen)


def test_change(admin: Api, nobody: Api, make_user: MakeUser) -> None:
    user = make_user()
    address = email()
    changed = admin.ask(
        "PATCH",
        f"/v1/admin/users/{user.user_id}",
        {"name": "B", "email": address, "password": "another password"},
    )
    assert (changed.json["name"], changed.json["email"], changed.json["role"]) == ("B", address, "user")
    assert changed.json == {**user.get("/v1/me"), "weight": 1}
    signed_in = nobody.ask("POST", "/v1/auth/signin", {"email": address, "password": "another password"})
    assert signed_in.status == 200


def test_a_weight_is_set_shown_and_bounded(admin: Api, make_user: MakeUser) -> None:
    path = f"/v1/admin/users/{make_user().user_id}"
    assert admin.ask("PATCH", path, {"weight": 5}).json["weight"] == 5
    assert admin.ask("PATCH", path, {"name": "B"}).json["weight"] == 5
    for wrong in (0, 101, 1.5, "2"):
        refused = admin.ask("PATCH", path, {"weight": wrong})
        assert (refused.status, refused.json["error"]["param"]) == (422, "weight")
    assert admin.get(path)["weight"] == 5


def test_a_role_counts_at_once(admin: Api, user: Api) -> None:
    assert user.ask("POST", "/v1/jobs", BODY).status == 202
    admin.ask("PATCH", f"/v1/admin/users/{user.user_id}", {"role": "pending"})
    assert user.ask("POST", "/v1/jobs", BODY).status == 403
    admin.ask("PATCH", f"/v1/admin/users/{user.user_id}", {"role": "admin"})
    assert user.ask("GET", "/v1/admin/users").status == 200


def test_an_email_cannot_be_taken_over(admin: Api, user: Api, other: Api) -> None:
    answer = admin.ask("PATCH", f"/v1/admin/users/{user.user_id}", {"email": other.email})
    assert answer.status == 409
    assert admin.ask("PATCH", f"/v1/admin/users/{user.user_id}", {"email": user.email.upper()}).status == 200


def test_an_admin_cannot_lock_themselves_out(make_user: MakeUser) -> None:
    second = make_user(role=Role.ADMIN)
    answer = second.ask("PATCH", f"/v1/admin/users/{second.user_id}", {"role": "user"})
    assert (answer.status, answer.json["error"]["code"]) == (409, "conflict")
    assert second.get("/v1/me")["role"] == "admin"


# ---------------------------------------------------------------- tokens and credits


def test_a_token_for_a_user(admin: Api, user: Api, nobody: Api) -> None:
    answer = admin.ask("POST", f"/v1/admin/users/{user.user_id}/tokens", {"name": "phone"})
    assert answer.status == 201
    me = nobody.ask("GET", "/v1/me", headers={"Authorization": f"Bearer {answer.json['token']}"})
    assert me.json["id"] == user.user_id
    assert answer.json["id"] in [token["id"] for token in user.get("/v1/tokens")["data"]]


def test_a_token_is_made_once_per_key(admin: Api, user: Api, key: dict[str, str]) -> None:
    path = f"/v1/admin/users/{user.user_id}/tokens"
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: admin.ask("POST", path, {"name": "phone"}, key), range(5)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    refused = admin.ask("POST", path, {"name": "laptop"}, key)
    assert (refused.status, refused.json["error"]["code"]) == (422, "idempotency_key_reused")
    user.ask("DELETE", f"/v1/tokens/{answers[0].json['id']}")
    assert admin.ask("POST", path, {"name": "phone"}, key).status == 409
    second_admin = create(admin, role="admin")["id"]
    token = admin.post(f"/v1/admin/users/{second_admin}/tokens", {"name": "t"})["token"]
    other_scope = Api(token, app=admin.app).ask("POST", path, {"name": "phone"}, key)
    assert other_scope.json["token"] != answers[0].json["token"]


def test_credits_for_a_user(admin: Api, user: Api) -> None:
    answer = admin.ask(
        "POST", f"/v1/admin/users/{user.user_id}/credits", {"amount": 500, "note": "thanks 🦊"}
    )
    assert answer.status == 201
    entry = answer.json
    assert (entry["kind"], entry["amount"], entry["available_after"]) == ("grant", 500, 1500)
    assert entry["note"] == "thanks 🦊"
    assert user.get("/v1/credits/ledger")["data"][0] == entry
    assert user.credits() == (1500, 0)


def test_credits_are_granted_once_per_key(admin: Api, user: Api, other: Api, key: dict[str, str]) -> None:
    path = f"/v1/admin/users/{user.user_id}/credits"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: admin.ask("POST", path, {"amount": 500}, key), range(8)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert user.credits() == (1500, 0)
    for wrong_path, body in (
        (path, {"amount": 501}),
        (path, {"amount": 500, "note": "n"}),
        (f"/v1/admin/users/{other.user_id}/credits", {"amount": 500}),
    ):
        answer = admin.ask("POST", wrong_path, body, key)
        assert (answer.status, answer.json["error"]["code"]) == (422, "idempotency_key_reused")
    assert (user.credits(), other.credits()) == ((1500, 0), (1000, 0))


@pytest.mark.parametrize(
    ("path", "body"), [("tokens", {"name": "Ann"}), ("credits", {"amount": 5})], ids=["token", "grant"]
)
def test_an_answer_that_repeats_says_so(
    admin: Api, user: Api, key: dict[str, str], path: str, body: dict[str, object]
) -> None:
    first, second = (admin.ask("POST", f"/v1/admin/users/{user.user_id}/{path}", body, key) for _ in range(2))
    assert (first.status, second.status, second.json == first.json) == (201, 201, True)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"


def test_without_a_key_every_grant_counts(admin: Api, user: Api) -> None:
    for _ in range(2):
        admin.post(f"/v1/admin/users/{user.user_id}/credits", {"amount": 5})
    assert user.credits() == (1010, 0)


def test_a_long_key_is_as_good(admin: Api, user: Api) -> None:
    key = {"Idempotency-Key": "k" * 245 + new_id("k")[-10:]}
    path = f"/v1/admin/users/{user.user_id}/credits"
    first, second = (admin.ask("POST", path, {"amount": 5}, key).json for _ in range(2))
    assert first == second
    with reading() as session:
        references = session.scalars(select(LedgerEntry.reference).where(LedgerEntry.id == first["id"])).all()
    assert len(references[0]) <= 255
