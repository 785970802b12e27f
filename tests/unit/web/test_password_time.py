"""How much work a refused sign-in is says nothing about whether there is such a user, and which hash they have."""

from __future__ import annotations

import time

import argon2
import bcrypt
import pytest

from common.errors import WrongCredentials
from common.services import users
from common.services.users import NO_PASSWORD, Login

LOGINS = {
    "unknown": Login(None, NO_PASSWORD),
    "without a password": Login("id", NO_PASSWORD),
    "bcrypt": Login("id", bcrypt.hashpw(b"right", bcrypt.gensalt()).decode()),
    "argon2": Login("id", argon2.PasswordHasher().hash("right")),
}


def refusal_s(login: Login) -> float:
    """Seconds of processor time, which other processes on this machine do not change."""
    began = time.process_time()
    with pytest.raises(WrongCredentials):
        users.check_password(login, "wrong")
    return time.process_time() - began


def test_all_refusals_are_the_same_work() -> None:
    refusal_s(LOGINS["unknown"])  # makes the decoys
    took = {kind: refusal_s(login) for kind, login in LOGINS.items()}
    assert max(took.values()) < 1.5 * min(took.values()), took
    assert min(took.values()) > 0.05


def test_the_right_password_is_right() -> None:
    assert [users.check_password(LOGINS[kind], "right") for kind in ("bcrypt", "argon2")] == ["id", "id"]
