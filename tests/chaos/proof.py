"""What must be true once the storm is over: checked over HTTP, at the simulators, and by operators' commands."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import Any

from tests.chaos.storm import CREDITS, Sent, Storm
from tests.infrastructure.children import StartError, wait_until
from tests.infrastructure.client import ENDED
from tests.infrastructure.platform import Platform

CALM_S = 180.0  # an account that was in trouble all the time is tried again after a minute, by one job


def findings(storm: Storm, calm_s: float = CALM_S) -> tuple[list[str], Counter[str]]:
    """Every broken promise, a line each, and how the jobs have ended."""
    wrong = [f"never accepted: {prompt}" for prompt in storm.refused]
    jobs, open_jobs = _ended(storm, calm_s)
    wrong += [_still_open(job) for job in open_jobs.values()]
    for sent in storm.sent:
        if sent.id in jobs:
            wrong += _about(storm, sent, jobs[sent.id])
    charged = sum(job["cost"]["charged"] or 0 for job in jobs.values())
    available, held = storm.user.credits()
    if not open_jobs and (available, held) != (CREDITS - charged, 0):
        wrong.append(f"balance: {available} + {held} held, expected {CREDITS - charged} + 0")
    wrong += commands(storm.platform)
    ends = Counter(f"{job['status']} {(job['error'] or {}).get('code', '')}".strip() for job in jobs.values())
    return wrong, ends


def _ended(storm: Storm, calm_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The jobs that have ended within that time, and those that have not."""
    jobs: dict[str, Any] = {}
    left: dict[str, Any] = {sent.id: None for sent in storm.sent}
    end = time.monotonic() + calm_s
    while left and time.monotonic() < end:
        for job_id in list(left):
            left[job_id] = storm.user.job(job_id)
            if left[job_id]["status"] in ENDED:
                jobs[job_id] = left.pop(job_id)
        time.sleep(0.3)
    return jobs, left


def _still_open(job: dict[str, Any]) -> str:
    return (
        f"lost: {job['id']}, {job['model']}, is {job['status']} since it was accepted at {job['created_at']}"
    )


def _about(storm: Storm, sent: Sent, job: dict[str, Any]) -> list[str]:
    made = storm.world.submits(sent.prompt)
    wrong = []
    if made > 1:
        wrong.append(f"doubled: {sent.id} was accepted {made} times by its providers")
    if job["cost"]["charged"] is None:
        wrong.append(f"unsettled: {sent.id} is {job['status']}")
    if job["status"] == "succeeded":
        wanted = [hashlib.sha256(content).hexdigest() for content in storm.world.made_for(sent.prompt)]
        stored = [artifact["sha256"] for artifact in job["artifacts"]]
        if stored != wanted or not stored:
            wrong.append(
                f"incomplete: {sent.id} has {len(stored)} artifacts of {len(wanted)}, or other bytes"
            )
    elif job["cost"]["charged"]:
        wrong.append(f"charged for nothing: {sent.id} is {job['status']}")
    return wrong


def commands(platform: Platform, *chosen: tuple[str, ...]) -> list[str]:
    """What operators' commands, by default `ledger verify` and `doctor`, still find after a while."""
    wrong = []
    for arguments in chosen or (("ledger", "verify"), ("doctor",)):
        said: list[str] = []

        def clean(arguments: tuple[str, ...] = arguments, said: list[str] = said) -> bool:
            try:
                platform.command(*arguments)
            except StartError as error:
                said[:] = [str(error)]
                return False
            return True

        try:
            wait_until(clean, 75, every_s=2)  # an account that had much trouble is probed once a minute
        except TimeoutError:
            wrong += said
    return wrong
