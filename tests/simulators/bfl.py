"""Black Forest Labs: a global host and two regional ones. Facts: fact sheet flux_bfl.md."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import random
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from aiohttp import web
from pydantic import ValidationError

from tests.simulators.bfl_forms import ENDPOINTS, Form, problems_of_size
from tests.simulators.frame import json_answer
from tests.simulators.media import MediaHost, jpeg, png, webp
from tests.simulators.pace import QUICK, Generation, Pace
from tests.simulators.pictures import from_base64, from_data_url, is_address
from tests.simulators.provider import Account, Provider

REGIONS = ("eu", "us")
SAMPLE_LIFE_S = 600.0  # section 4.3
SETTLE_S = 0.2  # really some seconds
_GLOBAL = "global"
_PICTURES: dict[str, Callable[[str, int, int], bytes]] = {"jpeg": jpeg, "png": png, "webp": webp}


@dataclass(slots=True)
class BflGeneration(Generation):
    """One task, known in its region only."""

    region: str = ""
    seed: int = 0
    size: tuple[int, int] = (1024, 1024)
    output_format: str = "jpeg"


class Bfl(Provider[BflGeneration]):
    """The service. `url` is the global host, `regional_url` the others.

    `sample_life_s` is how long a picture can be fetched after it is ready, `settle_s` for how long after the submit
    a task is not found.
    """

    name: ClassVar[str] = "bfl"

    def __init__(
        self,
        media: MediaHost,
        pace: Pace = QUICK,
        *,
        sample_life_s: float = SAMPLE_LIFE_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        super().__init__(media, pace)
        self.account = Account("bfl-simulated-key")
        self.sample_life_s = sample_life_s
        self.settle_s = settle_s
        self._ports = dict.fromkeys(REGIONS, 0)
        self._next_region = itertools.cycle(REGIONS)
        self._next_status = itertools.cycle((404, 200))  # of "Task not found"
        self._under_way: list[BflGeneration] = []

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/v1/get_result", self._result),
            web.get("/v1/credits", self._credits),
            web.post("/v1/{model}", self._submit),
        ]

    async def listen(self, port: int = 0) -> None:
        """Serve from now on, at all hosts."""
        await super().listen(port)
        for region in REGIONS:
            self._ports[region] = await self.open(self._ports[region])

    def regional_url(self, region: str) -> str:
        """The root of a regional host."""
        return f"http://127.0.0.1:{self._ports[region]}"

    # ------------------------------------------------------------ calls

    async def _submit(self, request: web.Request) -> web.Response:
        if request.headers.get("x-key") != self.account.key:
            return _refused(403, "Not authenticated")
        endpoint = ENDPOINTS.get(request.match_info["model"])
        if endpoint is None:
            return _refused(404, "Not Found")
        try:
            form = endpoint.form.model_validate_json(await request.read())
        except ValidationError as error:
            return _refused(422, _problems(error))
        if problems := problems_of_size(form):
            return _refused(422, problems)
        if unreadable := [name for name, picture in _pictures(form) if not _is_picture(picture)]:
            return _refused(400, f"Could not decode {unreadable[0]}")
        megapixels = form.size()[0] * form.size()[1] / 1_000_000
        cost = endpoint.cost(megapixels)
        if self.account.balance < cost:
            return _refused(402, "Insufficient credits. Please add credits to your account.")
        if not self._has_room():
            return _refused(429, "Too many active tasks. Please wait for one to finish.")
        self.account.balance -= cost
        made = self._made(request, form)
        return json_answer({**self._told(made, form), "cost": cost, "input_mp": 0.0, "output_mp": megapixels})

    def _made(self, request: web.Request, form: Form) -> BflGeneration:
        made = BflGeneration(
            id=str(uuid.uuid4()),
            prompt=form.prompt,
            pace=self.pace,
            reference=form.webhook_url,
            body=form.model_dump(exclude_unset=True),
            region=self._host(request) or next(self._next_region),
            seed=form.seed if form.seed is not None else random.getrandbits(32),
            size=form.size(),
            output_format=form.output_format,
        )
        self.generations[made.id] = made
        self._under_way.append(made)
        if form.webhook_url:
            self.spawn(self._call_webhook(made, form.webhook_url, form.webhook_secret))
        return made

    def _told(self, made: BflGeneration, form: Form) -> dict[str, Any]:
        """With a webhook the answer has another shape, and nothing says where to poll (section 4.1)."""
        if form.webhook_url:
            return {"id": made.id, "status": "Pending", "webhook_url": form.webhook_url}
        return {"id": made.id, "polling_url": f"{self.regional_url(made.region)}/v1/get_result?id={made.id}"}

    async def _result(self, request: web.Request) -> web.Response:
        if request.headers.get("x-key", self.account.key) != self.account.key:  # none is fine: section 1
            return _refused(403, "Not authenticated")
        task_id = request.query.get("id", "")
        found = self.generations.get(task_id)
        elsewhere = found is None or found.region != self._host(request)
        if found is None or elsewhere or time.time() < found.made_at + self.settle_s:
            return json_answer(_seen(task_id, "Task not found"), next(self._next_status))
        return json_answer(self._look(found))

    async def _credits(self, request: web.Request) -> web.Response:
        if request.headers.get("x-key") != self.account.key:
            return _refused(403, "Not authenticated")
        return json_answer({"credits": self.account.balance})

    # ------------------------------------------------------------ tasks

    def _look(self, found: BflGeneration) -> dict[str, Any]:
        """The body of a poll (section 4.2)."""
        progress = found.progress()
        if not _is_over(found):
            return _seen(found.id, "Pending", progress=None if progress is None else round(progress, 2))
        if found.wants("moderate-input"):
            return _seen(found.id, "Request Moderated", details={"Moderation Reasons": ["Safety Filter"]})
        if found.wants("moderate-output"):
            return _seen(
                found.id, "Content Moderated", details={"Moderation Reasons": ["Derivative Works Filter"]}
            )
        if found.wants("fail"):
            return _seen(found.id, "Error", details={"error": "internal"})
        return _seen(found.id, "Ready", result=self._ready(found))

    def _ready(self, found: BflGeneration) -> dict[str, Any]:
        if found.results is None:
            life_s = -1.0 if found.wants("expire") else found.done_at + self.sample_life_s - time.time()
            made = partial(_PICTURES[found.output_format], f"{found.prompt} {found.id}", *found.size)
            name, kind = f"sample.{found.output_format}", f"image/{found.output_format}"
            truncated = found.wants("truncate")
            found.results = [self.media.publish(name, kind, made, lives_s=life_s, truncated=truncated)]
        return {
            "sample": found.results[0],
            "prompt": found.prompt,
            "seed": found.seed,
            "start_time": found.starts_at,
            "end_time": found.done_at,
            "duration": found.run_s,
        }

    def _has_room(self) -> bool:
        if len(self._under_way) >= self.account.at_once:
            self._under_way = [made for made in self._under_way if not _is_over(made)]
        return len(self._under_way) < self.account.at_once

    def _host(self, request: web.Request) -> str:
        """The region whose host was asked; empty for the global one."""
        return next((region for region, port in self._ports.items() if port == request.url.port), "")

    async def _call_webhook(self, made: BflGeneration, url: str, secret: str | None) -> None:
        """Once; whether the real service tries again is not known (section 6)."""
        await self.pause(made.done_at - time.time())
        seen = self._look(made)
        told = {"id": made.id, "status": seen["status"], "timestamp": time.time()}
        if seen["result"]:
            told["result"] = {name: seen["result"][name] for name in ("sample", "prompt", "seed")}
        else:
            told |= {"status": "Error", "error": seen["status"], "message": json.dumps(seen["details"])}
        body = json.dumps(told).encode()
        signed = {"X-BFL-Signature": signature(secret, body)} if secret else {}
        made.hooked += 1
        await self.call_back(url, body, signed)


def signature(secret: str, body: bytes) -> str:
    """Of a webhook (section 6)."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def _is_over(made: BflGeneration) -> bool:
    """A forbidden prompt is found out as soon as work begins."""
    return made.is_over or (made.wants("moderate-input") and made.progress() is not None)


def _seen(
    task_id: str, status: str, *, result: Any = None, progress: float | None = None, details: Any = None
) -> dict[str, Any]:
    return {"id": task_id, "status": status, "result": result, "progress": progress, "details": details,
            "preview": None}  # fmt: skip


def _refused(status: int, detail: Any) -> web.Response:
    return json_answer({"detail": detail}, status)


def _problems(error: ValidationError) -> list[dict[str, Any]]:
    """As FastAPI says them."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{"loc": ["body", *each["loc"]], "msg": each["msg"], "type": each["type"]} for each in found]


def _pictures(form: Form) -> Iterable[tuple[str, str]]:
    """The fields that hold a picture."""
    for name, value in form:
        if isinstance(value, str) and name.startswith(("image", "input_image", "mask")):
            yield name, value


def _is_picture(value: str) -> bool:
    """Whether it is one; an address is believed."""
    return is_address(value) or bool(from_base64(value) or from_data_url(value))
