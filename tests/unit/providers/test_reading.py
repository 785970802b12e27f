"""Safe readings of unsafe values, and messages fit to be shown."""

from __future__ import annotations

from typing import Any

import pytest

from common import clock
from common.providers import reading
from common.providers.base import NotAccepted, Rejected, Trouble, Unknown
from common.providers.remote import presentable, undocumented
from tests.unit.providers.fakes import like, reply


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (reading.number, "5.1", 5.1),
        (reading.number, 10**400, None),
        (reading.number, float("nan"), None),
        (reading.number, "inf", None),
        (reading.number, True, None),
        (reading.number, [], None),
        (reading.integer, "7", 7),
        (reading.integer, 7.0, 7),
        (reading.integer, 7.5, None),
        (reading.size, 0, None),
        (reading.size, 1024, 1024),
        (reading.seconds, "-1", None),
        (reading.text, "  a\0b\ud800 ", "a b?"),
        (reading.text, {"a": 1}, ""),
        (reading.text, 7, "7"),
        (reading.ref, 7, "7"),
        (reading.ref, " x ", "x"),
        (reading.ref, "a\nb", None),
        (reading.ref, "x" * 201, None),
        (reading.ref, True, None),
        (reading.web_url, "https://x.example/a b", "https://x.example/a b"),
        (reading.web_url, "ftp://x.example", None),
        (reading.web_url, "https://x.example/\n", "https://x.example/"),
        (reading.web_url, "https://x.example/\ud800", None),
        (reading.web_url, 7, None),
    ],
)
def test_readings(read: Any, value: Any, expected: Any) -> None:
    assert read(value) == expected


@pytest.mark.parametrize(
    ("header", "pause_s"),
    [("7", 7.0), ("0.5", 1.0), ("-3", 1.0), ("9999999", 300.0), ("soon", 1.0), ("", 1.0), ("nan", 1.0),
     ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0), ("Tue, 14 Nov 2023 22:14:20 -0000", 60.0),
     ("Mon, 01 Jan 0001 00:00:00 +2300", 1.0)],
)  # fmt: skip
def test_how_long_to_wait(header: str, pause_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "epoch", lambda: 1_700_000_000.0)
    assert reading.retry_after_s(reply(429, retry_after=header), 1.0) == pause_s


def test_without_a_header_nothing_is_asked() -> None:
    assert reading.retry_after_s(reply(429)) is None


def test_messages_hide_secrets_and_end() -> None:
    shown = presentable(f"key abcdef in abcdefgh {'x' * 900}", ["abcdef", "abcdefgh", "in"])
    assert shown.startswith("key *** in *** xxx")
    assert len(shown) == 500


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, (Unknown, {})),
        (204, (Unknown, {})),
        (302, (Unknown, {})),
        (301, (NotAccepted, {"trouble": Trouble.DOWN})),
        (308, (NotAccepted, {"trouble": Trouble.DOWN})),
        (400, (Rejected, {"code": "invalid_input"})),
        (401, (NotAccepted, {"trouble": Trouble.CREDENTIALS})),
        (402, (NotAccepted, {"trouble": Trouble.BALANCE})),
        (404, (NotAccepted, {"trouble": Trouble.DOWN})),
        (408, (Unknown, {})),
        (409, (Rejected, {"code": "provider_rejected"})),
        (413, (Rejected, {"code": "invalid_input"})),
        (429, (NotAccepted, {"trouble": Trouble.BUSY})),
        (500, (Unknown, {})),
        (503, (Unknown, {})),
        (520, (Unknown, {})),
    ],
)
def test_what_http_alone_says_about_a_submit(status: int, expected: tuple[type, dict[str, Any]]) -> None:
    like(undocumented(reply(status, b"words")), expected[0], message=f"HTTP {status}: words", **expected[1])
