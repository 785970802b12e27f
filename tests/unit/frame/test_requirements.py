"""Every dependency is pinned, and every dependency's dependency too."""

from __future__ import annotations

import re
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.infrastructure.environment import ROOT

PIN = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][\w.]*( ; .+)?")


def lines(name: str) -> list[str]:
    """The lines that say something, without their comments."""
    texts = (re.sub(r"(^|\s+)#.*", "", line) for line in (ROOT / name).read_text().splitlines())
    return [text for text in texts if text]


def pins(name: str) -> list[Requirement]:
    own = [line for line in lines(name) if not line.startswith("-r ")]
    included = [line.removeprefix("-r ") for line in lines(name) if line.startswith("-r ")]
    return [Requirement(line) for line in own] + [pin for each in included for pin in pins(each)]


def needed_by(pin: Requirement) -> set[str]:
    """The names that the installed package needs on this Python, with the extras we ask for."""
    found: set[str] = set()
    for text in requires(pin.name) or []:
        need = Requirement(text)
        extras = [{"extra": extra} for extra in (*pin.extras, "")]
        if need.marker is None or any(need.marker.evaluate(extra) for extra in extras):
            found.add(canonicalize_name(need.name))
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_line_pins_one_version(name: str) -> None:
    own = [line for line in lines(name) if not line.startswith("-r ")]
    assert own
    assert [line for line in own if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_nothing_is_left_to_the_resolver(name: str) -> None:
    here = [pin for pin in pins(name) if pin.marker is None or pin.marker.evaluate()]
    names = {canonicalize_name(pin.name) for pin in here}
    assert len(names) == len(here), "named twice"
    assert {need for pin in here for need in needed_by(pin)} <= names


def test_this_environment_is_the_pinned_one() -> None:
    here = [pin for pin in pins("requirements-dev.txt") if pin.marker is None or pin.marker.evaluate()]
    assert {pin.name: version(pin.name) for pin in here if version(pin.name) not in pin.specifier} == {}
