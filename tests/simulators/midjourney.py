"""A midjourney-proxy server in either of its dialects. Facts: fact sheet midjourney_proxy.md."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, TypeAlias

from aiohttp import web

from tests.simulators.frame import Handler, json_answer
from tests.simulators.media import MediaHost, mp4, png, webp
from tests.simulators.midjourney_tasks import (
    Dialect,
    Kind,
    MidjourneyTask,
    Press,
    grid,
    mode_of,
    press,
)
from tests.simulators.pace import QUICK, Pace
from tests.simulators.pictures import from_data_url, is_address
from tests.simulators.provider import Account, Provider

BANNED_WORDS = ("nude", "gore")
LINK_LIFE_S = 86_400.0  # section 10
LISTED = 100  # what TA's /task/list shows
_VIDEO_S = 5.2
_LONGEST = {"state": 255, "notifyHook": 2000}  # TA, section 3
_SPEEDS = ("fast", "relax", "turbo")
_BOTS = ("MID_JOURNEY", "NIJI_JOURNEY", "mj", "niji")
_DIMENSIONS = ("PORTRAIT", "SQUARE", "LANDSCAPE")
_CHANGEABLE = ("IMAGINE", "VARIATION", "REROLL", "BLEND")
_CHANGE = re.compile(r"(\S+) (?:([UV])([1-4])|R)")
_PREVIEW_SIDE = 256
_SOON_S = 0.01

Body: TypeAlias = dict[str, Any]
Work: TypeAlias = Callable[[web.Request, Body], web.Response]


@dataclass(slots=True)
class MidjourneyAccount(Account):
    """The secret, and the one Discord account behind the server. With an empty `key` nobody needs a secret.

    `balance` counts the drawings that are left today (TA). `at_once` are drawn, `queue` more may wait (section 9).
    """

    at_once: int = 3
    queue: int = 10
    user_at_once: int | None = None  # TA's own limit for one user; above it nothing waits
    is_admin: bool = False  # whether the secret is an admin's, who may cancel (TA)
    is_alive: bool = True
    remix: bool = False
    is_partner: bool = False  # upscales are there at once (section 7)
    repeats: bool = False  # answer the same upscale with 21 and the first one, as NZ's documents say


class Midjourney(Provider[MidjourneyTask]):
    """The server. `dialect` is TA (buttons and windows) or NZ (changes), and may be switched at any time."""

    name: ClassVar[str] = "midjourney"

    def __init__(self, media: MediaHost, pace: Pace = QUICK, *, dialect: Dialect = "TA") -> None:
        super().__init__(media, pace)
        self.account = MidjourneyAccount("mj-simulated-secret")
        self.dialect: Dialect = dialect
        self.keeps_results = False  # whether they are in this server's own storage
        self.notify_hook = ""  # the server's own; a task's wins
        self.banned_words: tuple[str, ...] = BANNED_WORDS  # NZ looks for them
        self._known: dict[str, MidjourneyTask] = {}
        self._under_way: list[MidjourneyTask] = []

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        calls: tuple[tuple[str, str, Work, str], ...] = (
            ("POST", "/submit/imagine", self._imagine, "TA NZ"),
            ("POST", "/submit/change", self._change, "NZ"),
            ("POST", "/submit/simple-change", self._simple_change, "NZ"),
            ("POST", "/submit/action", self._action, "TA"),
            ("POST", "/submit/modal", self._modal, "TA"),
            ("POST", "/submit/blend", self._blend, "TA NZ"),
            ("POST", "/submit/describe", self._describe, "TA NZ"),
            ("POST", "/submit/shorten", self._shorten, "TA"),
            ("POST", "/task/list-by-condition", self._list_by_condition, "TA NZ"),
            ("POST", "/task/list-by-ids", self._list_by_condition, "TA"),
            ("POST", "/task/{id}/cancel", self._cancel, "TA"),
            ("GET", "/task/list", self._list, "TA NZ"),
            ("GET", "/task/queue", self._queue, "NZ"),
            ("GET", "/task/{id}/fetch", self._fetch, "TA NZ"),
            ("GET", "/task/{id}/image-seed", self._image_seed, "TA"),
        )
        for prefix in ("", *(f"/mj-{speed}" for speed in _SPEEDS)):
            for method, path, work, dialects in calls:
                spoken = "TA" if prefix else dialects  # NZ has no prefixes
                yield web.route(method, f"{prefix}/mj{path}", self._guarded(work, spoken))
        yield web.get("/health", self._health)
        yield web.get("/files/{token}/{name}", self.media.fetch)

    def made(self, prompt: str) -> list[MidjourneyTask]:
        """What was accepted for this prompt, whatever flags a client has put behind it."""
        return [
            task
            for task in list(self.generations.values())
            if task.prompt == prompt or task.prompt.startswith(f"{prompt} --")
        ]

    def forget(self) -> None:
        """Lose all tasks, as NZ does when it is started again with its tasks in memory (section 5)."""
        self._known.clear()

    # ------------------------------------------------------------ doors

    def _guarded(self, work: Work, dialects: str) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            if self.dialect not in dialects:
                return web.Response(status=404)
            if refusal := self._stranger(request):
                return refusal
            try:
                body = json.loads(await request.read() or b"{}")
            except ValueError:
                return web.Response(status=400)
            return work(request, body) if isinstance(body, dict) else web.Response(status=400)

        return answer

    def _stranger(self, request: web.Request) -> web.Response | None:
        """The answer to a wrong secret (section 1)."""
        given = request.headers.get("mj-api-secret")
        if self.dialect == "NZ":
            right = not self.account.key or given == self.account.key
            return None if right else web.Response(status=401)
        given = request.headers.get("Authorization") or given
        if self.account.key and not given:
            return web.Response(status=401, text="未登录")
        return None if given == self.account.key or not self.account.key else web.Response(status=403)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="OK") if self.dialect == "TA" else web.Response(status=404)

    # ------------------------------------------------------------ submits

    def _imagine(self, request: web.Request, body: Body) -> web.Response:
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            return _said(4, "prompt不能为空")
        pictures = body.get("base64Array") or [picture for picture in [body.get("base64")] if picture]
        if not _are_pictures(pictures):
            return _said(4, "base64格式错误")
        return self._submit(request, body, prompt=prompt, action="IMAGINE")

    def _blend(self, request: web.Request, body: Body) -> web.Response:
        pictures = body.get("base64Array")
        if not isinstance(pictures, list) or not 2 <= len(pictures) <= 5:
            return _said(4, "base64List参数错误")
        if not _are_pictures(pictures):
            return _said(4, "base64格式错误")
        if body.get("dimensions") not in (None, *_DIMENSIONS):
            return _said(4, "dimensions参数错误")
        return self._submit(request, body, prompt="", action="BLEND")

    def _describe(self, request: web.Request, body: Body) -> web.Response:
        picture, link = body.get("base64"), body.get("link") if self.dialect == "TA" else None
        if not picture and not link:
            return _said(4, "base64不能为空")
        if picture and not _are_pictures([picture]):
            return _said(4, "base64格式错误")
        if link and not (isinstance(link, str) and is_address(link)):
            return _said(4, "link格式错误")
        return self._submit(request, body, prompt="", action="DESCRIBE", kind="prompts")

    def _shorten(self, request: web.Request, body: Body) -> web.Response:
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            return _said(4, "prompt不能为空")
        return self._submit(request, body, prompt=prompt, action="SHORTEN", kind="prompts")

    def _change(self, request: web.Request, body: Body) -> web.Response:
        """Press a button by number; what must hold is looked at in NZ's order (section 3)."""
        action, index = str(body.get("action")), body.get("index")
        if action not in ("UPSCALE", "VARIATION", "REROLL"):
            return _said(4, "action参数错误")
        if action != "REROLL" and index not in (1, 2, 3, 4):
            return _said(4, "index参数错误")
        parent = self._known.get(str(body.get("taskId")))
        if parent is None:
            return _said(3, "关联任务不存在或已失效")
        if parent.status != "SUCCESS":
            return _said(4, "关联任务状态错误")
        if parent.action not in _CHANGEABLE:
            return _said(4, "关联任务不允许执行变化")
        if action == "UPSCALE":
            source = parent.picture(int(index or 1))
            if self.account.repeats and (first := self._upscaled(source)):
                told = {"status": first.status, "imageUrl": self._told(first)["imageUrl"]}
                return _said(21, "任务已存在", first.id, told)
            return self._follow(request, body, parent, Press("UPSCALE", "single"), source)
        return self._follow(request, body, parent, Press(action, "grid"))

    def _simple_change(self, request: web.Request, body: Body) -> web.Response:
        found = _CHANGE.fullmatch(str(body.get("content")))
        if found is None:
            return _said(4, "content参数错误")
        action = {"U": "UPSCALE", "V": "VARIATION", None: "REROLL"}[found[2]]
        index = int(found[3]) if found[3] else None
        return self._change(request, {**body, "taskId": found[1], "action": action, "index": index})

    def _action(self, request: web.Request, body: Body) -> web.Response:
        parent = self._known.get(str(body.get("taskId")))
        if parent is None:
            return _said(3, "关联任务不存在或已失效", status=404)  # the only refusal that is no 200
        if parent.status != "SUCCESS":
            return _said(4, "关联任务状态错误")
        custom_id = str(body.get("customId"))
        pressed = press(parent, custom_id)
        if pressed is None:
            return _said(4, "customId无效")
        number = next((int(part) for part in custom_id.split("::") if part in ("1", "2", "3", "4")), 1)
        source = parent.picture(number) if pressed.action == "UPSCALE" else None
        remix = pressed.may_remix and (self.account.remix or body.get("enableRemix") is True)
        return self._follow(request, body, parent, pressed, source, remix=remix)

    def _follow(
        self,
        request: web.Request,
        body: Body,
        parent: MidjourneyTask,
        pressed: Press,
        source: str | None = None,
        *,
        remix: bool = False,
    ) -> web.Response:
        """A new task out of a finished one."""
        return self._submit(
            request,
            body,
            prompt=parent.prompt,
            action=pressed.action,
            kind=pressed.kind,
            parent=parent.id,
            source=source,
            window=pressed.window or remix,
            needs_mask=pressed.needs_mask,
            remix=remix,
            instant=self.account.is_partner and pressed.action == "UPSCALE",
        )

    def _submit(self, request: web.Request, body: Body, *, prompt: str, **fields: Any) -> web.Response:
        task = MidjourneyTask(
            id=self._new_id(),
            prompt=prompt,
            pace=self.pace,
            reference=body.get("state"),
            body=body,
            dialect=self.dialect,
            mode=_mode(request, body, prompt),
            bot=body.get("botType") or "MID_JOURNEY",
            hook=body.get("notifyHook") or self.notify_hook,
            **fields,
        )
        if refusal := self._unacceptable(task):
            return refusal
        if task.window:
            return self._ask_back(task)
        if refusal := self._enqueue(task):
            return refusal
        self._keep(task)
        self._call_hook_of(task)
        return self._accepted(task)

    def _modal(self, request: web.Request, body: Body) -> web.Response:
        """The answer to a window: only now the task is drawn."""
        task = self._known.get(str(body.get("taskId")))
        if task is None:
            return _said(3, "关联任务不存在或已失效", status=404)
        if task.status != "MODAL":
            return _said(4, "任务状态错误")
        if not task.window:  # answered before, and waiting: TA queues it once more, and draws it once
            return self._accepted(task)
        mask = body.get("maskBase64")
        picture = from_data_url(mask) if isinstance(mask, str) else None
        if (task.needs_mask or mask) and (picture is None or picture.kind != "png"):
            return _said(4, "maskBase64参数错误")
        if refusal := self._enqueue(task):
            return refusal
        if isinstance(body.get("prompt"), str) and body["prompt"].strip():
            task.prompt = body["prompt"]
        task.body = {**task.body, **body}
        task.window, task.answered, task.made_at = False, True, time.time()
        self._call_hook_of(task)
        return self._accepted(task)

    # ------------------------------------------------------------ what becomes of a submit

    def _unacceptable(self, task: MidjourneyTask) -> web.Response | None:
        """Everything that is looked at whatever is submitted."""
        for name, longest in _LONGEST.items():
            value = task.body.get(name)
            if not isinstance(value, str | None) or (self.dialect == "TA" and len(value or "") > longest):
                return _said(4, f"{name}参数错误")
        if self.dialect == "TA" and task.bot not in _BOTS:
            return _said(4, "botType参数错误")
        if not self.account.is_alive:
            return _said(3, "无可用的账号实例")
        if self.dialect == "NZ" and (banned := self._banned(task)):
            return _said(24, "可能包含敏感词", None, {"promptEn": task.prompt, "bannedWord": banned})
        if self.dialect == "TA" and self.account.balance < 1:
            return _said(4, "用户今日绘图次数已达上限")
        return None

    def _banned(self, task: MidjourneyTask) -> str:
        words = re.findall(r"\w+", task.prompt.lower())
        found = next((word for word in self.banned_words if word in words), "")
        return found or ("moderate-input" if task.wants("moderate-input") else "")

    def _enqueue(self, task: MidjourneyTask) -> web.Response | None:
        """Give the task its place; the answer where there is none (section 4)."""
        account = self.account
        ends = self._ends()
        waiting = len(ends) - account.at_once
        if task.wants("full") or waiting >= account.queue:
            return _said(23 if self.dialect == "NZ" else 9, "队列已满，请稍后尝试", None, _INSTANCE)
        if self.dialect == "TA" and account.user_at_once is not None and len(ends) >= account.user_at_once:
            return _said(4, "并发数已达上限")
        task.held_s = max(0.0, ends[waiting] - time.time()) if waiting >= 0 else 0.0
        account.balance -= 1
        self._under_way.append(task)
        return None

    def _ends(self) -> list[float]:
        """When what is under way will be over, as far as anybody has to wait for it."""
        limit = min(self.account.at_once, self.account.user_at_once or self.account.at_once)
        if len(self._under_way) < limit:
            return []
        self._under_way = [other for other in self._under_way if other.occupies]
        return sorted(other.done_at for other in self._under_way)

    def _accepted(self, task: MidjourneyTask) -> web.Response:
        before = len(self._under_way) - self.account.at_once
        if before > 0:
            description = f"排队中，前面还有{before}个任务"
            return _said(22, description, task.id, {"numberOfQueues": before, **_INSTANCE})
        return _said(1, "提交成功", task.id, _INSTANCE)

    def _ask_back(self, task: MidjourneyTask) -> web.Response:
        self._keep(task)
        if task.hook:
            self.spawn(self._call_hook(task, self._told(task)))
        told = {"finalPrompt": task.final_prompt, "remix": task.remix}
        return _said(21, "Waiting for window confirm", task.id, told)

    def _keep(self, task: MidjourneyTask) -> None:
        self.generations[task.id] = self._known[task.id] = task

    def _new_id(self) -> str:
        """16 digits: milliseconds and three by chance (section 5)."""
        while True:
            made = f"{int(1000 * time.time())}{random.randrange(1000):03}"
            if made not in self.generations:
                return made

    def _upscaled(self, source: str) -> MidjourneyTask | None:
        return next((task for task in self._known.values() if task.source == source), None)

    # ------------------------------------------------------------ looks

    def _fetch(self, request: web.Request, body: Body) -> web.Response:
        task = self._known.get(request.match_info["id"])
        return json_answer(self._told(task)) if task else web.Response()

    def _list_by_condition(self, request: web.Request, body: Body) -> web.Response:
        wanted = {str(known) for known in body.get("ids") or ()}
        return json_answer([self._told(self._known[known]) for known in wanted if known in self._known])

    def _list(self, request: web.Request, body: Body) -> web.Response:
        shown = islice(reversed(self._known.values()), LISTED if self.dialect == "TA" else None)
        return json_answer([self._told(task) for task in shown])

    def _queue(self, request: web.Request, body: Body) -> web.Response:
        return json_answer([self._told(task) for task in self._known.values() if task.status == "NOT_START"])

    def _image_seed(self, request: web.Request, body: Body) -> web.Response:
        """The real one makes the caller wait for Discord's answer, up to a minute."""
        task = self._known.get(request.match_info["id"])
        if task is None:
            return _said(3, "关联任务不存在或已失效", status=404)
        if task.status != "SUCCESS" or task.kind not in ("grid", "single"):
            return _said(4, "任务状态错误")
        task.seed_is_known = True
        return _said(1, "成功", task.seed)

    def _cancel(self, request: web.Request, body: Body) -> web.Response:
        task = self._known.get(request.match_info["id"])
        if not self.account.is_admin:
            return web.Response(status=400, text="无权限")
        if task is not None and task.status not in ("SUCCESS", "FAILURE"):
            task.canceled = True
            if task.hook:
                self.spawn(self._call_hook(task, self._told(task)))
        return web.Response()

    def _told(self, task: MidjourneyTask) -> dict[str, Any]:
        """The task object with the addresses of what there is to see."""
        told = task.told()
        if told["status"] == "SUCCESS":
            told |= self._result(task)
        elif told["status"] == "IN_PROGRESS" and task.preview_step and task.kind != "prompts":
            told["imageUrl"] = self._preview(task, task.preview_step)
        return told

    def _preview(self, task: MidjourneyTask, step: int) -> str:
        if step not in task.previews:
            make = partial(webp, f"{task.id} {step}%", _PREVIEW_SIDE, _PREVIEW_SIDE)
            task.previews[step] = self.media.publish("partial.webp", "image/webp", make)
        return task.previews[step]

    def _result(self, task: MidjourneyTask) -> dict[str, Any]:
        if task.kind == "prompts":
            return {}
        if task.results is None:
            task.results = [self._publish(task, *made) for made in _makes(task)]
            if task.kind == "grid" and task.dialect == "TA":
                task.singles = [
                    self._publish(task, f"0_{number}.png", partial(png, task.picture(number + 1), *task.cell))
                    for number in range(4)
                ]
        told: dict[str, Any] = {"imageUrl": task.results[0]}
        if task.dialect == "TA":
            told["imageUrls"] = [{"url": url, "thumbnail": url} for url in task.singles or task.results]
        if task.kind == "video":
            told = {"videoUrl": task.results[0], "imageUrl": None}
            told["videoUrls"] = [{"url": url, "thumbnail": None} for url in task.results]
        return told

    def _publish(self, task: MidjourneyTask, name: str, make: Callable[[], bytes]) -> str:
        """Where Discord has it; or this server itself, if it keeps what comes from there (section 10)."""
        life_s = -1.0 if task.wants("expire") else task.done_at + LINK_LIFE_S - time.time()
        content_type = "video/mp4" if name.endswith(".mp4") else "image/png"
        url = self.media.publish(name, content_type, make, lives_s=life_s, truncated=task.wants("truncate"))
        return url.replace(self.media.url, self.url) if self.keeps_results else url

    # ------------------------------------------------------------ notifyHook (section 8)

    def _call_hook_of(self, task: MidjourneyTask) -> None:
        if task.hook:
            self.spawn(self._follow_with_hook(task))

    async def _follow_with_hook(self, task: MidjourneyTask) -> None:
        """Tell of every change. NZ tells each of them twice; nothing is tried again."""
        told, sent = -1, ""
        while sent not in ("SUCCESS", "FAILURE") and not task.canceled:
            if (rank := task.rank) > told:
                body = self._told(task)
                told, sent = rank, body["status"]
                for _ in range(2 if self.dialect == "NZ" else 1):
                    await self._call_hook(task, body)
                continue
            now = time.time()
            await self.pause(min((then - now for then in task.moments if then > now), default=_SOON_S))

    async def _call_hook(self, task: MidjourneyTask, body: Body) -> None:
        task.hooked += 1
        await self.call_back(task.hook, json.dumps(body, ensure_ascii=False).encode())


_INSTANCE = {"discordInstanceId": "1118"}


def _said(
    code: int, description: str, result: Any = None, properties: Body | None = None, *, status: int = 200
) -> web.Response:
    """The answer to a submit: HTTP 200 even for a refusal (section 4)."""
    return json_answer(
        {"code": code, "description": description, "result": result, "properties": properties or {}}, status
    )


def _are_pictures(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(item, str) and from_data_url(item) for item in values)


def _mode(request: web.Request, body: Body, prompt: str) -> str:
    """The path wins over the account filter, the filter over the prompt's flags (section 1)."""
    forced = next((speed for speed in _SPEEDS if request.path.startswith(f"/mj-{speed}/")), None)
    if forced:
        return forced.upper()
    modes = (body.get("accountFilter") or {}).get("modes") or []
    return str(modes[0]) if modes else mode_of(prompt) or "FAST"


def _makes(task: MidjourneyTask) -> Iterable[tuple[str, Callable[[], bytes]]]:
    """The files of a result and how each is made."""
    kind: Kind = task.kind
    if kind == "grid":
        sources = tuple(task.picture(number) for number in range(1, 5))
        yield "final.png", partial(grid, sources, *task.cell)
    elif kind == "single":
        yield "final.png", partial(png, task.picture(), *task.cell)
    else:
        films = 1 if task.action == "VIDEO_UPSCALE" else 4
        yield from (
            (f"{n}.mp4", partial(mp4, f"{task.prompt} {task.id} {n}", _VIDEO_S)) for n in range(films)
        )
