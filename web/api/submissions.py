"""What every call that submits a job shares: its options, its key, its wait and its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from flask import Response
from sqlalchemy.orm import Session

from common.db import again, reading, transaction
from common.services import jobs
from common.services.jobs import NewJob, Once
from common.services.presentation import job_object
from common.services.repeats import Try
from common.services.users import Actor
from common.words import TERMINAL
from web import tries
from web.answers import REPLAYED, answer
from web.live import until_finished
from web.parsing import idempotency_key
from web.schemas import JobOptions
from web.waiting import preferred_wait_s

HEADERS = ("Idempotency-Key", "Prefer")


def options(body: JobOptions) -> dict[str, Any]:
    """The body's job options as `NewJob` takes them."""
    return {
        "webhook_url": body.webhook_url,
        "metadata": body.metadata or {},
        "priority": body.priority,
        "deadline_s": body.deadline_s,
    }


def once(route: str, body: object) -> Once | None:
    """What makes a repeat of the request safe: see `once_each`."""
    return once_each(route, body, 1)[0]


def once_each(route: str, body: object, count: int) -> Sequence[Once | None]:
    """What makes a repeat of the request safe, for each of the jobs that it makes.

    It is the Idempotency-Key, or, for an SDK that repeats by itself and sends none, what was asked for and the number
    of the try.
    """
    key, number = idempotency_key(), tries.number()
    if key is None and number is None:
        return [None] * count
    asked = fingerprint(body)
    routes = [route, *(f"{route} {each}" for each in range(1, count))]
    if key is not None:
        return [Once(each, key, asked) for each in routes]
    assert number is not None
    refused = tries.was_refused()
    tried = [Try(fingerprint([each, asked]), number, refused) for each in routes]
    return [Once(each, "", asked, this) for each, this in zip(routes, tried, strict=True)]


def fingerprint(body: object) -> str:
    """The same for what asks for the same, however it was written."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def submit(actor: Actor, key: Once | None, accept: Callable[[Session], tuple[Any, bool]]) -> Response:
    """Accept a job in one transaction and answer 202; or 200 if it finishes within the preferred wait.

    Without a key there is nothing to write before the job itself.
    """
    with transaction(one_write=key is None) as session:
        job, replayed = accept(session)
        shown = job_object(job, jobs.artifacts(session, [job.id])[job.id] if replayed else [])
    headers = {"Location": f"/v1/jobs/{shown['id']}"}
    if replayed:
        headers |= REPLAYED
    wait_s = preferred_wait_s()
    if not wait_s:
        return answer(shown, 202, headers)
    headers["Preference-Applied"] = f"wait={wait_s}"
    if shown["status"] in TERMINAL or until_finished(shown["id"], wait_s):
        return answer(show(actor, shown["id"]), 200, headers)
    return answer(shown, 202, headers)


def show(actor: Actor, job_id: str) -> dict[str, Any]:
    """The job as it is now. Raises NotFound."""

    def read() -> dict[str, Any]:
        with reading() as session:
            job = jobs.get(session, actor, job_id)
            return job_object(job, jobs.artifacts(session, [job_id])[job_id])

    return again(read)  # the job may have been written before, in a transaction of its own


__all__ = ["HEADERS", "NewJob", "fingerprint", "once", "once_each", "options", "show", "submit"]
