"""Black Forest Labs: fact sheet flux_bfl.md."""

from __future__ import annotations

from typing import Any

from common.providers.base import Failed, NoVerdict, Rejected, Reply, Running, Succeeded
from tests.unit.providers.conformance.vocabulary import (
    BALANCE,
    BUSY,
    CREDENTIALS,
    DOWN,
    FAILED_AGAIN,
    FAILED_MODERATED,
    GONE,
    INVALID,
    MODERATED,
    NOTHING,
    RUNNING,
    UNKNOWN,
    accepted,
    trouble,
)
from tests.unit.providers.fakes import reply

PRO, ULTRA = ("bfl", "flux/pro-1.1"), ("bfl", "flux/pro-1.1-ultra")
POLLING = "https://api.eu1.bfl.ai/v1/get_result?id=0b3f"
SUBMITS = [
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


def bfl(status: Any, http: int = 200, **fields: Any) -> Reply:
    return reply(
        http, {"id": "ref-1", "status": status, "result": None, "progress": None, "details": None, **fields}
    )


SAMPLE = {"sample": "https://delivery-eu1.bfl.ai/1.png?sig=1", "seed": 42}
POLLS = [
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
    (PRO, bfl("Task not found"), GONE),
    (PRO, bfl("Task not found", http=404), GONE),
    (PRO, reply(404, {"detail": "Task not found"}), GONE),
    (PRO, reply(404, {"detail": "Not Found"}), NOTHING),  # a 404 that is not about the task (section 4.2)
    (PRO, reply(404, b"<html>nginx</html>"), NOTHING),
    (PRO, reply(404, b"Task not found"), NOTHING),
    (PRO, bfl("Content Moderated", http=422), FAILED_MODERATED),  # the body is the verdict, whatever the status
    (PRO, bfl("Error", http=503), FAILED_AGAIN),
    (PRO, bfl("Thinking"), NOTHING),
    (PRO, bfl("Ready", result=SAMPLE, id="ref-2"), NOTHING),  # of another task
    (PRO, bfl("Error", id="ref-2"), NOTHING),
    (PRO, bfl("Ready", result=SAMPLE, id=None), (Succeeded, {})),
    (PRO, reply(503), NOTHING),
    (PRO, reply(429, {"detail": "slow down"}, retry_after="2"), (NoVerdict, {"gone": False, "retry_after_s": 2.0})),
    (PRO, reply(403, {"detail": "Not authenticated"}), NOTHING),
]  # fmt: skip
