"""Samples in Python."""

from __future__ import annotations

import json
import re

from web.samples.call import FETCHED, KEY, PATH_VALUES, SENT, TIMEOUT_S, TOKEN, Call
from web.samples.writing import group, literal

_WORDS = {
    f'"{TOKEN}"': """f"Bearer {os.environ['WXIAI_TOKEN']}\"""",
    f'"{KEY}"': "str(uuid4())",
    "true": "True",
    "false": "False",
    "null": "None",
}
_IMPORTS = {
    "json.loads": "import json",
    "os.environ": "import os",
    "Path(": "from pathlib import Path",
    "Any": "from typing import Any",
    "uuid4(": "from uuid import uuid4",
}


def _program(code: str, imports: str) -> str:
    """The code below the imports that it needs."""
    standard = "\n".join(line for word, line in _IMPORTS.items() if word in code)
    return "\n\n".join(filter(None, (standard, imports, code)))


def _snake(noun: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", noun).lower()


# ---------------------------------------------------------------- requests

_ENDS = {
    "object": "NOUN: dict[str, Any] = reply.json()\nprint(NOUN)",
    "list": 'NOUN: list[dict[str, Any]] = reply.json()["data"]\nprint(NOUN)',
    "any": "NOUN: Any = reply.json()\nprint(NOUN)",
    "text": "print(reply.text)",
    "nothing": "print(reply.status_code)",
    "file": f"""\
with Path("{FETCHED}").open("wb") as file:
    for block in reply.iter_content(65_536):
        file.write(block)""",
    "events": """\
for line in reply.iter_lines(decode_unicode=True):
    if line.startswith("data: "):
        event: dict[str, Any] = json.loads(line.removeprefix("data: "))
        print(event)""",
}


def with_requests(call: Call) -> str:
    """The program."""
    given = [json.dumps(call.url)]
    given += [f"headers={literal(call.headers, _WORDS)}"] if call.headers else []
    given += [f"json={literal(call.body, _WORDS)}"] if call.body else []
    given += [f'data=Path("{SENT}").read_bytes()'] if call.declared.takes_file else []
    given += ["stream=True"] if call.is_long else []
    asked = group(f"requests.{call.method.lower()}(", [*given, f"timeout={TIMEOUT_S}"], ")")
    end = _ENDS[call.answer].replace("NOUN", _snake(call.noun))
    return _program(f"reply = {asked}\nreply.raise_for_status()\n{end}", "import requests")


# ---------------------------------------------------------------- the official SDK

_CALLS = {  # which method it is, and what that returns
    "GET /v1/models": ("models.list", "Model"),
    "GET /v1/models/{provider}/{name}": ("models.retrieve", "Model"),
    "POST /v1/images/generations": ("images.generate", "ImagesResponse"),
    "POST /v1/images/edits": ("images.edit", "ImagesResponse"),
    "GET /v1/videos": ("videos.list", "Video"),
    "POST /v1/videos": ("videos.create", "Video"),
    "GET /v1/videos/{video_id}": ("videos.retrieve", "Video"),
    "DELETE /v1/videos/{video_id}": ("videos.delete", "VideoDeleteResponse"),
    "GET /v1/videos/{video_id}/content": ("videos.download_content", ""),
    "POST /v1/videos/{video_id}/remix": ("videos.remix", "Video"),
    "GET /v1/webhook_endpoints": ("webhooks.list", "WebhookEndpoint"),
    "POST /v1/webhook_endpoints": ("webhooks.create", "WebhookEndpointWithSecret"),
    "GET /v1/webhook_endpoints/{endpoint_id}": ("webhooks.retrieve", "WebhookEndpoint"),
    "POST /v1/webhook_endpoints/{endpoint_id}": ("webhooks.update", "WebhookEndpoint"),
    "DELETE /v1/webhook_endpoints/{endpoint_id}": ("webhooks.delete", "DeletedWebhookEndpoint"),
    "POST /v1/webhook_endpoints/{endpoint_id}/rotate_secret": (
        "webhooks.rotate_secret",
        "WebhookEndpointWithSecret",
    ),
    "POST /v1/webhook_endpoints/{endpoint_id}/test": ("webhooks.test", "WebhookEndpointTestResult"),
    "GET /v1/webhook_event_types": ("webhooks.event_types.list", "WebhookEventTypeList"),
}
_FILES = {"image": f'Path("{SENT}")'}  # what it sends as a file, where our own API also takes an address


def with_openai(call: Call) -> str:
    """The program; nothing where the SDK has no such call."""
    method, kind = _CALLS.get(f"{call.method} {call.path}", ("", ""))
    if not method:
        return ""
    client = [f'base_url="{call.base}/v1"', 'api_key=os.environ["WXIAI_TOKEN"]', f"timeout={TIMEOUT_S}"]
    begin, imports = group("client = OpenAI(", client, ")"), "from openai import OpenAI"
    if call.answer == "file":
        saved = group(f"client.{method}(", _arguments(call), f').write_to_file("{FETCHED}")')
        return _program(f"{begin}\n{saved}", imports)
    noun, many = _snake(call.noun), call.answer == "list"
    typed = f"list[{kind}]" if many else kind
    asked = group(f"{noun}: {typed} = client.{method}(", _arguments(call), ").data" if many else ")")
    module = "openai.types.webhooks" if "Webhook" in kind else "openai.types"
    return _program(f"{begin}\n{asked}\nprint({noun})", f"{imports}\nfrom {module} import {kind}")


def _arguments(call: Call) -> list[str]:
    in_path = "/".join(PATH_VALUES[name] for name in re.findall(r"{(\w+)}", call.path))
    named = {**call.query, **call.body}
    return [
        *([json.dumps(in_path)] if in_path else []),
        *(f"{name}={_FILES.get(name) or literal(value, _WORDS)}" for name, value in named.items()),
        *(['extra_headers={"Idempotency-Key": str(uuid4())}'] if KEY in call.headers.values() else []),
    ]
