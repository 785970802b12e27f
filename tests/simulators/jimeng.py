"""Jimeng behind Volcengine's gateway: the visual API, CVSync2Async. Facts: fact sheet jimeng.md, part A."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote

from aiohttp import web

from tests.simulators.frame import json_answer
from tests.simulators.jimeng_forms import PRODUCTS, Form, read
from tests.simulators.media import MediaHost, jpeg, mp4, png
from tests.simulators.pace import QUICK, Generation, Pace
from tests.simulators.provider import Account, Provider

VERSION, REGION, SERVICE = "2022-08-31", "cn-north-1", "cv"
SUBMIT, QUERY = "CVSync2AsyncSubmitTask", "CVSync2AsyncGetResult"
IMAGE_LIFE_S, VIDEO_LIFE_S, RECORD_LIFE_S = 86_400.0, 3600.0, 12 * 3600.0  # section A4
SKEW_S = 900.0  # not documented
_SOON_S = 0.01
_FAILING = ("moderate-output", "fail", "break")
_LONGEST_SIDE = 1024  # of pictures really drawn, to be quick

# HTTP status and text of every code (section A5).
CODES: Mapping[int, tuple[int, str]] = {
    10000: (200, "Success"),
    50215: (400, "Input invalid for this service"),
    50400: (401, "Access Denied: Internal Error"),
    50411: (400, "Pre Img Risk Not Pass"),
    50412: (400, "Text Risk Not Pass"),
    50413: (400, "Post Text Risk Not Pass"),
    50429: (429, "Request Has Reached API Limit, Please Try Later"),
    50430: (429, "Request Has Reached API Concurrent Limit, Please Try Later"),
    50500: (500, "Internal Error"),
    50501: (500, "Internal RPC Error"),
    50511: (400, "Post Img Risk Not Pass"),
    50512: (400, "Post Text Risk Not Pass"),
    50516: (400, "Post Video Risk Not Pass"),
    50517: (400, "Post Audio Risk Not Pass"),
    50518: (400, "Pre Img Copyright Not Pass"),
    50519: (400, "Post Img Copyright Not Pass"),
    50520: (400, "Risk Internal Error"),
    50521: (400, "Antidirt Internal Error"),
    50522: (400, "Image Copyright Internal Error"),
}
# The gateway's own errors, in another envelope: HTTP status and name (section A5).
GATEWAY: Mapping[int, tuple[int, str]] = {
    100002: (400, "MissingParameter"),
    100007: (404, "ServiceNotFound"),
    100009: (401, "InvalidAccessKey"),
    100010: (403, "SignatureDoesNotMatch"),
    100013: (403, "AccessDenied"),
}


@dataclass(slots=True)
class JimengAccount(Account):
    """`key` is the access key; `balance` is in CNY, only what succeeds is paid for (section A8)."""

    at_once: int = 2
    secret_key: str = "c2ltdWxhdGVkLXNlY3JldA=="
    calls: int | None = None  # taken within `window_s`, looks among them
    window_s: float = 1.0
    refusing: int | None = None  # a code of either table that every call is answered with


@dataclass(slots=True)
class JimengTask(Generation):
    """One task, known under its req_key only."""

    form: Form | None = None
    hook: str = ""
    hook_wants_urls: bool = False
    die_at: float = 0.0  # when the URLs in `results` do
    late_code: int | None = None  # what its input turns out to be only when asked about
    makes: list[Callable[[], bytes]] = field(default_factory=list)

    @property
    def req_key(self) -> str:
        """The product."""
        return self.form.req_key if self.form else ""

    @property
    def is_film(self) -> bool:
        """Whether it ends in video_url."""
        return PRODUCTS[self.req_key].makes == "mp4"

    @property
    def code(self) -> int:
        """What a query answers: about the input as soon as it is looked at, about the rest in the end."""
        if self.late_code is not None and self.progress() is not None:
            return self.late_code
        if not self.is_over:
            return 10000
        if self.wants("moderate-output"):
            return 50516 if self.is_film else 50511
        return 50500 if self.wants("fail") else 10000


class Jimeng(Provider[JimengTask]):
    """The service and the gateway in front of it.

    `moderates_late`: forbidden inputs are accepted and only a query tells. `image_life_s`, `video_life_s` and
    `record_life_s`: how long URLs and tasks live. `[lapse]` in a prompt makes a task expire, `[break]` makes every
    query an internal error, `[moderate-image]` blames the pictures that were sent. `breaking`: a code of section A5
    that every submit is answered with.
    """

    name: ClassVar[str] = "jimeng"

    def __init__(self, media: MediaHost, pace: Pace = QUICK) -> None:
        super().__init__(media, pace)
        self.account = JimengAccount("AKLTsimulated")
        self.moderates_late = False
        self.breaking: int | None = None
        self.image_life_s = IMAGE_LIFE_S
        self.video_life_s = VIDEO_LIFE_S
        self.record_life_s = RECORD_LIFE_S
        self.skew_s = SKEW_S
        self._under_way: list[JimengTask] = []
        self._recent: deque[float] = deque()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [web.post("/", self._called_by_gateway)]

    def expire_links(self) -> None:
        """As if their time were over: the next look brings new ones."""
        super().expire_links()
        for task in list(self.generations.values()):
            task.die_at = 0.0

    # ------------------------------------------------------------ the gateway

    async def _called_by_gateway(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            self._check_request(request, body)
            self._check_account()
            value = _parsed(body)
            answered = self._submit(value) if request.query["Action"] == SUBMIT else self._query(value)
            return _said(10000, answered)
        except _Refusal as refusal:
            if refusal.code in GATEWAY:
                return _refused_by_gateway(request, refusal)
            return _said(refusal.code, refusal.data)

    def _check_request(self, request: web.Request, body: bytes) -> None:
        """Action, version and signature (sections A1 and A2). Raises a refusal."""
        for name in ("Action", "Version"):
            if name not in request.query:  # in the body it is not seen
                raise _Refusal(100002, text=f"The request is missing the {name} parameter.")
        if request.query["Action"] not in (SUBMIT, QUERY) or request.query["Version"] != VERSION:
            raise _Refusal(100007, text="Could not find operation for the version.")
        problem = check_signature(
            request.method,
            request.path,
            request.query_string,
            request.headers,
            body,
            access_key=self.account.key,
            secret_key=self.account.secret_key,
            now=time.time(),
            skew_s=self.skew_s,
        )
        if problem is not None:
            raise _Refusal(problem, text="The request signature does not match.")

    def _check_account(self) -> None:
        account = self.account
        if account.refusing is not None:
            raise _Refusal(account.refusing)
        while self._recent and self._recent[0] <= time.time() - account.window_s:
            self._recent.popleft()
        if account.calls is not None and len(self._recent) >= account.calls:
            raise _Refusal(50429)
        self._recent.append(time.time())

    # ------------------------------------------------------------ submit (section A3)

    def _submit(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            form = read(body)
        except (ValueError, KeyError):
            raise _Refusal(50215) from None
        if self.breaking is not None:
            raise _Refusal(self.breaking)
        product = PRODUCTS[form.req_key]
        task = JimengTask(
            id=self._new_id(),
            prompt=form.prompt,
            pace=self.pace,
            body=body,
            form=form,
            hook=str(body.get("callback_url") or "") if product.calls_back else "",
            hook_wants_urls=body.get("return_url") is True,
        )
        forbidden = _forbidden(task)
        if forbidden is not None and not self.moderates_late:
            raise _Refusal(forbidden)
        task.late_code = forbidden
        self._enqueue(task, product.price * form.made)
        self.generations[task.id] = task
        if task.hook:
            self.spawn(self._call_back(task))
        return {"task_id": task.id}

    def _enqueue(self, task: JimengTask, price: float) -> None:
        """There is no code for an empty account but the one for all that is not permitted (section A5)."""
        if self.account.balance < price:
            raise _Refusal(50400)
        if len(self._under_way) >= self.account.at_once:
            self._under_way = [other for other in self._under_way if not other.is_over]
        if len(self._under_way) >= self.account.at_once:
            raise _Refusal(50430)
        self._under_way.append(task)
        if task.late_code is None and not any(map(task.wants, _FAILING)):
            self.account.balance -= price

    def _new_id(self) -> str:
        return str(7_392_000_000_000_000_000 + len(self.generations) * 10**9 + secrets.randbelow(10**9))

    # ------------------------------------------------------------ query (section A4)

    def _query(self, body: dict[str, Any]) -> dict[str, Any]:
        wants_urls = _wants_urls(body.get("req_json"))
        task = self.generations.get(str(body.get("task_id")))
        if task is None or task.req_key != body.get("req_key"):
            return _data("not_found")
        if time.time() > task.made_at + self.record_life_s:
            return _data("not_found")
        return self._look(task, wants_urls)

    def _look(self, task: JimengTask, wants_urls: bool) -> dict[str, Any]:
        """The data of an answer. Raises a refusal where the answer is a code."""
        if task.wants("break"):
            raise _Refusal(50501)
        if task.code != 10000:
            raise _Refusal(task.code, _data("done") if task.code == 50500 else None)
        if task.progress() is None:
            return _data("in_queue")
        if not task.is_over:
            return _data("generating")
        if task.wants("lapse"):
            return _data("expired")
        self._publish(task)
        assert task.results is not None
        if task.is_film:
            return {"status": "done", "video_url": task.results[0], "aigc_meta_tagged": False}
        if wants_urls:
            return {**_data("done"), "image_urls": task.results}
        inline = [base64.b64encode(make()).decode() for make in task.makes]
        return {**_data("done"), "binary_data_base64": inline}

    def _publish(self, task: JimengTask) -> None:
        """Give the results addresses, and new ones when the old ones are dead."""
        assert task.form is not None
        life_s = self.video_life_s if task.is_film else self.image_life_s
        if task.results is not None and (time.time() < task.die_at or task.wants("expire")):
            return
        kind = PRODUCTS[task.req_key].makes
        task.makes = task.makes or list(_makes(task, task.form, kind))
        content_type = "video/mp4" if kind == "mp4" else f"image/{kind}"
        task.die_at = time.time() + life_s
        task.results = [
            self.media.publish(
                f"{index}.{kind}",
                content_type,
                make,
                lives_s=-1.0 if task.wants("expire") else life_s,
                truncated=task.wants("truncate"),
            )
            for index, make in enumerate(task.makes)
        ]

    # ------------------------------------------------------------ callback (section A7)

    async def _call_back(self, task: JimengTask) -> None:
        """Once, in the end, without a signature; whether it is tried again is not documented."""
        while not task.is_over:
            await self.pause(max(_SOON_S, task.done_at - time.time()))
        try:
            told = _answer(10000, self._look(task, task.hook_wants_urls))
        except _Refusal as refusal:
            told = _answer(refusal.code, {"resp_data": ""})
        task.hooked += 1
        await self.call_back(task.hook, json.dumps({**told, "task_id": task.id}).encode())


class _Refusal(Exception):
    """The request is answered with this code."""

    def __init__(self, code: int, data: Any = None, text: str = "") -> None:
        super().__init__(code)
        self.code, self.data, self.text = code, data, text


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        raise _Refusal(50215) from None
    if not isinstance(value, dict):
        raise _Refusal(50215)
    return value


def _wants_urls(req_json: Any) -> bool:
    """What `req_json`, an object written as a string, says about return_url (section A4)."""
    if req_json is None:
        return False
    try:
        wanted = json.loads(req_json)
    except (ValueError, TypeError):
        raise _Refusal(50215) from None
    return isinstance(wanted, dict) and wanted.get("return_url") is True


def _forbidden(task: JimengTask) -> int | None:
    """The code for an input that is not allowed."""
    if task.wants("moderate-image"):
        return 50411
    return 50412 if task.wants("moderate-input") else None


def _data(status: str) -> dict[str, Any]:
    return {
        "binary_data_base64": None,
        "image_urls": None,
        "status": status,
        "video_url": "",
        "resp_data": "",
    }


def _answer(code: int, data: Any) -> dict[str, Any]:
    return {"code": code, "data": data, "message": CODES[code][1], "request_id": _request_id(), "status": code,
            "time_elapsed": "1.5ms"}  # fmt: skip


def _said(code: int, data: Any) -> web.Response:
    return json_answer(_answer(code, data), CODES[code][0])


def _refused_by_gateway(request: web.Request, refusal: _Refusal) -> web.Response:
    status, name = GATEWAY[refusal.code]
    metadata = {
        "RequestId": _request_id(),
        "Action": request.query.get("Action", ""),
        "Version": request.query.get("Version", ""),
        "Service": SERVICE,
        "Region": REGION,
        "Error": {"CodeN": refusal.code, "Code": name, "Message": refusal.text or name},
    }
    return json_answer({"ResponseMetadata": metadata}, status)


def _request_id() -> str:
    return f"{datetime.now(UTC):%Y%m%d%H%M%S}{secrets.token_hex(9).upper()}"


def _makes(task: JimengTask, form: Form, kind: str) -> Iterable[Callable[[], bytes]]:
    """How each file of a result is made. Large pictures are drawn smaller, in their shape."""
    if kind == "mp4":
        yield partial(mp4, f"{task.prompt} {task.id}", form.video_s)
        return
    shrunk = max(1.0, max(form.size) / _LONGEST_SIDE)
    width, height = (max(1, round(side / shrunk)) for side in form.size)
    for index in range(form.made):
        yield partial(png if kind == "png" else jpeg, f"{task.prompt} {task.id} {index}", width, height)


# ---------------------------------------------------------------- signatures (section A2)

_AUTHORIZATION = re.compile(
    r"HMAC-SHA256 Credential=(?P<key>[^/ ,]+)/(?P<scope>[^ ,]+), *"
    r"SignedHeaders=(?P<names>[^ ,]+), *Signature=(?P<signature>[0-9a-f]{64})"
)
_SIGNED_AT_LEAST = ("host", "x-date")


def check_signature(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    access_key: str,
    secret_key: str,
    now: float,
    skew_s: float = SKEW_S,
) -> int | None:
    """What is wrong with a request's signature, as the gateway's code; None where nothing is.

    The request is written down with the headers that the client lists, in the client's order. `headers` are looked up
    by name in any case.
    """
    found = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
    moment = headers.get("X-Date", "")
    if found is None or found["key"] != access_key:
        return 100009
    names = found["names"].split(";")
    if found["scope"] != f"{moment[:8]}/{REGION}/{SERVICE}/request":
        return 100010
    if not _is_near(moment, now, skew_s) or any(name not in names for name in _SIGNED_AT_LEAST):
        return 100010
    body_hash = hashlib.sha256(body).hexdigest()
    if headers.get("X-Content-Sha256", body_hash) != body_hash:
        return 100010
    block = "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in names)
    canonical = "\n".join((method, path, _canonical_query(query), block, found["names"], body_hash))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = secret_key.encode()
    for part in (*found["scope"].split("/"), f"HMAC-SHA256\n{moment}\n{found['scope']}\n{digest}"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return None if hmac.compare_digest(key.hex(), found["signature"]) else 100010


def _canonical_query(query: str) -> str:
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)


def _is_near(moment: str, now: float, skew_s: float) -> bool:
    try:
        then = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return abs(then.timestamp() - now) <= skew_s
