"""What the samples of a call have in common, whatever their language."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from pydantic import RootModel

from web.endpoints import Access, Endpoint
from web.schemas import EXAMPLE_ULID

PATH_VALUES = {
    "job_id": f"job_{EXAMPLE_ULID}",
    "video_id": f"job_{EXAMPLE_ULID}",
    "task_id": f"job_{EXAMPLE_ULID}",
    "upload_id": f"upl_{EXAMPLE_ULID}",
    "schedule_id": f"sch_{EXAMPLE_ULID}",
    "tool_id": f"tool_{EXAMPLE_ULID}",
    "token_id": f"tok_{EXAMPLE_ULID}",
    "endpoint_id": f"whe_{EXAMPLE_ULID}",
    "delivery_id": f"evt_{EXAMPLE_ULID}",
    "user_id": "6f1c1f5e-0d3b-4a53-9f0e-2f6a3c7d8e90",
    "provider": "flux",
    "name": "pro-1.1",
    "speed": "fast",
    "token": "Vt3aKxw0Yq8bZr5nHs2LmPd7Jc9GfEu1",
    "key": f"artifacts/2026/11/24/job_{EXAMPLE_ULID}/1.mp4",
}
SENT, FETCHED = "fox.png", "fox.mp4"  # files
TIMEOUT_S, LONG_TIMEOUT_S = 60, 3600
TOKEN, KEY = "<token>", "<key>"  # of headers; each language says in its own way where they come from
_NOT_JSON = {
    "/v1/jobs/{job_id}/events": "events",
    "/v1/videos/{video_id}/content": "file",
    "/media/{key}": "file",
    "/docs": "text",
    "/metrics": "text",
}


@dataclass(frozen=True, slots=True)
class Call:
    """An operation with the values of its example."""

    method: str
    path: str
    declared: Endpoint
    base: str

    @property
    def url(self) -> str:
        query = f"?{urlencode(self.query)}" if self.query else ""
        return self.base + self.path.format(**PATH_VALUES) + query

    @property
    def query(self) -> dict[str, Any]:
        """Those parameters that have an example."""
        fields = self.declared.query.model_fields if self.declared.query else {}
        return {name: field.examples[0] for name, field in fields.items() if field.examples}

    @property
    def body(self) -> dict[str, Any]:
        """Empty where none is sent."""
        extra: Any = self.declared.body.model_config["json_schema_extra"] if self.declared.body else {}
        return extra["examples"][0] if extra else {}

    @property
    def headers(self) -> dict[str, str]:
        """All but the type of a body of JSON, which some libraries add themselves."""
        made = {} if self.declared.access is Access.ANYONE else {"Authorization": TOKEN}
        made |= {"Content-Type": "image/png"} if self.declared.takes_file else {}
        if "Idempotency-Key" in self.declared.headers:
            return {**made, "Idempotency-Key": KEY}
        return {**made, "Prefer": "wait=30"} if "Prefer" in self.declared.headers else made

    @property
    def answer(self) -> str:
        """What kind of answer there is: `object`, `list` or `any` JSON, `text`, `file`, `events`, `nothing`."""
        if self.path in _NOT_JSON:
            return _NOT_JSON[self.path]
        if self.declared.returns is None or issubclass(self.declared.returns, RootModel):
            return "nothing" if self.declared.status == 204 else "any"
        return "list" if self.declared.many else "object"

    @property
    def is_long(self) -> bool:
        """Whether the answer is read piece by piece."""
        return self.answer in ("file", "events")

    @property
    def noun(self) -> str:
        """The answer in a word, such as `Job` or `WebhookEndpoints`."""
        shape = self.declared.returns.__name__ if self.declared.returns else "Answer"
        word = re.sub(r"^(OpenAI|Midjourney|Managed|New)(?=[A-Z])", "", shape)
        return re.sub("y$", "ie", word) + "s" if self.declared.many else word
