"""How code is laid out, in any language that has brackets and commas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

_WIDTH = 76


def group(begin: str, items: Sequence[str], end: str) -> str:
    """Items with commas between them: on one line if that is short, else on a line each."""
    line = f"{begin}{', '.join(items)}{end}"
    if not items or (len(line) <= _WIDTH and "\n" not in line):
        return line
    lines = indent(",\n".join(items), "    ")
    return f"{begin}\n{lines},\n{end}"


def literal(value: Any, words: Mapping[str, str]) -> str:
    """A value of JSON in another language, which has these words for some that JSON has."""
    if isinstance(value, dict):
        return group(
            "{", [f"{json.dumps(name)}: {literal(item, words)}" for name, item in value.items()], "}"
        )
    if isinstance(value, list):
        return group("[", [literal(item, words) for item in value], "]")
    text = json.dumps(value, ensure_ascii=False)
    return words.get(text, text)
