"""Kling's official service, both API generations. Facts: fact sheet kling.md."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from tests.simulators.frame import Handler, json_answer
from tests.simulators.kling_forms import LEGACY, NEW
from tests.simulators.media import MediaHost, mp4, png
from tests.simulators.pace import QUICK, Generation, Pace
from tests.simulators.provider import Account, Provider

F = TypeVar("F", bound=BaseModel)

URL_LIFE_S = 86_400.0  # files are kept 30 days, but their URLs die earlier (section 8)
TASKS = "/tasks"
_SURPLUS_S = 0.1  # films are a little longer than asked for
_MONTH_S = 30 * 86_400.0

# HTTP status and text of every code (section 6).
ERRORS: Mapping[int, tuple[int, str]] = {
    1000: (401, "authentication failed"),
    1001: (401, "authorization is empty"),
    1002: (401, "authorization is invalid"),
    1003: (401, "authorization is not yet valid"),
    1004: (401, "authorization has expired"),
    1100: (429, "account exception"),
    1101: (429, "account in arrears"),
    1102: (429, "account balance not enough"),
    1103: (403, "no permission for this resource"),
    1200: (400, "invalid request"),
    1201: (400, "invalid parameter"),
    1202: (404, "invalid method"),
    1203: (404, "resource does not exist"),
    1300: (400, "the request triggers the platform policy"),
    1301: (400, "the request triggers content safety policy"),
    1302: (429, "request rate too high"),
    1303: (429, "parallel task over resource pack limit"),
    1304: (429, "ip whitelist rejection"),
    5000: (500, "internal error"),
    5001: (503, "service is under maintenance"),
    5002: (504, "internal timeout"),
}
_WORDS = {  # of the two generations (section 3)
    False: {"done": "succeed", "created": "created_at", "updated": "updated_at"},
    True: {"done": "succeeded", "created": "create_time", "updated": "update_time"},
}
_REASONS = {
    "moderate-output": {
        False: "content violates the platform policy",
        True: "risk control rejected the prompt",
    },
    "fail": {False: "generation failed, please try again", True: "generation failed, please try again"},
}


@dataclass(slots=True)
class KlingAccount(Account):
    """`key` is the API key; the pair below makes JWTs. `balance` is in units, `at_once` in places (section 8)."""

    at_once: int = 5
    access_key: str = "ak_simulated"
    secret_key: str = "sk_simulated"
    webhook_secret: str = ""  # whsec_…; callbacks are signed where there is one
    postpaid: bool = False  # an empty account is in arrears instead of having used up its pack
    submits: int | None = None  # taken within `window_s`
    window_s: float = 1.0
    refusing: int | None = None  # a code of section 6 that every call is answered with


@dataclass(slots=True)
class KlingTask(Generation):
    """One task. `path` is where it can be asked about, `is_new` which generation's words are used."""

    path: str = ""
    is_new: bool = False
    places: int = 1
    units: float = 1.0
    video_s: float | None = None
    size: tuple[int, int] = (1024, 1024)
    hook: str = ""
    watermark: bool = False
    parent: str | None = None  # the film that it goes on from
    films: list[str] = field(default_factory=list)  # ids of its results, where they are films

    @property
    def status(self) -> str:
        """As it is now."""
        return self.status_at(time.time())

    def status_at(self, moment: float) -> str:
        """The words of sections 4.5 and 5.2."""
        if moment < self.starts_at:
            return "submitted"
        if moment < self.done_at:
            return "processing"
        return "failed" if self.reason else _WORDS[self.is_new]["done"]

    @property
    def reason(self) -> str:
        """Why it fails; empty where it will not."""
        return next((texts[self.is_new] for name, texts in _REASONS.items() if self.wants(name)), "")

    @property
    def changes(self) -> tuple[float, float]:
        """When its status changes, in epoch seconds."""
        return self.starts_at, self.done_at


class Kling(Provider[KlingTask]):
    """The service of one region.

    `duplicates`: what a used external_task_id does; `unknown_is_error`: whether the new generation answers 1203 for a
    task it does not know instead of leaving it out (neither is documented). `batch_cap`: how many one look may name
    (not documented either; None: any number). `always_200`: errors come with HTTP 200. `repeats`: how often each
    callback is sent.
    """

    name: ClassVar[str] = "kling"

    def __init__(self, media: MediaHost, pace: Pace = QUICK) -> None:
        super().__init__(media, pace)
        self.account = KlingAccount("kling-simulated-key")
        self.duplicates: Literal["second", "refused"] = "second"
        self.unknown_is_error = False
        self.batch_cap: int | None = None
        self.always_200 = False
        self.repeats = 1
        self.url_life_s = URL_LIFE_S
        self._of_path: defaultdict[str, list[KlingTask]] = defaultdict(list)
        self._by_reference: dict[tuple[str, str], KlingTask] = {}
        self._films: dict[str, KlingTask] = {}
        self._under_way: list[KlingTask] = []
        self._places = 0  # that those under way have taken
        self._submitted: deque[float] = deque()

    def expire_links(self) -> None:
        """Its addresses die before the files do, which are kept for 30 days (section 8): a look brings new ones."""
        super().expire_links()
        for task in list(self.generations.values()):
            task.results = None

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        for path in LEGACY:
            yield web.post(path, self._guarded(partial(self._create, path), with_jwt=True))
            yield web.get(path, self._guarded(partial(self._page, path), with_jwt=True))
            yield web.get(f"{path}/{{id}}", self._guarded(partial(self._one, path), with_jwt=True))
        for path in NEW:
            yield web.post(path, self._guarded(partial(self._create_new, path)))
        yield web.get(TASKS, self._guarded(self._some))
        yield web.post(TASKS, self._guarded(self._listed))
        yield web.get("/account/costs", self._guarded(self._costs, with_jwt=True))
        yield web.route("*", "/{path:.*}", self._guarded(self._nowhere, with_jwt=True))

    # ------------------------------------------------------------ doors

    def _guarded(self, work: Work, *, with_jwt: bool = False) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            try:
                self._check_bearer(request.headers.get("Authorization", ""), with_jwt=with_jwt)
                if self.account.refusing is not None:
                    raise _Refusal(self.account.refusing)
                return _enveloped(work(request, await request.read()))
            except _Refusal as refusal:
                status, text = ERRORS[refusal.code]
                message = f"{text}: {refusal.detail}" if refusal.detail else text
                return _enveloped(None, refusal.code, message, 200 if self.always_200 else status)

        return answer

    def _check_bearer(self, header: str, *, with_jwt: bool) -> None:
        """An API key opens everything, a JWT the legacy API (section 2)."""
        scheme, _, credential = header.partition(" ")
        if not credential.strip():
            raise _Refusal(1001)
        if scheme != "Bearer":
            raise _Refusal(1000)
        if not hmac.compare_digest(credential.encode(), self.account.key.encode()):
            if not with_jwt:
                raise _Refusal(1002)
            check_token(credential, self.account.access_key, self.account.secret_key, time.time())

    def _nowhere(self, request: web.Request, body: bytes) -> Any:
        known = (*LEGACY, *NEW, TASKS, "/account/costs")
        raise _Refusal(1202 if request.path in known else 1203)

    # ------------------------------------------------------------ creating

    def _create(self, path: str, request: web.Request, body: bytes) -> Any:
        form = _read(LEGACY[path], body)
        for film in form.films:
            if film not in self._films:
                raise _Refusal(1203, f"video {film}")
        task = KlingTask(
            id=self._new_id(),
            prompt=form.words,
            pace=self.pace,
            reference=form.external_task_id,
            body=json.loads(body),
            path=path,
            places=form.places,
            units=form.units,
            video_s=form.video_s,
            size=form.picture_size,
            hook=form.callback_url or "",
            watermark=form.watermark_info.enabled,
            parent=next(iter(form.films), None),
        )
        self._accept(task)
        return self._told(task, fresh=True)

    def _create_new(self, path: str, request: web.Request, body: bytes) -> Any:
        form = _read(NEW[path], body)
        if problem := form.problem(path.rpartition("/")[2]):
            raise _Refusal(1201, problem)
        task = KlingTask(
            id=self._new_id(),
            prompt=form.words,
            pace=self.pace,
            reference=form.options.external_task_id,
            body=json.loads(body),
            path=TASKS,
            is_new=True,
            units=form.units,
            video_s=float(form.settings.duration),
            hook=form.options.callback_url or "",
            watermark=form.options.watermark_info.enabled,
        )
        self._accept(task)
        return self._told(task, fresh=True)

    def _accept(self, task: KlingTask) -> None:
        """Take it, or raise a refusal. What will fail is not charged (section 9)."""
        if task.wants("moderate-input"):
            raise _Refusal(1301)
        known = task.reference is not None and any(
            (path, task.reference) in self._by_reference for path in (*LEGACY, TASKS)
        )
        if known and self.duplicates == "refused":
            raise _Refusal(1201, "external_task_id exists")
        self._check_rate()
        if self.account.balance < task.units:
            raise _Refusal(1101 if self.account.postpaid else 1102)
        self._take_places(task)
        self._submitted.append(time.time())
        if not task.reason:
            self.account.balance -= task.units
        self.generations[task.id] = task
        self._of_path[task.path].append(task)
        if task.reference is not None:
            self._by_reference.setdefault((task.path, task.reference), task)
        if task.hook:
            self.spawn(self._call_back(task))

    def _take_places(self, task: KlingTask) -> None:
        """They are counted anew only where they seem to be used up."""
        if self._places + task.places > self.account.at_once:
            self._under_way = [other for other in self._under_way if not other.is_over]
            self._places = sum(other.places for other in self._under_way)
            if self._places + task.places > self.account.at_once:
                raise _Refusal(1303)
        self._places += task.places
        self._under_way.append(task)

    def _check_rate(self) -> None:
        while self._submitted and self._submitted[0] <= time.time() - self.account.window_s:
            self._submitted.popleft()
        if self.account.submits is not None and len(self._submitted) >= self.account.submits:
            raise _Refusal(1302)

    def _new_id(self) -> str:
        return str(870_000_000_000_000_000 + len(self.generations) * 1_000 + secrets.randbelow(1_000))

    # ------------------------------------------------------------ looking

    def _one(self, path: str, request: web.Request, body: bytes) -> Any:
        """By the service's id or the client's (section 4.1)."""
        wanted = request.match_info["id"]
        found = self.generations.get(wanted) or self._by_reference.get((path, wanted))
        if found is None or found.path != path:
            raise _Refusal(1203)
        return self._told(found)

    def _page(self, path: str, request: web.Request, body: bytes) -> Any:
        """The newest first."""
        number = _number(request.query.get("pageNum", "1"), 1, 1000)
        size = _number(request.query.get("pageSize", "30"), 1, 500)
        shown = islice(reversed(self._of_path[path]), (number - 1) * size, number * size)
        return [self._told(task) for task in shown]

    def _some(self, request: web.Request, body: bytes) -> Any:
        """Several at once, by exactly one kind of id (section 5.2)."""
        kinds = [kind for kind in ("task_ids", "external_task_ids") if request.query.get(kind)]
        if len(kinds) != 1:
            raise _Refusal(1201, "either task_ids or external_task_ids")
        wanted = request.query[kinds[0]].split(",")
        if self.batch_cap is not None and len(wanted) > self.batch_cap:
            raise _Refusal(1201, f"more than {self.batch_cap} {kinds[0]}")
        found = [self._new_task(kinds[0], known) for known in wanted]
        if self.unknown_is_error and None in found:
            raise _Refusal(1203)
        return [self._told(task) for task in found if task is not None]

    def _new_task(self, kind: str, known: str) -> KlingTask | None:
        if kind == "external_task_ids":
            return self._by_reference.get((TASKS, known))
        found = self.generations.get(known)
        return found if found is not None and found.is_new else None

    def _listed(self, request: web.Request, body: bytes) -> Any:
        """Section 5.3: the newest first, from a cursor on."""
        try:
            asked = json.loads(body or b"{}")
            limit, start = int(asked.get("limit", 100)), int(asked.get("cursor") or 0)
            begin = float(asked.get("start_time", 1000 * (time.time() - _MONTH_S)))
            end = float(asked.get("end_time", 1000 * time.time() + 1))
            filters = {each["key"]: set(each["values"]) for each in asked.get("filters", ())}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise _Refusal(1201) from None
        if not 1 <= limit <= 500 or not filters.keys() <= {"status", "product_type"}:
            raise _Refusal(1201)
        found = [
            task
            for task in reversed(self._of_path[TASKS])
            if begin <= 1000 * task.made_at <= end
            and task.status in filters.get("status", {task.status})
            and "video" in filters.get("product_type", {"video"})
        ]
        shown = found[start : start + limit]
        more = start + limit < len(found)
        return {
            "result": [self._told(task) for task in shown],
            "count": len(shown),
            "next_cursor": str(start + limit) if more else "",
            "has_more": more,
        }

    def _costs(self, request: web.Request, body: bytes) -> Any:
        """Section 5.4."""
        if not all(request.query.get(name, "").isdigit() for name in ("start_time", "end_time")):
            raise _Refusal(1201)
        balance = self.account.balance
        pack = {
            "resource_pack_name": "simulated",
            "resource_pack_id": "pack-1",
            "resource_pack_type": "decreasing_total",
            "total_quantity": 1_000_000.0,
            "remaining_quantity": balance,
            "purchase_time": 0,
            "effective_time": 0,
            "invalid_time": _ms(time.time() + _MONTH_S),
            "status": "online" if balance > 0 else "runOut",
        }
        return {"code": 0, "msg": "SUCCEED", "resource_pack_subscribe_infos": [pack]}

    # ------------------------------------------------------------ what is told of a task

    def _told(self, task: KlingTask, *, at: float | None = None, fresh: bool = False) -> dict[str, Any]:
        """What holds `at` that moment, as answers and callbacks say it; `fresh`: as the answer to a submit does."""
        moment = time.time() if at is None else at
        words, status = _WORDS[task.is_new], task.status_at(moment)
        changed_at = max((change for change in task.changes if change <= moment), default=task.made_at)
        times = {words["created"]: _ms(task.made_at), words["updated"]: _ms(changed_at)}
        if task.is_new:
            told = {"id": task.id, "status": status, **times, "external_id": task.reference or ""}
            return told if fresh else told | self._result_of_new(task, status)
        info: dict[str, Any] = {"external_task_id": task.reference} if task.reference else {}
        if task.parent:
            info |= {"parent_video": {"id": task.parent}}
        told = {"task_id": task.id, "task_status": status, "task_info": info, **times}
        return told if fresh else told | self._result_of_legacy(task, status)

    def _result_of_legacy(self, task: KlingTask, status: str) -> dict[str, Any]:
        if status != "succeed":
            return {"task_status_msg": task.reason if status == "failed" else ""}
        urls = self._results(task)
        if task.video_s is None:
            pictures = [
                {"index": index, "url": url, "watermark_url": self._marked(task, url)}
                for index, url in enumerate(urls)
            ]
            result: dict[str, Any] = {"images": pictures}
        else:
            films = [self._film(task, url, film) for url, film in zip(urls, task.films, strict=True)]
            result = {"videos": films}
        return {
            "task_status_msg": "",
            "final_unit_deduction": f"{task.units:g}",
            "final_balance_deduction": {"quota": "0", "list_price": "0"},
            "watermark_info": {"enabled": task.watermark},
            "task_result": result,
        }

    def _result_of_new(self, task: KlingTask, status: str) -> dict[str, Any]:
        if status != "succeeded":
            return {"message": task.reason if status == "failed" else "", "outputs": [], "billing": []}
        bill = {
            "charge_type": "unit",
            "package_type": "video",
            "amount": f"{task.units:g}",
            "list_price": "0",
        }
        outputs = [
            {"type": "video", **self._film(task, url, film)}
            for url, film in zip(self._results(task), task.films, strict=True)
        ]
        return {"message": "", "outputs": outputs, "billing": [bill]}

    def _film(self, task: KlingTask, url: str, film: str) -> dict[str, Any]:
        duration = f"{(task.video_s or 0) + _SURPLUS_S:g}"
        return {"id": film, "url": url, "watermark_url": self._marked(task, url), "duration": duration}

    def _marked(self, task: KlingTask, url: str) -> str:
        return url if task.watermark else ""

    def _results(self, task: KlingTask) -> list[str]:
        """The URLs of its files, which are made when they are fetched."""
        if task.results is None:
            task.results = [self._publish(task, *made) for made in _makes(task)]
            if task.video_s is not None and not task.films:
                task.films = [f"v-{uuid.uuid4().hex[:16]}" for _ in task.results]
                self._films |= dict.fromkeys(task.films, task)
        return task.results

    def _publish(self, task: KlingTask, name: str, content_type: str, make: Callable[[], bytes]) -> str:
        life_s = -1.0 if task.wants("expire") else task.done_at + self.url_life_s - time.time()
        return self.media.publish(name, content_type, make, lives_s=life_s, truncated=task.wants("truncate"))

    # ------------------------------------------------------------ callbacks (section 7)

    async def _call_back(self, task: KlingTask) -> None:
        """At every change of the status, once; whether the real service tries again is not documented."""
        for moment in (task.made_at, *task.changes):
            await self.pause(moment - time.time())
            body = json.dumps(self._told(task, at=moment), ensure_ascii=False).encode()
            headers = self._signed(body)
            for _ in range(self.repeats):
                task.hooked += 1
                await self.call_back(task.hook, body, headers)

    def _signed(self, body: bytes) -> dict[str, str]:
        if not self.account.webhook_secret:
            return {}
        webhook_id, moment = uuid.uuid4().hex, str(int(time.time()))
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": moment,
            "webhook-signature": signature(self.account.webhook_secret, webhook_id, moment, body),
        }


class _Refusal(Exception):
    """The request is answered with this code (section 6)."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


Work: TypeAlias = Callable[[web.Request, bytes], Any]


def _enveloped(data: Any, code: int = 0, message: str = "SUCCEED", status: int = 200) -> web.Response:
    told: dict[str, Any] = {"code": code, "message": message, "request_id": uuid.uuid4().hex}
    return json_answer(told if code else {**told, "data": data}, status)


def _read(form: type[F], body: bytes) -> F:
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if problem["type"] == "json_invalid":
            raise _Refusal(1200) from None
        raise _Refusal(1201, f"{'.'.join(map(str, problem['loc']))} {problem['msg']}") from None


def _number(value: str, lowest: int, highest: int) -> int:
    if not value.isdigit() or not lowest <= int(value) <= highest:
        raise _Refusal(1201)
    return int(value)


def _makes(task: KlingTask) -> Iterable[tuple[str, str, Callable[[], bytes]]]:
    """The files of a result and how each is made."""
    if task.video_s is not None:
        make = partial(mp4, f"{task.prompt} {task.id}", task.video_s + _SURPLUS_S)
        yield "video.mp4", "video/mp4", make
        return
    for index in range(task.places):
        yield f"{index}.png", "image/png", partial(png, f"{task.prompt} {task.id} {index}", *task.size)


def _ms(moment: float) -> int:
    return int(1000 * moment)


# ---------------------------------------------------------------- signatures


def check_token(token: str, access_key: str, secret_key: str, now: float) -> None:
    """Look at a JWT as section 2 describes it. Raises a refusal with the code that says what is wrong."""
    head, _, signed = token.rpartition(".")
    try:
        header, claims = (json.loads(_unpacked(part)) for part in head.split("."))
        given = _unpacked(signed)
    except (ValueError, binascii.Error):
        raise _Refusal(1002) from None
    if header != {"alg": "HS256", "typ": "JWT"} or not isinstance(claims, dict):
        raise _Refusal(1000)
    right = hmac.new(secret_key.encode(), head.encode(), hashlib.sha256).digest()
    if claims.get("iss") != access_key or not hmac.compare_digest(given, right):
        raise _Refusal(1002)
    begin, end = claims.get("nbf"), claims.get("exp")
    if not isinstance(begin, int) or not isinstance(end, int):
        raise _Refusal(1000)
    if begin > now:
        raise _Refusal(1003)
    if end <= now:
        raise _Refusal(1004)


def _unpacked(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def signature(secret: str, webhook_id: str, moment: str, body: bytes) -> str:
    """Of a callback: Standard Webhooks (section 7)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((webhook_id.encode(), moment.encode(), body))
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"
