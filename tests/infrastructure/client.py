"""A client of the API as any user would write it: HTTP, a token, JSON."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.infrastructure.children import wait_until

TIMEOUT_S = 10.0
ENDED = ("succeeded", "failed", "canceled")


class Refused(RuntimeError):
    """The API answered with an error, or not at all."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. `headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks to the API at `url` as the owner of `token`."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url, self.token = url, token

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        """Whatever is answered. Raises Refused where nothing is."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        began = time.perf_counter()
        try:
            with _replied(request, timeout_s) as reply:
                return _answer(reply, began)
        except (
            OSError,
            http.client.HTTPException,
        ) as error:  # also half an answer, of a server that was killed
            raise Refused(f"{method} {path}: {error}") from None

    def get(self, path: str) -> Any:
        """The JSON of a successful GET. Raises Refused."""
        return self._good("GET", path, None)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON of a successful POST. Raises Refused."""
        return self._good("POST", path, body, headers)

    def _good(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        answer = self.ask(method, path, body, headers)
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {answer.body[:500].decode(errors='replace')}")
        return answer.json

    # ------------------------------------------------------------ jobs

    def submit(self, model: str, prompt: str = "a red fox", **fields: Any) -> Any:
        """Submit a job; `fields` go beside the model, `input` replaces the prompt."""
        return self.post("/v1/jobs", {"model": model, "input": {"prompt": prompt}, **fields})

    def job(self, job_id: str) -> Any:
        """The job as it is now."""
        return self.get(f"/v1/jobs/{job_id}")

    def until(
        self, job_id: str, condition: Callable[[Any], bool], timeout_s: float = 30.0, *, what: str = ""
    ) -> Any:
        """The job once `condition` holds for it; TimeoutError, with the job, when it does not in time."""
        seen: dict[str, Any] = {}

        def look() -> bool:
            seen.update(self.job(job_id))
            return condition(seen)

        try:
            wait_until(look, timeout_s, what=what, every_s=0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {json.dumps(seen)[:2000]}") from None
        return seen

    def ended(self, job_id: str, timeout_s: float = 30.0) -> Any:
        """The job once it has ended."""
        return self.until(job_id, lambda job: job["status"] in ENDED, timeout_s, what=f"end of {job_id}")

    def credits(self) -> tuple[int, int]:
        """Available and held."""
        found = self.get("/v1/credits")
        return found["available"], found["held"]


def _replied(request: urllib.request.Request, timeout_s: float) -> Any:
    """The reply, whatever its status."""
    try:
        return urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        return error


def _answer(reply: Any, began: float) -> Answer:
    headers = {name.lower(): value for name, value in reply.headers.items()}
    body = reply.read()
    return Answer(reply.status, headers, body, time.perf_counter() - began)
