"""What every documented answer means: one row per status word and error code of the fact sheets."""

from __future__ import annotations

from typing import Any

import pytest

from common.providers.base import (
    Accepted,
    Failed,
    NotAccepted,
    NoVerdict,
    Rejected,
    Reply,
    Running,
    Succeeded,
    Trouble,
    Unknown,
)
from tests.unit.providers.fakes import like, poll, reply, submit

BUSY, DOWN, CREDENTIALS, BALANCE = Trouble.BUSY, Trouble.DOWN, Trouble.CREDENTIALS, Trouble.BALANCE
INVALID = (Rejected, {"code": "invalid_input"})
MODERATED = (Rejected, {"code": "content_moderated"})
REFUSED = (Rejected, {"code": "provider_rejected"})
UNKNOWN: tuple[type, dict[str, Any]] = (Unknown, {})
NOTHING: tuple[type, dict[str, Any]] = (NoVerdict, {"gone": False})
GONE: tuple[type, dict[str, Any]] = (NoVerdict, {"gone": True})
RUNNING: tuple[type, dict[str, Any]] = (Running, {})
FAILED_MODERATED = (Failed, {"code": "content_moderated", "retryable": False})
FAILED_MODERATED_AGAIN = (Failed, {"code": "content_moderated", "retryable": True})
FAILED_INVALID = (Failed, {"code": "invalid_input", "retryable": False})
FAILED_AGAIN = (Failed, {"code": "provider_failed", "retryable": True})
FAILED_FOR_GOOD = (Failed, {"code": "provider_failed", "retryable": False})


def trouble(kind: Trouble, **fields: Any) -> tuple[type, dict[str, Any]]:
    return NotAccepted, {"trouble": kind, **fields}


def accepted(ref: str, **fields: Any) -> tuple[type, dict[str, Any]]:
    return Accepted, {"provider_ref": ref, **fields}


# ---------------------------------------------------------------- submit


def mj(code: int, description: str = "", result: Any = None, **properties: Any) -> dict[str, Any]:
    return {"code": code, "description": description, "result": result, "properties": properties}


IMAGINE, ACTION = ("midjourney", "midjourney/imagine"), ("midjourney", "midjourney/action")
MIDJOURNEY_SUBMITS = [
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


def kling(code: int, message: str = "text", **data: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "r-1", **({"data": data} if data else {})}


T2V, KLING_IMAGE = ("kling", "kling/text-to-video"), ("kling", "kling/image")
KLING_SUBMITS = [
    (T2V, reply(200, kling(0, task_id="87000001", task_status="submitted")), accepted("87000001")),
    (KLING_IMAGE, reply(200, kling(0, task_id="870", task_status="submitted")), accepted("870")),
    (T2V, reply(200, kling(0, id="98000001", status="submitted")), accepted("98000001")),
    (T2V, reply(200, kling(0)), UNKNOWN),
    *((T2V, reply(401, kling(code)), trouble(CREDENTIALS)) for code in (1000, 1001, 1002, 1003, 1004)),
    (T2V, reply(429, kling(1100)), trouble(CREDENTIALS)),
    (T2V, reply(429, kling(1101)), trouble(BALANCE)),
    (T2V, reply(429, kling(1102, "Account balance not enough")), trouble(BALANCE)),
    (T2V, reply(403, kling(1103)), trouble(CREDENTIALS)),
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
]


def jimeng(code: int, data: Any = None, message: str = "text") -> dict[str, Any]:
    return {"code": code, "data": data, "message": message, "request_id": "r", "status": code}


def gateway(number: int, code: str = "SomeCode") -> dict[str, Any]:
    return {"ResponseMetadata": {"RequestId": "r", "Error": {"CodeN": number, "Code": code, "Message": "…"}}}


T2I, JIMENG_VIDEO = ("jimeng", "jimeng/text-to-image"), ("jimeng", "jimeng/text-to-video")
JIMENG_SUBMITS = [
    (T2I, reply(200, jimeng(10000, {"task_id": "739"})), accepted("739", memo={"req_key": "jimeng_t2i_v40"})),
    (
        JIMENG_VIDEO,
        reply(200, jimeng(10000, {"task_id": "740"})),
        accepted("740", memo={"req_key": "jimeng_t2v_v30"}),
    ),
    (T2I, reply(200, jimeng(10000)), UNKNOWN),
    *((T2I, reply(400, jimeng(code)), MODERATED) for code in (50411, 50412, 50413, 50511, 50512)),
    *((T2I, reply(400, jimeng(code)), MODERATED) for code in (50516, 50517, 50518, 50519)),
    # Whatever is not 10000 has started nothing (section A3), also what is internal there.
    *((T2I, reply(400, jimeng(code)), trouble(DOWN)) for code in (50520, 50521, 50522)),
    *((T2I, reply(500, jimeng(code)), trouble(DOWN)) for code in (50500, 50501)),
    (T2I, reply(429, jimeng(50429)), trouble(BUSY, retry_after_s=2.0)),
    (T2I, reply(429, jimeng(50430), retry_after="5"), trouble(BUSY, retry_after_s=5.0)),
    (T2I, reply(400, jimeng(50215)), INVALID),
    (T2I, reply(401, jimeng(50400, message="Access Denied: Internal Error")), trouble(CREDENTIALS)),
    (T2I, reply(401, jimeng(50400, message="account is in arrears")), trouble(BALANCE)),
    (T2I, reply(200, jimeng(51234)), REFUSED),
    (T2I, reply(400, gateway(100002, "MissingParameter")), REFUSED),
    (T2I, reply(404, gateway(100007, "ServiceNotFound")), REFUSED),
    (T2I, reply(401, gateway(100009, "InvalidAccessKey")), trouble(CREDENTIALS)),
    (T2I, reply(403, gateway(100010, "SignatureDoesNotMatch")), trouble(CREDENTIALS)),
    (T2I, reply(403, gateway(100013, "AccessDenied")), trouble(CREDENTIALS)),
    (T2I, reply(502, gateway(100016)), UNKNOWN),
    (T2I, reply(500, b"oops"), UNKNOWN),
]

PRO, ULTRA = ("bfl", "flux/pro-1.1"), ("bfl", "flux/pro-1.1-ultra")
POLLING = "https://api.eu1.bfl.ai/v1/get_result?id=0b3f"
BFL_SUBMITS = [
    (PRO, reply(200, {"id": "0b3f", "polling_url": POLLING, "cost": 3.0}),
     accepted("0b3f", cost="3", memo={"polling_url": POLLING})),
    (PRO, reply(200, {"id": "0b3f", "status": "Pending", "webhook_url": "https://x", "cost": None}),
     accepted("0b3f", cost=None, memo={})),
    (PRO, reply(200, {"polling_url": POLLING}), UNKNOWN),
    (PRO, reply(400, {"detail": "bad image"}), INVALID),
    (PRO, reply(401, {"detail": "Not authenticated"}), trouble(CREDENTIALS)),
    (PRO, reply(403, {"detail": "Not authenticated"}), trouble(CREDENTIALS)),
    (PRO, reply(402, {"detail": "Insufficient credits"}), trouble(BALANCE)),
    (PRO, reply(422, {"detail": [{"loc": ["body", "width"], "msg": "too small", "type": "x"}]}),
     (Rejected, {"code": "invalid_input", "message": "width: too small"})),
    (PRO, reply(422, {"detail": "a string"}), (Rejected, {"code": "invalid_input", "message": "a string"})),
    (PRO, reply(422, {"detail": "Request Moderated"}), MODERATED),
    (PRO, reply(429, {"detail": "Too many active tasks"}), trouble(BUSY, retry_after_s=1.0)),
    (PRO, reply(429, b"", retry_after="4"), trouble(BUSY, retry_after_s=4.0)),
    (PRO, reply(500, {"detail": "x"}), UNKNOWN),
    (PRO, reply(503), UNKNOWN),
    (ULTRA, reply(404, {"detail": "Not Found"}), trouble(DOWN)),
]  # fmt: skip

FAL = "https://queue.fal.run/fal-ai/flux/requests/80e7"
DEV = ("fal", "flux/dev")


def typed(kind: str, field: str = "prompt") -> dict[str, Any]:
    return {"detail": [{"loc": ["body", field], "msg": "some text", "type": kind}]}


FAL_SUBMITS = [
    (DEV, reply(200, {"status": "IN_QUEUE", "request_id": "80e7", "response_url": FAL,
                      "status_url": f"{FAL}/status", "cancel_url": f"{FAL}/cancel"}),
     accepted("80e7", memo={"response_url": FAL, "status_url": f"{FAL}/status", "cancel_url": f"{FAL}/cancel"})),
    (DEV, reply(200, {"status": "IN_QUEUE"}), UNKNOWN),
    (DEV, reply(401, {"detail": "Cannot access application"}), trouble(CREDENTIALS)),
    (DEV, reply(403, {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai."}),
     trouble(BALANCE)),
    (DEV, reply(403, {"detail": "Reason: TOP_UP"}), trouble(BALANCE)),
    (DEV, reply(403, {"detail": "Forbidden"}), trouble(CREDENTIALS)),
    (DEV, reply(402, {"detail": "Payment required"}), trouble(BALANCE)),
    (DEV, reply(404, {"detail": "Application not found"}), REFUSED),
    (DEV, reply(400, {"detail": "bad", "error_type": "bad_request"}), INVALID),
    (DEV, reply(422, typed("missing")), INVALID),
    (DEV, reply(422, typed("content_policy_violation")), MODERATED),
    (DEV, reply(429, {"detail": "queue full"}, retry_after="3"), trouble(BUSY, retry_after_s=3.0)),
    (DEV, reply(499, {"detail": "x", "error_type": "client_disconnected"}), UNKNOWN),
    *((DEV, reply(status, {"detail": "x"}), UNKNOWN) for status in (500, 502, 503, 504)),
]  # fmt: skip

SUBMITS = [*MIDJOURNEY_SUBMITS, *KLING_SUBMITS, *JIMENG_SUBMITS, *BFL_SUBMITS, *FAL_SUBMITS]
Target = tuple[str, str]
Expected = tuple[type, dict[str, Any]]


def row_id(value: object) -> str | None:
    if isinstance(value, Reply):
        return f"{value.status} {value.body.decode()[:70]}"
    return value[0] if isinstance(value, tuple) and isinstance(value[0], str) else None


@pytest.mark.parametrize(("target", "answer", "expected"), SUBMITS, ids=row_id)
def test_what_an_answer_to_a_submit_means(target: Target, answer: Reply, expected: Expected) -> None:
    like(submit(*target, answer), expected[0], **expected[1])


# ---------------------------------------------------------------- poll


def task(status: Any, **fields: Any) -> list[Any]:
    return [{"id": "ref-1", "action": "IMAGINE", "status": status, "progress": "0%", **fields}]


PNG = "https://cdn.discordapp.com/final.png"
MIDJOURNEY_POLLS = [
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
    (IMAGINE, reply(200, task("FAILURE", failReason="取消任务")), FAILED_FOR_GOOD),
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

VIDEO = {"videos": [{"id": "v-1", "url": "https://cdn.example/v.mp4", "duration": "5.1"}]}


def legacy(status: Any, **fields: Any) -> Reply:
    return reply(200, kling(0, task_id="ref-1", task_status=status, **fields))


KLING_POLLS = [
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
    (T2V, reply(404, kling(1203)), GONE),
    (T2V, reply(404, b"not here"), GONE),
    (T2V, reply(429, kling(1302)), (NoVerdict, {"gone": False, "retry_after_s": 1.0})),
    (T2V, reply(429, kling(1303), retry_after="30"), (NoVerdict, {"gone": False, "retry_after_s": 30.0})),
    *((T2V, reply(401, kling(code)), NOTHING) for code in (1000, 1001, 1002, 1003, 1004)),
    *((T2V, reply(429, kling(code)), NOTHING) for code in (1100, 1101, 1102, 1304)),
    (T2V, reply(403, kling(1103)), NOTHING),
    *((T2V, reply(400, kling(code)), NOTHING) for code in (1200, 1201, 1300, 1301)),
    *((T2V, reply(500, kling(code)), NOTHING) for code in (5000, 5001, 5002)),
    (T2V, reply(200, kling(5000)), NOTHING),
]


def image(status: Any, code: int = 10000, http: int = 200, **fields: Any) -> Reply:
    return reply(
        http, jimeng(code, {"binary_data_base64": None, "image_urls": None, "status": status, **fields})
    )


JIMENG_POLLS = [
    (T2I, image("in_queue"), RUNNING),
    (T2I, image("generating"), RUNNING),
    (T2I, image("done", image_urls=["https://p9.byteimg.com/1.png"]), (Succeeded, {})),
    (T2I, image("done"), NOTHING),
    (T2I, image("not_found"), GONE),
    (T2I, image("expired"), GONE),
    (T2I, image("dreaming"), NOTHING),
    (JIMENG_VIDEO, image("done", video_url="https://v3.vlabvod.com/1.mp4"), (Succeeded, {})),
    (JIMENG_VIDEO, image("generating", video_url=""), RUNNING),
    *((T2I, reply(400, jimeng(code)), FAILED_MODERATED) for code in (50411, 50412, 50413, 50512, 50518)),
    *((T2I, reply(400, jimeng(code)), FAILED_MODERATED_AGAIN) for code in (50511, 50516, 50517, 50519)),
    *((T2I, reply(400, jimeng(code)), FAILED_AGAIN) for code in (50520, 50521, 50522)),
    *((T2I, reply(500, jimeng(code)), NOTHING) for code in (50500, 50501)),
    (T2I, image("done", code=50500, http=500), FAILED_AGAIN),  # done is success only with 10000
    (T2I, image("done", code=50511, http=400), FAILED_MODERATED_AGAIN),
    (T2I, reply(429, jimeng(50429)), (NoVerdict, {"gone": False, "retry_after_s": 2.0})),
    (T2I, reply(429, jimeng(50430), retry_after="8"), (NoVerdict, {"gone": False, "retry_after_s": 8.0})),
    (T2I, reply(400, jimeng(50215)), FAILED_INVALID),
    (T2I, reply(401, jimeng(50400)), NOTHING),
    (T2I, reply(403, gateway(100010, "SignatureDoesNotMatch")), NOTHING),
    (T2I, reply(200, jimeng(51234)), NOTHING),
]


def bfl(status: Any, http: int = 200, **fields: Any) -> Reply:
    return reply(
        http, {"id": "ref-1", "status": status, "result": None, "progress": None, "details": None, **fields}
    )


SAMPLE = {"sample": "https://delivery-eu1.bfl.ai/1.png?sig=1", "seed": 42}
BFL_POLLS = [
    (PRO, bfl("Pending"), (Running, {"progress": None})),
    (PRO, bfl("Pending", progress=0.4), (Running, {"progress": 40})),
    (PRO, bfl("Pending", progress=1.0), (Running, {"progress": 99})),
    (PRO, bfl("Reasoning"), RUNNING),
    (PRO, bfl("Generating"), RUNNING),
    (PRO, bfl("Ready", result=SAMPLE), (Succeeded, {})),
    (PRO, bfl("Ready"), NOTHING),
    (PRO, bfl("Request Moderated"), FAILED_MODERATED),
    (PRO, bfl("Content Moderated", details={"Moderation Reasons": ["Derivative Works Filter"]}),
     (Failed, {"code": "content_moderated", "message": "Derivative Works Filter"})),
    (PRO, bfl("Error", details={"error": "internal"}), (Failed, {"code": "provider_failed", "message": "internal"})),
    (PRO, bfl("Failed"), FAILED_AGAIN),
    (PRO, bfl("Task not found"), (NoVerdict, {"gone": True, "retry_after_s": 3.0})),
    (PRO, bfl("Task not found", http=404), GONE),
    (PRO, reply(404, {"detail": "Task not found"}), GONE),
    (PRO, bfl("Content Moderated", http=422), FAILED_MODERATED),  # the body is the verdict, whatever the status
    (PRO, bfl("Error", http=503), FAILED_AGAIN),
    (PRO, bfl("Thinking"), NOTHING),
    (PRO, reply(503), NOTHING),
    (PRO, reply(429, {"detail": "slow down"}, retry_after="2"), (NoVerdict, {"gone": False, "retry_after_s": 2.0})),
    (PRO, reply(403, {"detail": "Not authenticated"}), NOTHING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "answer", "expected"),
    [*MIDJOURNEY_POLLS, *KLING_POLLS, *JIMENG_POLLS, *BFL_POLLS],
    ids=row_id,
)
def test_what_an_answer_to_a_poll_means(target: Target, answer: Reply, expected: Expected) -> None:
    like(poll(*target, answer), expected[0], **expected[1])


def new(status: Any, **fields: Any) -> Reply:
    return reply(200, {"code": 0, "data": [{"id": "ref-1", "status": status, "message": "", **fields}]})


CLIP = {"type": "video", "id": "v-9", "url": "https://cdn.example/v.mp4", "duration": "5.1"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (new("submitted"), RUNNING),
        (new("processing"), RUNNING),
        (new("succeeded", outputs=[CLIP], billing=[{"amount": "3"}]), (Succeeded, {"cost": "3"})),
        (new("succeeded", outputs=[]), NOTHING),
        (new("failed", message="risk control rejected the prompt"), FAILED_MODERATED),
        (new("failed", message="broken"), FAILED_AGAIN),
        (new("napping"), NOTHING),
        (reply(200, {"code": 0, "data": []}), GONE),
        (reply(404, kling(1203)), GONE),
        (reply(200, kling(5000)), NOTHING),
        (reply(429, kling(1302)), (NoVerdict, {"gone": False, "retry_after_s": 1.0})),
        (reply(502, b"<html>"), NOTHING),
    ],
    ids=row_id,
)
def test_what_klings_new_api_says(answer: Reply, expected: Expected) -> None:
    like(poll("kling", "kling/text-to-video", answer, path="/tasks"), expected[0], **expected[1])


# ---------------------------------------------------------------- fal: a status, then the result

COMPLETED = reply(200, {"status": "COMPLETED", "request_id": "80e7", "metrics": {}})
PICTURE = {
    "url": "https://v3.fal.media/files/a.jpeg",
    "width": 1024,
    "height": 768,
    "content_type": "image/jpeg",
}


def broken(error_type: str) -> Reply:
    return reply(200, {"status": "COMPLETED", "error": "it broke", "error_type": error_type})


def platform(status: int, error_type: str) -> Reply:
    return reply(status, {"detail": "text", "error_type": error_type})


FAL_STATUSES = [
    ([reply(202, {"status": "IN_QUEUE", "queue_position": 2})], RUNNING),
    ([reply(202, {"status": "IN_PROGRESS", "logs": None})], RUNNING),
    ([reply(200, {"status": "FAILED"})], FAILED_AGAIN),
    ([reply(200, {"status": "CANCELED"})], FAILED_AGAIN),
    ([reply(200, {"status": "WHATEVER"})], NOTHING),
    ([reply(404, {"detail": "not found"})], GONE),
    ([reply(401, {"detail": "x"})], NOTHING),
    ([reply(429, {"detail": "x"}, retry_after="6")], (NoVerdict, {"gone": False, "retry_after_s": 6.0})),
    ([reply(503, {"detail": "x"})], NOTHING),
    ([reply(422, {"detail": "x"})], NOTHING),
    ([COMPLETED, reply(200, {"images": [PICTURE], "seed": 42, "has_nsfw_concepts": [False]})], (Succeeded, {})),
    ([COMPLETED, reply(200, {"images": [PICTURE], "seed": 42})], (Succeeded, {})),
    ([COMPLETED, reply(200, {"images": [PICTURE], "has_nsfw_concepts": [True]})], FAILED_MODERATED),
    ([COMPLETED, reply(200, {"images": []})], NOTHING),
    ([COMPLETED, reply(200, {"something": "else"})], NOTHING),
    ([COMPLETED, reply(422, typed("content_policy_violation"))], FAILED_MODERATED),
    *(([COMPLETED, reply(422, typed(kind))], FAILED_INVALID)
      for kind in ("missing", "value_error.missing", "image_too_small", "greater_than_equal", "one_of")),
    *(([COMPLETED, reply(422, typed(kind))], FAILED_AGAIN)
      for kind in ("no_media_generated", "downstream_service_error", "generation_timeout")),
    ([COMPLETED, reply(500, typed("internal_server_error"))], FAILED_AGAIN),
    ([COMPLETED, reply(504, typed("generation_timeout"))], FAILED_AGAIN),
    *(([COMPLETED, platform(504, kind)], FAILED_AGAIN) for kind in ("request_timeout", "startup_timeout")),
    *(([COMPLETED, platform(503, f"runner_{kind}")], FAILED_AGAIN)
      for kind in ("scheduling_failure", "connection_timeout", "disconnected", "connection_refused")),
    ([COMPLETED, platform(503, "runner_connection_error")], FAILED_AGAIN),
    ([COMPLETED, platform(502, "runner_incomplete_response")], FAILED_AGAIN),
    *(([COMPLETED, platform(500, kind)], FAILED_AGAIN) for kind in ("runner_server_error", "internal_error")),
    *(([COMPLETED, platform(499, kind)], FAILED_FOR_GOOD) for kind in ("client_cancelled", "client_disconnected")),
    ([COMPLETED, platform(400, "bad_request")], FAILED_INVALID),
    ([COMPLETED, reply(504, {"detail": "x"}, x_fal_error_type="request_timeout")], FAILED_AGAIN),
    ([COMPLETED, reply(400, {"detail": "Request is still in progress"})], NOTHING),
    ([COMPLETED, reply(404, {"detail": "gone"})], GONE),
    ([COMPLETED, reply(503, b"<html>nginx</html>")], NOTHING),
    ([COMPLETED, reply(422, b"<html>nginx</html>")], NOTHING),
    ([COMPLETED, reply(403, {"detail": "User is locked."})], NOTHING),
    ([COMPLETED, reply(429)], NOTHING),
    ([broken("request_timeout"), reply(404, {"detail": "gone"})], FAILED_AGAIN),
    ([broken("client_cancelled"), reply(404, {"detail": "gone"})], FAILED_FOR_GOOD),
    ([broken("request_timeout"), reply(200, {"images": [PICTURE]})], (Succeeded, {})),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "expected"), FAL_STATUSES)
def test_what_fal_says(answers: list[Reply], expected: Expected) -> None:
    like(poll("fal", "flux/dev", *answers), expected[0], **expected[1])
