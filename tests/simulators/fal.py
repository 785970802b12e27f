"""fal.ai's queue, with its signed webhooks. Facts: fact sheet flux_fal.md.

Whatever becomes of a request, it is `COMPLETED` in the end, and only its result tells what that was.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import random
import time
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from tests.simulators.fal_forms import MODELS, Form, Model
from tests.simulators.frame import json_answer
from tests.simulators.media import MediaHost, black, jpeg, png
from tests.simulators.pace import QUICK, Generation, Pace
from tests.simulators.provider import Account, Provider

RESULT_LIFE_S = 3600.0  # section 6
LARGE_RESULT_LIFE_S = 360.0
_LARGE_BYTES = 10_000
_FILE_LIFE_S = 7 * 86_400.0
HOOK_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)  # ten tries more, within two hours
_PICTURES = {"jpeg": jpeg, "png": png}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a runner answered: the result replays it (section 5). `error` is what the status says of it, if anything."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class FalGeneration(Generation):
    """One request in the queue. `app` is what its URLs are under: owner and app, without the model's sub-path."""

    app: str = ""
    model: Model | None = None
    form: Form | None = None  # None: the runner will refuse the body
    problems: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0  # in the order of submission
    seed: int = 0
    outcome: Outcome | None = None  # once it is known
    outcome_bytes: bytes = b""


class Fal(Provider[FalGeneration]):
    """The service, its queue at `url`; its JWKS is there, too.

    `result_life_s`, `large_result_life_s`: how long results can be had. `hook_delays_s`: pauses before webhooks that
    were not taken are sent again. `hook_copies`: how often each is delivered. `hook_payload`: whether it holds one.
    """

    name: ClassVar[str] = "fal"

    def __init__(self, media: MediaHost, pace: Pace = QUICK) -> None:
        super().__init__(media, pace)
        self.account = Account("fal-simulated-id:fal-simulated-secret", at_once=40)
        self.user_id = "user-simulated"
        self.signing_key = Ed25519PrivateKey.generate()
        self.result_life_s = RESULT_LIFE_S
        self.large_result_life_s = LARGE_RESULT_LIFE_S
        self.hook_delays_s: tuple[float, ...] = HOOK_DELAYS_S
        self.hook_copies = 1
        self.hook_payload = True
        self._runners: list[float] = []  # a heap of the moments when each will be free
        self._waiting: deque[FalGeneration] = deque()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        under = "/{owner}/{app}/requests/{id}"
        return [
            web.get("/.well-known/jwks.json", self._jwks),
            web.get(f"{under}/status", self._status),
            web.get(under, self._result),
            web.put(f"{under}/cancel", self._cancel),
            web.post("/{owner}/{app}", self._submit),
            web.post("/{owner}/{app}/{path:.+}", self._submit),
        ]

    # ------------------------------------------------------------ calls

    async def _submit(self, request: web.Request) -> web.Response:
        if not self._is_ours(request):
            return _unauthorised(request)
        if self.account.balance <= 0:
            reason = "Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
            return json_answer({"detail": f"User is locked. Reason: {reason}"}, 403)
        model_id = request.path[1:]
        model = MODELS.get(model_id)
        if model is None:
            return json_answer({"detail": f"Application '{model_id}' not found"}, 404)
        longest = request.query.get("fal_max_queue_length", "")
        if longest.isdigit() and len(self._queued()) >= int(longest):
            return json_answer({"detail": "Queue is full"}, 429)
        app = f"{request.match_info['owner']}/{request.match_info['app']}"
        made = self._made(model, app, await request.read(), request.query.get("fal_webhook"))
        position = len(self._queued()) - 1
        return json_answer({**self._told(made), "status": "IN_QUEUE", "queue_position": max(position, 0)})

    def _made(self, model: Model, app: str, raw: bytes, webhook: str | None) -> FalGeneration:
        body = _object(raw)
        prompt = body.get("prompt")
        made = FalGeneration(
            id=str(uuid.uuid4()),
            prompt=prompt if isinstance(prompt, str) else "",
            pace=self.pace,
            reference=webhook,
            body=body,
            app=app,
            model=model,
            number=len(self.generations),
        )
        try:
            made.form = model.form.model_validate_json(raw)
            made.seed = made.form.seed if made.form.seed is not None else random.getrandbits(32)
        except ValidationError as error:
            made.problems = _problems(error)
        self._occupy(made)
        self.generations[made.id] = made
        self._waiting.append(made)
        if webhook:
            self.spawn(self._call_webhook(made, webhook))
        return made

    async def _status(self, request: web.Request) -> web.Response:
        made = self._found(request)
        told: dict[str, Any] = {**self._told(made), "logs": [] if request.query.get("logs") == "1" else None}
        if _is_over(made):
            outcome = self._outcome(made)
            return json_answer(
                {**told, "status": "COMPLETED", "metrics": _metrics(outcome, made), **outcome.error}
            )
        if made.progress() is None:
            queued = self._queued()
            position = made.number - queued[0].number if queued else 0
            return json_answer({**told, "status": "IN_QUEUE", "queue_position": position, "metrics": {}}, 202)
        return json_answer({**told, "status": "IN_PROGRESS"}, 202)

    async def _result(self, request: web.Request) -> web.Response:
        made = self._found(request)
        if not _is_over(made):
            return json_answer({"detail": "Request is still in progress"}, 400)
        outcome = self._outcome(made)
        large = len(made.outcome_bytes) >= _LARGE_BYTES
        if time.time() > made.done_at + (self.large_result_life_s if large else self.result_life_s):
            return json_answer({"detail": "Request not found"}, 404)
        headers = {**outcome.headers, "Content-Type": "application/json"}
        return web.Response(status=outcome.status, body=made.outcome_bytes, headers=headers)

    async def _cancel(self, request: web.Request) -> web.Response:
        made = self._found(request, {"status": "NOT_FOUND"})
        if _is_over(made):
            return json_answer({"status": "ALREADY_COMPLETED"}, 400)
        if made.progress() is None:
            made.canceled = True
            return json_answer({"status": "OK"})
        return json_answer({"status": "CANCELLATION_REQUESTED"}, 202)  # and Flux goes on to the end

    async def _jwks(self, _: web.Request) -> web.Response:
        raw = self.signing_key.public_key().public_bytes_raw()
        x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        return json_answer({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]})

    def _is_ours(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Key {self.account.key}"

    def _found(self, request: web.Request, unknown: Any = None) -> FalGeneration:
        """The request that this URL is of. Raises what is answered otherwise."""
        if not self._is_ours(request):
            raise _raised(web.HTTPUnauthorized, _unauthorised(request))
        known = request.match_info
        made = self.generations.get(known["id"])
        if made is None or made.app != f"{known['owner']}/{known['app']}":
            raise _raised(web.HTTPNotFound, json_answer(unknown or {"detail": "Request not found"}))
        return made

    def _told(self, made: FalGeneration) -> dict[str, Any]:
        """What every answer about a request holds."""
        base = f"{self.url}/{made.app}/requests/{made.id}"
        return {
            "request_id": made.id,
            "gateway_request_id": made.id,
            "response_url": base,
            "status_url": f"{base}/status",
            "cancel_url": f"{base}/cancel",
        }

    # ------------------------------------------------------------ the queue

    def _occupy(self, made: FalGeneration) -> None:
        """Wait for a runner: more than `at_once` are not refused but queued (section 8.3)."""
        wanted_at = made.starts_at
        if len(self._runners) >= self.account.at_once:
            made.held_s = max(0.0, heapq.heappop(self._runners) - wanted_at)
        heapq.heappush(self._runners, made.done_at)

    def _queued(self) -> deque[FalGeneration]:
        """Those that no runner works on yet, the first one first."""
        while self._waiting and (self._waiting[0].canceled or self._waiting[0].progress() is not None):
            self._waiting.popleft()
        return self._waiting

    # ------------------------------------------------------------ outcomes

    def _outcome(self, made: FalGeneration) -> Outcome:
        """What became of a request that is over."""
        if made.outcome is None:
            made.outcome = self._decided(made)
            made.outcome_bytes = json.dumps(made.outcome.body).encode()
        return made.outcome

    def _decided(self, made: FalGeneration) -> Outcome:
        form, model = made.form, made.model
        if made.canceled:
            return _platform_error(499, "client_cancelled", "Request was cancelled")
        if form is None or model is None:
            return Outcome(422, {"detail": made.problems}, {"X-Fal-Retryable": "false"})
        if made.wants("fail"):
            return _platform_error(500, "runner_server_error", "Internal server error")
        blocks = made.wants("moderate-output")
        if made.wants("moderate-input") or (blocks and not model.flags_nsfw):
            return _forbidden(made.prompt)
        self.account.balance -= model.price * form.count()
        most = made.number_of("moderate-output") or form.count()
        blocked = [blocks and number < most for number in range(form.count())]
        pictures = [self._picture(made, form, number, black) for number, black in enumerate(blocked)]
        body = {
            "images": pictures,
            "timings": {"inference": made.run_s},
            "seed": made.seed,
            "prompt": made.prompt,
        }
        if model.flags_nsfw:
            body["has_nsfw_concepts"] = blocked
        return Outcome(200, body)

    def _picture(self, made: FalGeneration, form: Form, number: int, blocked: bool) -> dict[str, Any]:
        width, height = form.size()
        kind = form.output_format
        seed = f"{made.prompt} {made.id} {number}"
        make = (
            partial(black, kind, width, height) if blocked else partial(_PICTURES[kind], seed, width, height)
        )
        if form.sync_mode:
            url = f"data:image/{kind};base64,{base64.b64encode(make()).decode()}"
        else:
            life_s = -1.0 if made.wants("expire") else _FILE_LIFE_S
            url = self.media.publish(
                f"{number}.{kind}", f"image/{kind}", make, lives_s=life_s, truncated=made.wants("truncate")
            )
            made.results = [*(made.results or []), url]
        return {"url": url, "width": width, "height": height, "content_type": f"image/{kind}"}

    # ------------------------------------------------------------ webhooks

    async def _call_webhook(self, made: FalGeneration, url: str) -> None:
        """At completion, and again until somebody takes it (section 9)."""
        await self.pause(_over_at(made) - time.time())
        body = json.dumps(self._announced(made)).encode()
        for delay_s in (0.0, *self.hook_delays_s):
            await self.pause(delay_s)
            taken = False
            for _ in range(self.hook_copies):
                made.hooked += 1
                status = await self.call_back(url, body, self._signed(made.id, body))
                taken = taken or (status is not None and 200 <= status < 300)
            if taken:
                return

    def _announced(self, made: FalGeneration) -> dict[str, Any]:
        outcome = self._outcome(made)
        told: dict[str, Any] = {"request_id": made.id, "gateway_request_id": made.id}
        if outcome.status != 200:
            error = f"Invalid status code: {outcome.status}"
            return {**told, "status": "ERROR", "error": error, "payload": outcome.body}
        if not self.hook_payload:
            reason = "Response payload is not JSON serializable"
            return {**told, "status": "OK", "payload": None, "payload_error": reason}
        return {**told, "status": "OK", "payload": outcome.body}

    def _signed(self, request_id: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": self.user_id,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": signature(self.signing_key, request_id, self.user_id, timestamp, body),
        }


def signature(key: Ed25519PrivateKey, request_id: str, user_id: str, timestamp: str, body: bytes) -> str:
    """Of a webhook (section 9)."""
    message = "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest()))
    return key.sign(message.encode()).hex()


# ---------------------------------------------------------------- requests


def _is_over(made: FalGeneration) -> bool:
    return made.canceled or time.time() >= _over_at(made)


def _over_at(made: FalGeneration) -> float:
    """A body that the runner refuses costs it no time."""
    refused = made.form is None or made.wants("moderate-input")
    return made.starts_at if refused else made.done_at


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _problems(error: ValidationError) -> list[dict[str, Any]]:
    """As a model says them (section 8.1 b)."""
    return [
        {
            "loc": ["body", *each["loc"]],
            "msg": each["msg"],
            "type": each["type"],
            "url": f"https://docs.fal.ai/errors#{each['type']}",
        }
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _metrics(outcome: Outcome, made: FalGeneration) -> dict[str, float]:
    return {"inference_time": made.run_s} if outcome.status == 200 else {}


# ---------------------------------------------------------------- refusals


def _forbidden(prompt: str) -> Outcome:
    """A model error, of which the status says nothing (section 4)."""
    problem = {
        "loc": ["body", "prompt"],
        "msg": "The content could not be processed because it was flagged by a content checker.",
        "type": "content_policy_violation",
        "url": "https://docs.fal.ai/errors#content_policy_violation",
        "input": prompt,
    }
    return Outcome(422, {"detail": [problem]}, {"X-Fal-Retryable": "false"})


def _platform_error(status: int, error_type: str, words: str) -> Outcome:
    """A request error, which the status names, too (section 8.1 a)."""
    body = {"detail": words, "error_type": error_type}
    return Outcome(status, body, {"X-Fal-Error-Type": error_type}, {"error": words, "error_type": error_type})


def _unauthorised(request: web.Request) -> web.Response:
    application = "/".join(request.path.split("/")[1:3])
    detail = (
        f'Cannot access application "{application}". Authentication is required to access this application.'
    )
    return json_answer({"detail": detail}, 401)


def _raised(kind: type[web.HTTPException], answer: web.Response) -> web.HTTPException:
    """An answer that leaves from wherever one is."""
    return kind(text=answer.text, content_type="application/json")
