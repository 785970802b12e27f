"""When a job is looked at again: the rhythm of its model, and the longer pauses after trouble and denials."""

from __future__ import annotations

import random

from common.providers.base import NoVerdict
from common.providers.registry import MODELS
from common.services.claims import Claim
from common.settings import settings

GONE_LIMIT = 5  # times in a row that a provider denies a job before that is a verdict
_DENIED_PAUSE_S = 2.0  # before the second look; each pause is three times the last: 80 s together
LATE_POLL_S = 30.0  # between two looks at a job that has ended and is only watched
_LONGEST_BACKOFF_S = 60.0


def pause_after_denial_s(claim: Claim, seen: NoVerdict) -> float:
    """Three times the last pause, and never less than the provider has asked for."""
    first_s = (
        LATE_POLL_S if claim.finished and not claim.made else settings().poll_interval_s or _DENIED_PAUSE_S
    )
    return max(seen.retry_after_s or 0.0, first_s * 3.0**claim.refusals)


def interval_s(claim: Claim) -> float:
    """When to look again: the model's rhythm, spread a little so that a cohort does not march in step."""
    every = settings().poll_interval_s or MODELS[claim.model].poll_every_s
    if claim.finished:
        every = max(every, LATE_POLL_S)
    return every * random.uniform(0.9, 1.1)  # noqa: S311


def first_poll_s(model_s: float) -> float:
    """When to look for the first time: as its model has it, unless the operator has set a rhythm."""
    return settings().poll_interval_s or model_s


def backoff_s(failures: int) -> float:
    """Twice as long after each failure, up to a minute, and spread."""
    return float(min(2.0 ** min(failures, 16), _LONGEST_BACKOFF_S) * random.uniform(0.5, 1.0))  # noqa: S311
