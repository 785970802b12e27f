"""Kling: fact sheet kling.md, sections 4.5, 5.2 and 6."""

from __future__ import annotations

from typing import Any

from common.providers.base import NoVerdict, Reply, Succeeded
from common.providers.kling_models import PATHS
from tests.unit.providers.conformance.vocabulary import (
    BALANCE,
    BUSY,
    CREDENTIALS,
    FAILED_AGAIN,
    FAILED_MODERATED,
    GONE,
    INVALID,
    MODEL,
    MODERATED,
    NOTHING,
    RUNNING,
    UNKNOWN,
    accepted,
    trouble,
)
from tests.unit.providers.fakes import reply


def kling(code: int, message: str = "text", **data: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "r-1", **({"data": data} if data else {})}


T2V, KLING_IMAGE = ("kling", "kling/text-to-video"), ("kling", "kling/image")
SUBMITS = [
    (T2V, reply(200, kling(0, task_id="87000001", task_status="submitted")), accepted("87000001")),
    (KLING_IMAGE, reply(200, kling(0, task_id="870", task_status="submitted")), accepted("870")),
    (T2V, reply(200, kling(0, id="98000001", status="submitted")), accepted("98000001")),
    (T2V, reply(200, kling(0)), UNKNOWN),
    *((T2V, reply(401, kling(code)), trouble(CREDENTIALS, doubted=False)) for code in (1000, 1001, 1002)),
    *(
        (T2V, reply(401, kling(code)), trouble(CREDENTIALS, doubted=True)) for code in (1003, 1004)
    ),  # once more
    (T2V, reply(429, kling(1100)), trouble(CREDENTIALS)),
    (T2V, reply(429, kling(1101)), trouble(BALANCE)),
    (T2V, reply(429, kling(1102, "Account balance not enough")), trouble(BALANCE)),
    (T2V, reply(403, kling(1103)), trouble(MODEL)),  # one model or pack: the account may be well
    (T2V, reply(400, kling(1200)), INVALID),
    (T2V, reply(400, kling(1201)), INVALID),
    (T2V, reply(404, kling(1202)), INVALID),
    (T2V, reply(404, kling(1203)), INVALID),
    (T2V, reply(400, kling(1300)), MODERATED),
    (T2V, reply(400, kling(1301, "content safety policy")), MODERATED),
    (T2V, reply(429, kling(1302)), trouble(BUSY, retry_after_s=1.0)),
    (T2V, reply(429, kling(1303)), trouble(BUSY, retry_after_s=1.0)),
    (T2V, reply(429, kling(1304)), trouble(CREDENTIALS)),
    (T2V, reply(500, kling(5000)), UNKNOWN),
    (T2V, reply(503, kling(5001)), UNKNOWN),
    (T2V, reply(504, kling(5002)), UNKNOWN),
    (T2V, reply(200, kling(5000)), UNKNOWN),  # HTTP 200 with a code is possible (section 4.5)
    (T2V, reply(200, kling(1303)), trouble(BUSY)),
    (T2V, reply(200, kling(1301)), MODERATED),
    (T2V, reply(200, kling(4242)), UNKNOWN),
    (T2V, reply(400, kling(4242)), INVALID),
    (T2V, reply(503, kling(4242)), UNKNOWN),
    # The paths differ in what they take; their answers are the same.
    *((("kling", model), reply(200, kling(0, task_id="870")), accepted("870")) for model in PATHS),
    *((("kling", model), reply(400, kling(1301)), MODERATED) for model in PATHS),
    *((("kling", model), reply(429, kling(1303)), trouble(BUSY, retry_after_s=1.0)) for model in PATHS),
]


VIDEO = {"videos": [{"id": "v-1", "url": "https://cdn.example/v.mp4", "duration": "5.1"}]}


def legacy(status: Any, **fields: Any) -> Reply:
    return reply(200, kling(0, task_id="ref-1", task_status=status, **fields))


POLLS = [
    (T2V, legacy("submitted"), RUNNING),
    (T2V, legacy("processing"), RUNNING),
    (T2V, legacy("succeed", task_result=VIDEO, final_unit_deduction="3.5"), (Succeeded, {"cost": "3.5"})),
    (T2V, legacy("succeed", task_result={}), NOTHING),
    (T2V, legacy("failed", task_status_msg="content violates the platform policy"), FAILED_MODERATED),
    (T2V, legacy("failed", task_status_msg="风控拦截"), FAILED_MODERATED),
    (T2V, legacy("failed", task_status_msg="包含敏感内容"), FAILED_MODERATED),
    (T2V, legacy("failed", task_status_msg="risk control"), FAILED_MODERATED),
    (T2V, legacy("failed", task_status_msg="the model broke"), FAILED_AGAIN),
    (T2V, legacy("failed"), FAILED_AGAIN),
    (T2V, legacy("resting"), NOTHING),
    (T2V, reply(404, kling(1202)), GONE),
    (T2V, reply(404, kling(1203)), GONE),
    (T2V, reply(404, b"not here"), NOTHING),  # not in the envelope of section 4.5
    (T2V, reply(404, {"message": "no Route matched"}), NOTHING),
    (T2V, reply(429, kling(1302)), (NoVerdict, {"gone": False, "retry_after_s": 1.0})),
    (T2V, reply(429, kling(1303), retry_after="30"), (NoVerdict, {"gone": False, "retry_after_s": 30.0})),
    *((T2V, reply(401, kling(code)), NOTHING) for code in (1000, 1001, 1002, 1003, 1004)),
    *((T2V, reply(429, kling(code)), NOTHING) for code in (1100, 1101, 1102, 1304)),
    (T2V, reply(403, kling(1103)), NOTHING),
    *((T2V, reply(400, kling(code)), NOTHING) for code in (1200, 1201, 1300, 1301)),
    *((T2V, reply(500, kling(code)), NOTHING) for code in (5000, 5001, 5002)),
    (T2V, reply(200, kling(5000)), NOTHING),
    *(
        (("kling", model), legacy(status), RUNNING)
        for model in PATHS
        for status in ("submitted", "processing")
    ),
    *((("kling", model), legacy("failed", task_status_msg="risk"), FAILED_MODERATED) for model in PATHS),
]


def new(status: Any, **fields: Any) -> Reply:
    return reply(200, {"code": 0, "data": [{"id": "ref-1", "status": status, "message": "", **fields}]})


CLIP = {"type": "video", "id": "v-9", "url": "https://cdn.example/v.mp4", "duration": "5.1"}


NEW_POLLS = [
    (new("submitted"), RUNNING),
    (new("processing"), RUNNING),
    (new("succeeded", outputs=[CLIP], billing=[{"amount": "3"}]), (Succeeded, {"cost": "3"})),
    (new("succeeded", outputs=[]), NOTHING),
    (new("failed", message="risk control rejected the prompt"), FAILED_MODERATED),
    (new("failed", message="broken"), FAILED_AGAIN),
    (new("napping"), NOTHING),
    (reply(200, {"code": 0, "data": []}), GONE),
    (reply(404, kling(1203)), GONE),
    (reply(404, b"<html>nginx</html>"), NOTHING),
    (reply(200, kling(5000)), NOTHING),
    *((reply(401, kling(code)), NOTHING) for code in (1000, 1001, 1002, 1003, 1004)),
    *((reply(429, kling(code)), NOTHING) for code in (1100, 1101, 1102, 1304)),
    (reply(403, kling(1103)), NOTHING),
    *((reply(400, kling(code)), NOTHING) for code in (1200, 1201, 1300, 1301)),
    (reply(404, kling(1202)), GONE),
    *((reply(500, kling(code)), NOTHING) for code in (5000, 5001, 5002)),
    (reply(429, kling(1303)), (NoVerdict, {"gone": False, "retry_after_s": 1.0})),
    (reply(429, kling(1302)), (NoVerdict, {"gone": False, "retry_after_s": 1.0})),
    (reply(502, b"<html>"), NOTHING),
]
