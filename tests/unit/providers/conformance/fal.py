"""fal: fact sheet flux_fal.md. A look may take two answers: the status, then the result."""

from __future__ import annotations

from typing import Any

from common.providers.base import NoVerdict, Reply, Succeeded
from tests.unit.providers.conformance.vocabulary import (
    BALANCE,
    BUSY,
    CREDENTIALS,
    FAILED_AGAIN,
    FAILED_FOR_GOOD,
    FAILED_INVALID,
    FAILED_MODERATED,
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

FAL = "https://queue.fal.run/fal-ai/flux/requests/80e7"
DEV = ("fal", "flux/dev")


def typed(kind: str, field: str = "prompt") -> dict[str, Any]:
    return {"detail": [{"loc": ["body", field], "msg": "some text", "type": kind}]}


SUBMITS = [
    (DEV, reply(200, {"status": "IN_QUEUE", "request_id": "80e7", "response_url": FAL,
                      "status_url": f"{FAL}/status", "cancel_url": f"{FAL}/cancel"}),
     accepted("80e7", memo={"response_url": FAL, "status_url": f"{FAL}/status", "cancel_url": f"{FAL}/cancel"})),
    (DEV, reply(200, {"status": "IN_QUEUE"}), UNKNOWN),
    (DEV, reply(401, {"detail": "Cannot access application"}), trouble(CREDENTIALS)),
    (DEV, reply(403, {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai."}),
     trouble(BALANCE)),
    (DEV, reply(403, {"detail": "Reason: TOP_UP"}), trouble(BALANCE)),
    (DEV, reply(403, {"detail": "Forbidden"}), trouble(CREDENTIALS)),
    (DEV, reply(403, {"detail": "User is locked. Reason: Admin lock"}), trouble(CREDENTIALS)),
    (DEV, reply(422, typed("invalid_api_key")), REFUSED),
    (DEV, reply(402, {"detail": "Payment required"}), trouble(BALANCE)),
    (DEV, reply(404, {"detail": "Application not found"}), REFUSED),
    (DEV, reply(400, {"detail": "bad", "error_type": "bad_request"}), INVALID),
    (DEV, reply(422, typed("missing")), INVALID),
    (DEV, reply(422, typed("content_policy_violation")), MODERATED),
    (DEV, reply(429, {"detail": "queue full"}, retry_after="3"), trouble(BUSY, retry_after_s=3.0)),
    (DEV, reply(499, {"detail": "x", "error_type": "client_disconnected"}), UNKNOWN),
    *((DEV, reply(status, {"detail": "x"}), UNKNOWN) for status in (500, 502, 503, 504)),
]  # fmt: skip


COMPLETED = reply(200, {"status": "COMPLETED", "request_id": "ref-1", "metrics": {}})
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


POLLS = [
    ([reply(202, {"status": "IN_QUEUE", "queue_position": 2})], RUNNING),
    ([reply(202, {"status": "IN_PROGRESS", "logs": None})], RUNNING),
    ([reply(200, {"status": "FAILED"})], FAILED_AGAIN),
    ([reply(200, {"status": "CANCELED"})], FAILED_AGAIN),
    ([reply(200, {"status": "WHATEVER"})], NOTHING),
    ([reply(200, {"status": "COMPLETED", "request_id": "ref-2"})], NOTHING),  # of another request
    ([reply(202, {"status": "IN_QUEUE", "request_id": "ref-1", "gateway_request_id": "ref-2"})], RUNNING),
    ([reply(404, {"detail": "not found"})], GONE),
    ([reply(404, b"<html>nginx</html>")], NOTHING),  # not in fal's own words (section 8.1, dialect a)
    ([reply(404, {"message": "no Route matched"})], NOTHING),
    ([reply(401, {"detail": "x"})], NOTHING),
    ([reply(429, {"detail": "x"}, retry_after="6")], (NoVerdict, {"gone": False, "retry_after_s": 6.0})),
    ([reply(503, {"detail": "x"})], NOTHING),
    ([reply(422, {"detail": "x"})], NOTHING),
    ([COMPLETED, reply(200, {"images": [PICTURE], "seed": 42, "has_nsfw_concepts": [False]})], (Succeeded, {})),
    ([COMPLETED, reply(200, {"images": [PICTURE], "seed": 42})], (Succeeded, {})),
    ([COMPLETED, reply(200, {"images": [PICTURE], "has_nsfw_concepts": [True]})], FAILED_MODERATED),
    # Each picture has a flag of its own (section 5).
    ([COMPLETED, reply(200, {"images": [PICTURE] * 3, "has_nsfw_concepts": [True] * 3})], FAILED_MODERATED),
    ([COMPLETED, reply(200, {"images": [PICTURE] * 3, "has_nsfw_concepts": [False, True, False]})],
     (Succeeded, {"share": (2, 3)})),
    ([COMPLETED, reply(200, {"images": [PICTURE] * 3, "has_nsfw_concepts": [True]})], (Succeeded, {"share": (2, 3)})),
    ([COMPLETED, reply(200, {"images": [PICTURE] * 2, "has_nsfw_concepts": [False, False]})],
     (Succeeded, {"share": None})),
    ([COMPLETED, reply(200, {"images": [PICTURE], "has_nsfw_concepts": [False, True]})], (Succeeded, {"share": None})),
    ([COMPLETED, reply(200, {"images": [PICTURE], "has_nsfw_concepts": "yes"})], (Succeeded, {"share": None})),
    ([COMPLETED, reply(200, {"images": []})], NOTHING),
    ([COMPLETED, reply(200, {"something": "else"})], NOTHING),
    ([COMPLETED, reply(422, typed("content_policy_violation"))], FAILED_MODERATED),
    *(([COMPLETED, reply(422, typed(kind))], FAILED_INVALID)
      for kind in (
          "missing", "value_error.missing", "image_too_small", "image_too_large", "image_load_error",
          "file_download_error", "face_detection_error", "file_too_large", "greater_than", "greater_than_equal",
          "less_than", "less_than_equal", "multiple_of", "sequence_too_short", "sequence_too_long", "one_of",
          "feature_not_supported", "invalid_archive", "archive_file_count_below_minimum",
          "archive_file_count_exceeds_maximum", "input_value_error",
      )),
    ([COMPLETED, reply(422, typed("invalid_api_key"))], FAILED_FOR_GOOD),
    *(([COMPLETED, reply(422, typed(kind))], FAILED_AGAIN)
      for kind in ("no_media_generated", "downstream_service_error", "downstream_service_unavailable",
                   "generation_timeout", "internal_server_error")),
    ([COMPLETED, reply(500, typed("internal_server_error"), x_fal_needs_retry="false")], FAILED_FOR_GOOD),
    ([COMPLETED, reply(500, typed("downstream_service_error"), x_fal_retryable="false")], FAILED_FOR_GOOD),
    ([COMPLETED, reply(422, typed("image_too_small"), x_fal_needs_retry="true")], FAILED_INVALID),
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
    ([COMPLETED, reply(404, b"<html>nginx</html>")], NOTHING),
    ([COMPLETED, reply(503, b"<html>nginx</html>")], NOTHING),
    ([COMPLETED, reply(422, b"<html>nginx</html>")], NOTHING),
    ([COMPLETED, reply(403, {"detail": "User is locked."})], NOTHING),
    ([COMPLETED, reply(429)], NOTHING),
    ([broken("request_timeout"), reply(404, {"detail": "gone"})], FAILED_AGAIN),
    ([broken("client_cancelled"), reply(404, {"detail": "gone"})], FAILED_FOR_GOOD),
    ([broken("request_timeout"), reply(200, {"images": [PICTURE]})], (Succeeded, {})),
]  # fmt: skip
