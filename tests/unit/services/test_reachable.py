"""Which of our own addresses a provider can be given."""

from __future__ import annotations

import pytest

from common.settings import Settings


@pytest.mark.parametrize(
    ("url", "reachable"),
    [
        ("https://media.example.com/uploads/1.png", True),
        ("http://8.8.8.8:8000/media/1.png", True),
        ("https://[2606:4700:4700::1111]/1.png", True),
        ("http://127.0.0.1:8000/media/1.png", False),
        ("http://10.1.2.3/1.png", False),
        ("http://[::1]:8000/1.png", False),
        ("http://localhost:8000/1.png", False),
        ("http://web:8000/1.png", False),
        ("http://nas.local/1.png", False),
        ("http://media.internal/1.png", False),
    ],
)
def test_private_addresses_are_for_development_only(url: str, reachable: bool) -> None:
    assert Settings(allow_private_addresses=False).is_reachable(url) == reachable
    assert Settings(allow_private_addresses=True).is_reachable(url)
