"""`.env.example` lists every setting, says what it is for, and tells the truth about its default."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import SecretStr

from common.settings import Settings
from tests.infrastructure.environment import ROOT

BESIDE_SETTINGS = {"PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "LOG_LEVEL"}  # gunicorn's, and the logs'
LINES = (ROOT / ".env.example").read_text().splitlines()
EXAMPLES = {match[1]: match[2] for line in LINES if (match := re.fullmatch(r"#([A-Z_]+)=(.*)", line))}


def test_it_lists_every_setting_and_no_other() -> None:
    assert set(EXAMPLES) == {name.upper() for name in Settings.model_fields} | BESIDE_SETTINGS
    assert len(EXAMPLES) == sum(bool(re.fullmatch(r"#?[A-Z_]+=.*", line)) for line in LINES), "one twice"


def test_each_has_a_comment() -> None:
    for before, line in pairwise(LINES):
        if re.fullmatch(r"#[A-Z_]+=.*", line):
            assert re.match(r"# \S", before), line


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_it_shows_the_default(name: str, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"{name.upper()}={EXAMPLES[name.upper()]}\n")
    shown = getattr(Settings(_env_file=file), name)  # type: ignore[call-arg]
    default = Settings.model_fields[name].default
    assert shown == default or (isinstance(default, SecretStr) and not shown.get_secret_value())
