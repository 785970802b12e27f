"""Signatures of callbacks: the fact sheets' vectors, and everything near them that must not pass."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from typing import Any

import pytest

from common.providers.callbacks import (
    MOST_KEYS,
    Callback,
    fal_key_set,
    public_keys,
    shared_key,
    signed_with_key,
    signed_with_secret,
)

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
KLING = Callback(
    headers={
        "webhook-id": "9876543210",
        "webhook-timestamp": "1781080794",
        "webhook-signature": "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4=",
    },
    body=b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,'
    b'"update_time":1781080794151}',
    at=1781080794.0,
)
KEY = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
OTHER_KEY = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
FAL = Callback(
    headers={
        "x-fal-webhook-request-id": "req-1",
        "x-fal-webhook-user-id": "user-1",
        "x-fal-webhook-timestamp": "1700000000",
        "x-fal-webhook-signature": "43f36802717fd0e4fffa066b226ecaea60ab9f5c53a27a450a733d0c47e04c20"
        "75824e61e0b2f3d839e5d4d151f900deb359f0a31aff241576d091efce28ca0a",
    },
    body=b'{"request_id":"req-1","gateway_request_id":"req-1","status":"OK","payload":{"images":[]}}',
    at=1700000000.0,
)


def with_header(call: Callback, name: str, value: str) -> Callback:
    return replace(call, headers={**call.headers, name: value})


# ---------------------------------------------------------------- Kling


def test_klings_golden_vector() -> None:
    assert signed_with_secret(SECRET, KLING)
    assert signed_with_secret(SECRET.removeprefix("whsec_"), KLING)


def test_one_of_several_signatures_suffices() -> None:
    right = KLING.headers["webhook-signature"]
    for listed in (f"v1,AAAA {right}", f"{right} v1,AAAA", f"v2,xyz  {right}", f"v1a,x {right} "):
        assert signed_with_secret(SECRET, with_header(KLING, "webhook-signature", listed)), listed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-signature", ""),
        ("webhook-signature", "v1,AAAA v1,BBBB"),
        ("webhook-signature", "v2,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4="),
        ("webhook-signature", "UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4="),
        ("webhook-signature", "v1,\xff\xfe"),
        ("webhook-id", "9876543211"),
        ("webhook-timestamp", "1781080795"),
        *(("webhook-timestamp", value) for value in ("", "soon", "nan", "inf", "-inf")),
    ],
)
def test_a_changed_header_of_klings(name: str, value: str) -> None:
    assert not signed_with_secret(SECRET, with_header(KLING, name, value))


def test_klings_signature_holds_for_these_bytes_and_this_secret_only() -> None:
    assert not signed_with_secret(SECRET, replace(KLING, body=KLING.body + b" "))
    assert not signed_with_secret(SECRET, replace(KLING, headers={}))
    assert not signed_with_secret("whsec_" + base64.b64encode(b"another").decode(), KLING)


@pytest.mark.parametrize("secret", ["", "whsec_", "no base64!", "whsec_dGVzd", "密"])
def test_what_is_no_secret_signs_nothing(secret: str) -> None:
    assert shared_key(secret) is None
    empty = base64.b64encode(
        hmac.digest(b"", b"9876543210.1781080794." + KLING.body, hashlib.sha256)
    ).decode()
    assert not signed_with_secret(secret, with_header(KLING, "webhook-signature", f"v1,{empty}"))


@pytest.mark.parametrize(("late_s", "passes"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_the_clocks_may_differ_by_five_minutes(late_s: float, passes: bool) -> None:
    assert signed_with_secret(SECRET, replace(KLING, at=KLING.at + late_s)) is passes
    assert signed_with_key([KEY], replace(FAL, at=FAL.at + late_s)) is passes


# ---------------------------------------------------------------- fal


def test_fals_golden_vector_by_any_of_its_keys() -> None:
    assert signed_with_key([KEY], FAL)
    assert signed_with_key([OTHER_KEY, "no key", KEY], FAL)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-fal-webhook-signature", ""),
        ("x-fal-webhook-signature", "zz"),
        ("x-fal-webhook-signature", "00" * 64),
        ("x-fal-webhook-request-id", "req-2"),
        ("x-fal-webhook-user-id", "user-2"),
        ("x-fal-webhook-timestamp", "1700000001"),
        ("x-fal-webhook-timestamp", ""),
    ],
)
def test_a_changed_header_of_fals(name: str, value: str) -> None:
    assert not signed_with_key([KEY], with_header(FAL, name, value))


def test_fals_signature_holds_for_these_bytes_and_keys_only() -> None:
    assert not signed_with_key([KEY], replace(FAL, body=FAL.body + b"\n"))
    assert not signed_with_key([OTHER_KEY], FAL)
    assert not signed_with_key([], FAL)


@pytest.mark.parametrize(
    ("key_set", "keys"),
    [
        ({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": KEY}, {"x": OTHER_KEY}]}, (KEY, OTHER_KEY)),
        ({"keys": [{"x": "short"}, {"x": 7}, {"kty": "RSA"}, "text", None, {"x": KEY}]}, (KEY,)),
        ({"keys": {"x": KEY}}, ()),
        ({}, ()),
        ({"keys": [{"x": KEY}] * 100}, (KEY,) * MOST_KEYS),
    ],
)
def test_the_keys_in_a_key_set(key_set: dict[str, Any], keys: tuple[str, ...]) -> None:
    assert public_keys(key_set) == keys


@pytest.mark.parametrize(
    ("base_url", "key_set"),
    [
        ("https://queue.fal.run", "https://rest.fal.ai/.well-known/jwks.json"),
        ("https://queue.falrun.com/", "https://rest.fal.ai/.well-known/jwks.json"),
        ("http://127.0.0.1:9000/fal", "http://127.0.0.1:9000/.well-known/jwks.json"),
    ],
)
def test_where_an_accounts_keys_are(base_url: str, key_set: str) -> None:
    assert fal_key_set(base_url) == key_set
