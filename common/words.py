"""The closed sets of words that rows, rooms and clients share."""

from enum import StrEnum


class Status(StrEnum):
    """The life of a job."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    RUNNING = "running"
    STORING = "storing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED})


class Step(StrEnum):
    """What workers do: the stages of a live job (one row of `job_step`), and the outbox."""

    SUBMIT = "submit"
    RECONCILE = "reconcile"
    POLL = "poll"
    STORE = "store"
    DELIVER = "deliver"  # a webhook; its rows are the outbox, not `job_step`


class Outcome(StrEnum):
    """How one attempt at one account went. `rejected` also covers attempts that provably never arrived."""

    INTENT = "intent"
    SENT = "sent"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    ADOPTED = "adopted"
    ABANDONED = "abandoned"


class EntryKind(StrEnum):
    """Kinds of ledger entries."""

    GRANT = "grant"
    HOLD = "hold"
    CAPTURE = "capture"
    RELEASE = "release"
    REFUND = "refund"


class Delivery(StrEnum):
    """How far a webhook delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class EventType(StrEnum):
    """What receivers of webhooks can be told. The last two are for jobs that came through the OpenAI dialect."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELED = "job.canceled"
    VIDEO_COMPLETED = "video.completed"
    VIDEO_FAILED = "video.failed"


class Role(StrEnum):
    """What a user may do. `pending` users wait for an admin's approval."""

    ADMIN = "admin"
    USER = "user"
    PENDING = "pending"


class ErrorCode(StrEnum):
    """Why a job failed, as users see it."""

    INVALID_INPUT = "invalid_input"
    CONTENT_MODERATED = "content_moderated"
    PROVIDER_REJECTED = "provider_rejected"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    PROVIDER_FAILED = "provider_failed"
    SUBMIT_UNKNOWN = "submit_unknown"
    TIMEOUT = "timeout"
    STORAGE_FAILED = "storage_failed"
    CANCELED = "canceled"
    ACCOUNT_EXHAUSTED = "account_exhausted"
    INTERNAL = "internal"
