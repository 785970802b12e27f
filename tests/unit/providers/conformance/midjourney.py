"""Midjourney: fact sheet midjourney_proxy.md, sections 4 to 6."""

from __future__ import annotations

from typing import Any

from common.providers.base import NoVerdict, Running, Succeeded
from tests.unit.providers.conformance.vocabulary import (
    BALANCE,
    BUSY,
    CREDENTIALS,
    DOWN,
    FAILED_AGAIN,
    FAILED_BROKE,
    FAILED_BUSY,
    FAILED_FOR_GOOD,
    FAILED_INVALID,
    FAILED_MODERATED,
    FAILED_UNSERVED,
    GONE,
    INVALID,
    MODERATED,
    NOTHING,
    REFUSED,
    RUNNING,
    UNKNOWN,
    accepted,
    trouble,
)
from tests.unit.providers.fakes import reply


def mj(code: int, description: str = "", result: Any = None, **properties: Any) -> dict[str, Any]:
    return {"code": code, "description": description, "result": result, "properties": properties}


IMAGINE, ACTION = ("midjourney", "midjourney/imagine"), ("midjourney", "midjourney/action")
SUBMITS = [
    (IMAGINE, reply(200, mj(1, "提交成功", "1760000000000123")), accepted("1760000000000123")),
    (IMAGINE, reply(200, mj(1, "提交成功", 1760000000000123)), accepted("1760000000000123")),
    (IMAGINE, reply(200, mj(22, "排队中", "124", numberOfQueues=2)), accepted("124")),
    (IMAGINE, reply(200, mj(1)), UNKNOWN),  # accepted, but without an id: to be found by `state`
    (
        ACTION,
        reply(200, mj(21, "已存在", "99", status="SUCCESS", imageUrl="https://x/1.png")),
        accepted("99"),
    ),
    (IMAGINE, reply(200, mj(23, "队列已满，请稍后尝试")), trouble(BUSY)),
    (IMAGINE, reply(200, mj(24, "可能包含敏感词", promptEn="nude body", bannedWord="nude")), MODERATED),
    (IMAGINE, reply(200, mj(3, "无可用的账号实例")), trouble(DOWN)),
    (ACTION, reply(200, mj(3, "无可用的账号实例")), trouble(DOWN)),
    (ACTION, reply(200, mj(3, "关联任务不存在或已失效")), REFUSED),
    (ACTION, reply(404, mj(3, "关联任务不存在或已失效")), REFUSED),
    (IMAGINE, reply(200, mj(4, "prompt不能为空")), INVALID),
    (ACTION, reply(200, mj(4, "关联任务状态错误")), INVALID),
    (IMAGINE, reply(200, mj(4, "并发数已达上限")), trouble(BUSY)),
    (IMAGINE, reply(200, mj(4, "队列数已达上限")), trouble(BUSY)),
    (IMAGINE, reply(200, mj(4, "用户今日绘图次数已达上限")), trouble(BALANCE)),
    (IMAGINE, reply(200, mj(4, "总绘图次数已用完")), trouble(BALANCE)),
    (IMAGINE, reply(200, mj(9, "提交失败，系统异常")), trouble(DOWN)),
    (IMAGINE, reply(200, mj(9, "队列已满")), trouble(BUSY)),
    (IMAGINE, reply(200, mj(77, "?")), UNKNOWN),
    (IMAGINE, reply(401), trouble(CREDENTIALS)),
    (IMAGINE, reply(403, b"disabled account"), trouble(CREDENTIALS)),
    (IMAGINE, reply(403, "请求过于频繁".encode()), trouble(BUSY)),
    (IMAGINE, reply(429, b"Too many requests", retry_after="7"), trouble(BUSY, retry_after_s=7.0)),
    (IMAGINE, reply(500, {"message": "操作失败"}), UNKNOWN),
    (IMAGINE, reply(500, mj(1, "提交成功", "1")), UNKNOWN),
    (IMAGINE, reply(404, b"<html>nginx</html>"), trouble(DOWN)),
]


def task(status: Any, **fields: Any) -> list[Any]:
    return [{"id": "ref-1", "action": "IMAGINE", "status": status, "progress": "0%", **fields}]


PNG = "https://cdn.discordapp.com/final.png"
POLLS = [
    (IMAGINE, reply(200, task("NOT_START")), RUNNING),
    (IMAGINE, reply(200, task("SUBMITTED", progress="Waiting to start")), (Running, {"progress": None})),
    (IMAGINE, reply(200, task("IN_PROGRESS", progress="46%", imageUrl="https://x/p.webp")),
     (Running, {"progress": 46, "preview_url": "https://x/p.webp"})),
    (IMAGINE, reply(200, task("IN_PROGRESS", progress="100%")), (Running, {"progress": 99})),
    (IMAGINE, reply(200, task("IN_PROGRESS", progress="")), (Running, {"progress": None, "preview_url": None})),
    (IMAGINE, reply(200, task("MODAL")), RUNNING),
    (IMAGINE, reply(200, task("SUCCESS", imageUrl=PNG)), (Succeeded, {})),
    (IMAGINE, reply(200, task("SUCCESS", imageUrl=None)), NOTHING),
    (IMAGINE, reply(200, task("FAILURE", failReason="[Banned prompt detected] x")), FAILED_MODERATED),
    (IMAGINE, reply(200, task("FAILURE", failReason="Image denied")), FAILED_MODERATED),
    (IMAGINE, reply(200, task("FAILURE", failReason="包含敏感词")), FAILED_MODERATED),
    (IMAGINE, reply(200, task("FAILURE", failReason="[Invalid parameter] --v 99")), FAILED_INVALID),
    (IMAGINE, reply(200, task("FAILURE", failReason="任务超时")), FAILED_AGAIN),
    (IMAGINE, reply(200, task("FAILURE", failReason="[Internal Server Error] x")), FAILED_AGAIN),
    (IMAGINE, reply(200, task("FAILURE", failReason="Failed to process your command")), FAILED_AGAIN),
    (IMAGINE, reply(200, task("FAILURE", failReason="取消任务")), FAILED_FOR_GOOD),
    # Quota and account texts (section 6), in the words of section 4.
    (IMAGINE, reply(200, task("FAILURE", failReason="用户今日绘图次数已达上限")), FAILED_BROKE),
    (IMAGINE, reply(200, task("FAILURE", failReason="总绘图次数已用完")), FAILED_BROKE),
    (IMAGINE, reply(200, task("FAILURE", failReason="并发数已达上限")), FAILED_BUSY),
    (IMAGINE, reply(200, task("FAILURE", failReason="队列已满，请稍后尝试")), FAILED_BUSY),
    (IMAGINE, reply(200, task("FAILURE", failReason="无可用的账号实例")), FAILED_UNSERVED),
    (IMAGINE, reply(200, task("FAILURE", failReason="Account disabled")), FAILED_UNSERVED),
    (IMAGINE, reply(200, task("FAILURE", failReason=None)), FAILED_AGAIN),
    (IMAGINE, reply(200, task("CANCEL")), FAILED_FOR_GOOD),
    (IMAGINE, reply(200, task("SOMETHING_NEW")), NOTHING),
    (IMAGINE, reply(200, task(None)), NOTHING),
    (IMAGINE, reply(200, []), GONE),  # unknown ids are left out
    (IMAGINE, reply(200), NOTHING),
    (IMAGINE, reply(401), NOTHING),
    (IMAGINE, reply(429, retry_after="9"), (NoVerdict, {"gone": False, "retry_after_s": 9.0})),
    (IMAGINE, reply(500, {"message": "操作失败"}), NOTHING),
]  # fmt: skip
