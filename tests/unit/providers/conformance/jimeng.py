"""Jimeng: fact sheet jimeng.md, sections A3 to A5."""

from __future__ import annotations

from typing import Any

from common.providers.base import NoVerdict, Reply, Succeeded
from tests.unit.providers.conformance.vocabulary import (
    BALANCE,
    BROKEN_AGAIN,
    BROKEN_FILM,
    BROKEN_PICTURE,
    BUSY,
    CREDENTIALS,
    DOWN,
    FAILED_AGAIN,
    FAILED_INVALID,
    FAILED_MODERATED,
    FAILED_MODERATED_AGAIN,
    GONE,
    INVALID,
    MODERATED,
    MODERATED_AGAIN,
    NOTHING,
    REFUSED,
    RUNNING,
    UNKNOWN,
    accepted,
    trouble,
)
from tests.unit.providers.fakes import reply


def jimeng(code: int, data: Any = None, message: str = "text") -> dict[str, Any]:
    return {"code": code, "data": data, "message": message, "request_id": "r", "status": code}


def gateway(number: int, code: str = "SomeCode") -> dict[str, Any]:
    return {"ResponseMetadata": {"RequestId": "r", "Error": {"CodeN": number, "Code": code, "Message": "…"}}}


T2I, JIMENG_VIDEO = ("jimeng", "jimeng/text-to-image"), ("jimeng", "jimeng/text-to-video")
SUBMITS = [
    (T2I, reply(200, jimeng(10000, {"task_id": "739"})), accepted("739", memo={"req_key": "jimeng_t2i_v40"})),
    (
        JIMENG_VIDEO,
        reply(200, jimeng(10000, {"task_id": "740"})),
        accepted("740", memo={"req_key": "jimeng_t2v_v30"}),
    ),
    (T2I, reply(200, jimeng(10000)), UNKNOWN),
    *((T2I, reply(400, jimeng(code)), MODERATED) for code in (50411, 50412, 50413, 50512, 50518)),
    # What the output's check stops is chance (section A5), wherever it is told.
    *((T2I, reply(400, jimeng(code)), MODERATED_AGAIN) for code in (50511, 50516, 50517, 50519)),
    # Whatever is not 10000 has started nothing (section A3), also what is internal there. The checks' own errors: one
    # delayed retry is harmless (section A5).
    *((T2I, reply(400, jimeng(code)), BROKEN_AGAIN) for code in (50520, 50521, 50522)),
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


def image(status: Any, code: int = 10000, http: int = 200, **fields: Any) -> Reply:
    return reply(
        http, jimeng(code, {"binary_data_base64": None, "image_urls": None, "status": status, **fields})
    )


POLLS = [
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
    # Pictures: no retry; films: a bounded one (section A5).
    *((T2I, reply(500, jimeng(code)), BROKEN_PICTURE) for code in (50500, 50501)),
    *((JIMENG_VIDEO, reply(500, jimeng(code)), BROKEN_FILM) for code in (50500, 50501)),
    (T2I, image("done", code=50500, http=500), FAILED_AGAIN),  # done is success only with 10000
    (T2I, image("done", code=50511, http=400), FAILED_MODERATED_AGAIN),
    (T2I, reply(429, jimeng(50429)), (NoVerdict, {"gone": False, "retry_after_s": 2.0})),
    (T2I, reply(429, jimeng(50430), retry_after="8"), (NoVerdict, {"gone": False, "retry_after_s": 8.0})),
    (T2I, reply(400, jimeng(50215)), FAILED_INVALID),
    (T2I, reply(401, jimeng(50400)), NOTHING),
    (T2I, reply(403, gateway(100010, "SignatureDoesNotMatch")), NOTHING),
    (T2I, reply(200, jimeng(51234)), NOTHING),
]
