"""Every change of a job's status after it was accepted, and nowhere else.

Workers claim (`claims`), call the outside world with no transaction open, and report what they saw here.
Each report is fenced: it counts only while the worker still holds its lease. `finish` is the only way out.

The rooms follow a job's life: `submitting`, `polling` and `storing` do not know each other, and all end in `ending`.
"""

from common.services.lifecycle.chances import CHANCE_TRIES
from common.services.lifecycle.ending import LATE_WINDOW_S, cancel, finish, past_deadline, refund
from common.services.lifecycle.fences import still_held
from common.services.lifecycle.pauses import GONE_LIMIT, LATE_POLL_S
from common.services.lifecycle.polling import (
    CANCEL_TRIES,
    cancel_answered,
    failed,
    no_verdict,
    produced,
    still_running,
)
from common.services.lifecycle.records import (
    ADOPTED,
    LATE_SUCCESS,
    REFUNDED,
    SOURCE_GONE,
    SUBMIT_UNKNOWN,
    note,
)
from common.services.lifecycle.storing import (
    ANEW_LIMIT,
    Stored,
    asked_anew,
    partly_stored,
    source_gone,
    storage_refused,
    stored,
    unstorable,
)
from common.services.lifecycle.submitting import (
    accepted,
    answered_late,
    not_accepted,
    not_found_yet,
    recover,
    rejected,
    sending,
    unknown,
)

__all__ = [
    "ADOPTED",
    "ANEW_LIMIT",
    "CANCEL_TRIES",
    "CHANCE_TRIES",
    "GONE_LIMIT",
    "LATE_POLL_S",
    "LATE_SUCCESS",
    "LATE_WINDOW_S",
    "REFUNDED",
    "SOURCE_GONE",
    "SUBMIT_UNKNOWN",
    "Stored",
    "accepted",
    "answered_late",
    "asked_anew",
    "cancel",
    "cancel_answered",
    "failed",
    "finish",
    "no_verdict",
    "not_accepted",
    "not_found_yet",
    "note",
    "partly_stored",
    "past_deadline",
    "produced",
    "recover",
    "refund",
    "rejected",
    "sending",
    "source_gone",
    "still_held",
    "still_running",
    "storage_refused",
    "stored",
    "unknown",
    "unstorable",
]
