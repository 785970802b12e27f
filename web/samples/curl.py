"""Samples for a shell. Some systems have no uuidgen, but all have /dev/urandom."""

from __future__ import annotations

import re
import shlex

from web.samples.call import FETCHED, KEY, LONG_TIMEOUT_S, SENT, TIMEOUT_S, TOKEN, Call
from web.samples.writing import literal

_WORDS = {TOKEN: "Bearer $WXIAI_TOKEN", KEY: "$(head -c 12 /dev/urandom | base64)"}
_OPTIONS = {
    "file": f"--fail --max-time {LONG_TIMEOUT_S} -L -o {FETCHED}",
    "events": f"--fail-with-body --max-time {LONG_TIMEOUT_S} -N",
}


def program(call: Call) -> str:
    """The command."""
    how = "" if call.method == "GET" else f"-X {call.method} "
    lines = [f'curl {how}"{call.url}"']
    lines += [_OPTIONS.get(call.answer, f"--fail-with-body --max-time {TIMEOUT_S}")]
    lines += [f'-H "{name}: {_WORDS.get(value, value)}"' for name, value in call.headers.items()]
    if call.body:
        body = re.sub(r",(\n *[}\]])", r"\1", literal(call.body, {}))  # JSON has no comma before a bracket
        lines += ['-H "Content-Type: application/json"', f"-d {shlex.quote(body)}"]
    lines += [f"--data-binary @{SENT}"] if call.declared.takes_file else []
    return " \\\n  ".join(lines)
