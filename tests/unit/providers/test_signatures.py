"""The golden vectors of the fact sheets."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volcenginesdkcore import signv4

from common.providers.jimeng_signing import canonical_request, sign, signing_key
from common.providers.kling import mint
from tests.unit.providers.fakes import FakeHttp, adapter, handle, reply, run

URL = "https://visual.volcengineapi.com/?Action=CVSync2AsyncSubmitTask&Version=2022-08-31"
BODY = b'{"req_key":"jimeng_t2i_v40","prompt":"cat"}'
SECRET_KEY = "c2VjcmV0LWV4YW1wbGU="


def test_jimeng_golden_vector() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    headers = sign("POST", URL, BODY, access_key="AKLTEXAMPLE", secret_key=SECRET_KEY, at=at)
    assert headers == {
        "Content-Type": "application/json",
        "Host": "visual.volcengineapi.com",
        "X-Content-Sha256": "740154738e5d8d7026b1b51df274eda35bbe29f4c4d51e5336c424a531352281",
        "X-Date": "20260102T030405Z",
        "Authorization": "HMAC-SHA256 Credential=AKLTEXAMPLE/20260102/cn-north-1/cv/request, "
        "SignedHeaders=content-type;host;x-content-sha256;x-date, "
        "Signature=75ebaee1a1dce717c8c89961da8e7cd8f0ffd0cfd343d70a167cbc9cb9509944",
    }
    del headers["Authorization"]
    canonical = canonical_request("POST", URL, headers)
    assert canonical.split("\n")[:3] == ["POST", "/", "Action=CVSync2AsyncSubmitTask&Version=2022-08-31"]
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    assert digest == "0dd0342a4c246c836a65f9c622753feba729d9d15922be0b7d229dfde600d898"
    key = signing_key(SECRET_KEY, "20260102").hex()
    assert key == "78898750edd278b127234888eaf528606f1c7efe871b6cf6d2cd1ccc4b2a1967"


class _Clock(datetime):
    """The moment at which both sign."""

    @classmethod
    def utcnow(cls) -> datetime:
        return AT


AT = datetime(2026, 11, 25, 16, 17, 18, tzinfo=UTC)
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@given(
    query=st.dictionaries(WORDS, st.text(st.characters(exclude_categories=("Cs",)), max_size=30), max_size=5),
    body=st.text(st.characters(exclude_categories=("Cs",)), max_size=200),
    keys=st.tuples(st.text("AKLTabc123_-", min_size=4), st.text("abcXYZ019+/=", min_size=8)),
    host=st.sampled_from(("visual.volcengineapi.com", "127.0.0.1:9000", "open.example.com:8443")),
    method=st.sampled_from(("POST", "GET")),
)
@settings(max_examples=300, deadline=None)
def test_jimengs_signature_is_the_official_sdks(
    query: dict[str, str], body: str, keys: tuple[str, str], host: str, method: str
) -> None:
    access_key, secret_key = keys
    theirs = {"Content-Type": "application/json", "Host": host}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signv4.datetime, "datetime", _Clock)
        signv4.SignerV4.sign(
            "/", method, theirs, body, None, query, access_key, secret_key, "cn-north-1", "cv"
        )
    url = f"https://{host}/?{urlencode(query, quote_via=quote)}"
    ours = sign(method, url, body.encode(), access_key=access_key, secret_key=secret_key, at=AT)
    assert ours == theirs


def test_the_query_is_sorted_and_encoded() -> None:
    headers = {"X-Content-Sha256": "h", "Host": " h "}
    canonical = canonical_request("GET", "http://h/?b=a%20b&a=%7E~/&c=", headers)
    assert canonical == "GET\n/\na=~~%2F&b=a%20b&c=\nhost:h\nx-content-sha256:h\n\nhost;x-content-sha256\nh"


def test_what_is_signed_is_what_is_sent() -> None:
    http = FakeHttp(reply(500))
    made = adapter("jimeng", base_url="http://127.0.0.1:9000/")
    run(made.poll(http, [handle("jimeng/text-to-image")]))
    request = http.sent[0]
    assert request.url.startswith("http://127.0.0.1:9000/?Action=CVSync2AsyncGetResult")
    assert request.headers["Host"] == "127.0.0.1:9000"
    assert request.headers["X-Date"] == "20231114T221320Z"
    assert request.body is not None
    assert request.headers["X-Content-Sha256"] == hashlib.sha256(request.body).hexdigest()


def test_default_ports_are_not_part_of_the_host() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    for url, host in (
        ("https://v:443/", "v"),
        ("http://v:80/", "v"),
        ("http://v:8443/", "v:8443"),
        ("http://v:4430/", "v:4430"),
    ):
        assert sign("POST", url, b"", access_key="a", secret_key="s", at=at)["Host"] == host


def test_kling_golden_vector() -> None:
    token = mint("ak_example", "sk_example", 1_700_000_000.9)
    assert token == (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
        ".eyJpc3MiOiJha19leGFtcGxlIiwiZXhwIjoxNzAwMDAxODAwLCJuYmYiOjE2OTk5OTk5OTV9"
        ".evMJ11aTES0qllx-FMmVXMqX99srsKbQA8D9hjfBMJg"
    )
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_kling_tokens_stand_up_to_a_verifier() -> None:
    secret = "s" * 32
    options: Any = {"verify_exp": False, "verify_nbf": False}
    claims = jwt.decode(mint("ak", secret, 1_700_000_000), secret, algorithms=["HS256"], options=options)
    assert claims == {"iss": "ak", "exp": 1_700_001_800, "nbf": 1_699_999_995}
