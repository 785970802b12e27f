"""Legacy tasks as jobs: finished ones as history, running ones adopted or ended.

A finished job was paid for in the legacy program: it costs `price` 0 here, so no balance moves, and `charged` says
what that program's row says. A running one is paid for again from what the legacy program had taken, which is granted
back first: so the ledger holds, and captures or releases it, as for any other job.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock, queue
from common.db import after_commit
from common.models import Artifact, Job, JobAttempt, JobEvent, JobStep, User
from common.providers.base import Output
from common.providers.midjourney_results import follow_ups
from common.providers.registry import MODELS
from common.services import credits, lifecycle
from common.services.legacy.configs import Known
from common.services.legacy.identity import lasting_id
from common.services.legacy.mappings import TaskTable
from common.services.legacy.places import Place, Places, content_type, uploads
from common.services.legacy.source import Row, Source, beside, moment, parsed, text, whole
from common.services.legacy.totals import Totals
from common.settings import settings
from common.words import TERMINAL, ErrorCode, Outcome, Status, Step

NOBODY = "legacy:nobody"  # owns the tasks that had no owner
_NO_ACCOUNT = "legacy"  # at which an attempt was whose settings are gone
_REHOST_FOR_S = 3600.0  # how long a source that does not answer is tried
_LONGEST_MESSAGE = 2000
_BEFORE_ALL = datetime(2020, 1, 1, tzinfo=UTC)  # of a row without any time
_PERCENT = re.compile(r"\d{1,3}")
_MODERATED = re.compile(r"banned|sensitive|moderat|prohibit|nsfw|审核|敏感|违规|违禁", re.IGNORECASE)
_TIMEOUT = re.compile(r"time[d ]?-?\s*out|超时", re.IGNORECASE)


@dataclass(slots=True)
class Context:
    """What a batch of tasks is looked at with."""

    source: Source
    places: Places
    accounts: Mapping[str, Known]
    charged: bool  # whether there are balances that tasks were paid from
    write: bool
    rehost: bool


@dataclass(slots=True)
class Made:
    """What one row becomes."""

    job: dict[str, Any]
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    attempt: dict[str, Any] | None = None
    step: dict[str, Any] | None = None
    returned: int = 0  # credits that the legacy program took for a task that had not ended
    notes: list[str] = field(default_factory=list)


def import_batch(
    session: Session, its: TaskTable, rows: Sequence[Row], context: Context, totals: Totals
) -> None:
    """Make jobs of these rows, as far as there are none yet."""
    uploaded = uploads(session, context.source, its, [str(row["id"]) for row in rows])
    owners = _present(session, {str(row["user_id"]) for row in rows if row.get("user_id") is not None})
    made = [_make(its, row, uploaded.get(str(row["id"])), owners, context) for row in rows]
    known = set(session.scalars(select(Job.id).where(Job.id.in_([one.job["id"] for one in made]))))
    new = [one for one in made if one.job["id"] not in known]
    if context.write:
        _write(session, new)
    if context.rehost:
        _rehost(session, made, totals, write=context.write)
    totals.rows += len(rows)
    totals.new += len(new)
    totals.known += len(made) - len(new)
    for row, one in zip(rows, made, strict=True):
        totals.add("credits_cost", _cost(its, row))
        totals.notes.update(one.notes)
        if one.returned:
            totals.add("charges returned for tasks that had not ended", one.returned)


def job_id(its: TaskTable, row: Row) -> str:
    """The job that this row becomes."""
    return lasting_id("job", its.name, str(row["id"]), _created(row))


def contradictions(session: Session, its: TaskTable, rows: Sequence[Row]) -> list[str]:
    """Rows that have become no job, or one that is said to have cost something else, a line each."""
    wanted = {job_id(its, row): row for row in rows}
    query = select(Job.id, Job.metadata_).where(Job.id.in_(list(wanted)))
    costs = {
        found: (metadata or {}).get("legacy", {}).get("credits_cost")
        for found, metadata in session.execute(query)
    }
    lines = [
        f"{its.name} {row['id']}: has become no job" for found, row in wanted.items() if found not in costs
    ]
    return lines + [
        f"{its.name} {row['id']}: {costs[found]} credits in its job, {_cost(its, row)} in the row"
        for found, row in wanted.items()
        if found in costs and costs[found] != _cost(its, row)
    ]


def _created(row: Row) -> datetime:
    return moment(row.get("created_at")) or moment(row.get("submit_time")) or _BEFORE_ALL


def _cost(its: TaskTable, row: Row) -> int:
    return whole(row.get(its.cost)) if its.cost else 0


def _present(session: Session, ids: set[str]) -> set[str]:
    return set(session.scalars(select(User.id).where(User.id.in_(ids)))) if ids else set()


# ---------------------------------------------------------------- what a row becomes


def _make(its: TaskTable, row: Row, uploaded: str | None, owners: set[str], context: Context) -> Made:
    word = text(row.get("status"))
    places = context.places.of(its, row, uploaded)
    status = its.final.get(word or "") or _by_case(its, word)
    if places and status is None:
        status = Status.SUCCEEDED  # the legacy program's own rule: a result is the end
    if status is Status.SUCCEEDED and its.provider == "flux" and not places:
        status = None  # it ended at the provider, and nobody has fetched the result
    made = Made(_job(its, row, status))
    _own(made, row, owners)
    if status is None:
        _go_on(made, its, row, word, context)
    else:
        _ended(made, its, row, status)
    _results(made, its, row, places, context)
    return made


def _by_case(its: TaskTable, word: str | None) -> Status | None:
    """Hand-made layouts write the same words in capitals."""
    return next(
        (status for final, status in its.final.items() if word and final.lower() == word.lower()), None
    )


def _job(its: TaskTable, row: Row, status: Status | None) -> dict[str, Any]:
    created = _created(row)
    model = its.model(row)
    parent = text(row.get("parent_task_id"))
    legacy = {
        "table": its.name, "id": str(row["id"]), "status": text(row.get("status")),
        "credits_cost": _cost(its, row), "parent_id": parent,
    }  # fmt: skip
    return {
        "id": job_id(its, row),
        "user_id": text(row.get("user_id")) or NOBODY,
        "status": status,
        "provider": its.provider,
        "model": model,
        "action": MODELS[model].action
        if model in MODELS
        else (text(row.get("action")) or "generate").lower()[:64],
        "input": _input(its, row),
        "metadata": {"legacy": {name: value for name, value in legacy.items() if value is not None}},
        "priority": 0,
        "parent_id": None,
        "tool_id": None,
        "webhook_url": None,
        "price": 0,
        "charged": None,
        "progress": _progress(row),
        "preview_url": None,
        "actions": [],
        "output": None,
        "error": None,
        "attempts": 0,
        "late": False,
        "deadline_at": created + timedelta(seconds=settings().job_deadline_s),
        "created_at": created,
        "submitted_at": created,
        "finished_at": None,
    }


def _input(its: TaskTable, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (read, columns) in its.inputs.items():
        value = next((value for part in columns if (value := read(row.get(part))) not in (None, [])), None)
        if value is not None:
            found[name] = value
    return found


def _progress(row: Row) -> int:
    found = _PERCENT.search(str(row.get("progress") or ""))
    return min(99, int(found[0])) if found else 0


def _own(made: Made, row: Row, owners: set[str]) -> None:
    if made.job["user_id"] == NOBODY:
        made.notes.append("without an owner")
    elif made.job["user_id"] not in owners:
        made.notes.append("of users who are gone")


def _ended(made: Made, its: TaskTable, row: Row, status: Status) -> None:
    """History: what it cost was paid in the legacy program."""
    made.notes.append(str(status))
    finished = (beside(made.job["created_at"], row.get(name)) for name in its.finished)
    made.job |= {
        "charged": _cost(its, row),
        "finished_at": next((at for at in finished if at is not None), made.job["created_at"]),
    }
    if status is Status.SUCCEEDED:
        made.job["progress"] = 100
        if made.job["model"] == "midjourney/describe":
            made.job["output"] = {"prompts": [made.job["input"].get("prompt", "")]}
    else:
        made.job["error"] = _error(its, row, status)


def _error(its: TaskTable, row: Row, status: Status) -> dict[str, Any]:
    reason = next((found for name in its.reason if (found := text(row.get(name)))), "")
    if status is Status.CANCELED:
        return _said(ErrorCode.CANCELED, reason or "Canceled.")
    if _MODERATED.search(reason):
        return _said(ErrorCode.CONTENT_MODERATED, reason)
    code = ErrorCode.TIMEOUT if _TIMEOUT.search(reason) else ErrorCode.PROVIDER_FAILED
    return _said(code, reason or "The legacy program gave no reason.")


def _said(code: str, message: str, *, retryable: bool = False) -> dict[str, Any]:
    return {"code": code, "message": message[:_LONGEST_MESSAGE], "retryable": retryable}


# ---------------------------------------------------------------- tasks that had not ended


def _go_on(made: Made, its: TaskTable, row: Row, word: str | None, context: Context) -> None:
    """Poll it from now on where somebody can be asked; else it ends here, and what it cost is given back."""
    cost = _cost(its, row)
    if context.charged and made.job["user_id"] != NOBODY:
        made.returned = made.job["price"] = cost
    reason = _why_hopeless(its, row, word, made.job["model"], context)
    model = _asked_as(its, made.job["model"])
    if reason is None and model is not None:
        _adopt(made, context.accounts[its.config], model)
        return
    assert reason is not None
    made.notes.append(f"failed at the switch: {reason[0]}")
    made.job |= {
        "status": Status.FAILED,
        "charged": 0,
        "error": _said(*reason, retryable=True),
        "finished_at": clock.now(),
    }


def _why_hopeless(
    its: TaskTable, row: Row, word: str | None, model: str, context: Context
) -> tuple[ErrorCode, str] | None:
    if word and word in its.hopeless:
        return its.hopeless[word]
    if not its.reference(row):
        return ErrorCode.SUBMIT_UNKNOWN, "The legacy program never learnt whether the provider took it."
    if its.config not in context.accounts:
        return ErrorCode.PROVIDER_UNAVAILABLE, "There is no account that could be asked about it."
    if _asked_as(its, model) is None:
        return ErrorCode.PROVIDER_UNAVAILABLE, f"It is a {model}, which this platform cannot ask about."
    return None


def _asked_as(its: TaskTable, model: str) -> str | None:
    """The model of the catalogue by whose rules the provider is asked."""
    return next((name for name in (model, its.polls_as.get(model)) if name in MODELS), None)


def _adopt(made: Made, account: Known, model: str) -> None:
    """A job that a worker polls. It takes no slot: it is at the provider already, whatever the limit is now."""
    made.notes.append("adopted: polled from now on")
    now = clock.epoch()
    deadline_s = MODELS[model].deadline_s or settings().job_deadline_s
    made.job |= {"status": Status.RUNNING, "deadline_at": datetime.fromtimestamp(now + deadline_s, UTC)}
    made.step = {
        "job_id": made.job["id"], "step": Step.POLL, "due_at": now, "user_id": made.job["user_id"],
        "model": model, "priority": 0, "created_at": made.job["created_at"].timestamp(),
        "deadline_at": now + deadline_s, "slots": 0, "account_id": account.id, "attempt_id": _attempt_id(made),
        "failures": 0,
    }  # fmt: skip


# ---------------------------------------------------------------- results


def _results(made: Made, its: TaskTable, row: Row, places: Sequence[Place], context: Context) -> None:
    """Artifacts for what the operator has; the provider's URLs go to the attempt, where those that die are kept."""
    legacy, job = made.job["metadata"]["legacy"], made.job
    for number, place in enumerate(places, start=1):
        if place.ours:
            made.artifacts.append(_artifact(job, its, number, place))
    theirs = [place.url for place in places if not place.ours]
    if theirs:
        legacy["provider_only"] = theirs
    if places:
        made.notes.append(_where(places))
    elif job["status"] is Status.SUCCEEDED and job["output"] is None:
        made.notes.append("succeeded without any URL")
    reference, account = its.reference(row), context.accounts.get(its.config)
    if not (theirs or (reference and account)):
        return
    job["attempts"] = 1
    made.attempt = {
        "id": _attempt_id(made),
        "job_id": job["id"],
        "number": 1,
        "account_id": account.id if account else _NO_ACCOUNT,
        "outcome": Outcome.ACCEPTED,
        "callback_token": secrets.token_urlsafe(24),
        "provider_ref": reference,
        "memo": its.memo(row, reference, account.base_url) if its.memo and reference and account else {},
        "outputs": [_output(its, place) for place in places] if theirs else None,
        "created_at": job["created_at"],
        "sent_at": job["created_at"],
        "answered_at": job["created_at"],
    }
    _offer(made, row, account)


def _where(places: Sequence[Place]) -> str:
    first = places[0]
    if not first.ours:
        return "result only at the provider"
    return (
        "result in the cloud, known only from generated_files" if first.from_files else "result in the cloud"
    )


def _artifact(job: Mapping[str, Any], its: TaskTable, number: int, place: Place) -> dict[str, Any]:
    """Its key is empty: it is not one of ours, and only its URL is known."""
    return {
        "id": lasting_id("art", its.name, f"{job['id']}/{number}", job["created_at"]),
        "job_id": job["id"],
        "number": number,
        "kind": its.kind,
        "key": "",
        "url": place.url,
        "content_type": content_type(its.kind, place.url),
        "bytes": 0,
        "sha256": "",
        "created_at": job["finished_at"] or job["created_at"],
    }


def _output(its: TaskTable, place: Place) -> dict[str, Any]:
    return {**asdict(Output(kind=its.kind, url=place.url)), "expires_at": 0.0}


def _offer(made: Made, row: Row, account: Known | None) -> None:
    """The buttons under a finished picture work on, where its server is known."""
    if made.attempt is None or account is None or made.job["status"] is not Status.SUCCEEDED:
        return
    buttons = parsed(row.get("buttons"))
    if buttons:
        offered = follow_ups(buttons)
        made.job["actions"] = [{"id": action.id, "label": action.label} for action in offered]
        made.attempt["memo"] = {"actions": {action.id: action.token for action in offered}}


def _attempt_id(made: Made) -> str:
    return f"att_{made.job['id'].partition('_')[2]}"


# ---------------------------------------------------------------- writing

_INSERTED = ((Artifact, "artifacts"), (JobAttempt, "attempt"), (JobStep, "step"))


def _write(session: Session, new: Sequence[Made]) -> None:
    """All of it in the caller's transaction. What another import has written just now is left to that one."""
    if not new:
        return
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    table = Job.metadata.tables[Job.__tablename__]
    taken = set(
        session.scalars(
            dialect.insert(table).on_conflict_do_nothing().returning(table.c.id),
            [one.job for one in sorted(new, key=lambda one: str(one.job["id"]))],
        )
    )
    mine = [one for one in new if one.job["id"] in taken]
    for model, name in _INSERTED:
        rows = [row for one in mine for row in _listed(getattr(one, name))]
        if rows:
            session.execute(insert(model), rows)
    for one in sorted(mine, key=lambda one: str(one.job["user_id"])):
        _settle(session, one)
    if any(one.step for one in mine):
        after_commit(session, lambda: queue.nudge(Step.POLL))


def _listed(value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _settle(session: Session, made: Made) -> None:
    """Grant back what the legacy program took, and hold it; a job that has ended releases it at once."""
    job = made.job
    if made.returned:
        legacy = job["metadata"]["legacy"]
        credits.grant(
            session, job["user_id"], made.returned,
            note=f"taken by the legacy program for {legacy['table']} {legacy['id']}, which had not ended",
            reference=f"legacy:{legacy['table']}:{legacy['id']}:charge",
        )  # fmt: skip
    if made.step is not None or job["price"]:
        credits.hold(session, job["user_id"], job["id"], job["price"])
    if job["price"] and job["status"] in TERMINAL:
        credits.settle(session, job["id"], spent=0)


# ---------------------------------------------------------------- rehost


def _rehost(session: Session, made: Sequence[Made], totals: Totals, *, write: bool) -> None:
    """Have the workers copy what is only at the provider: a step `store` for a job that has ended, and stays so."""
    theirs = {
        one.job["id"]: one for one in made
        if one.attempt is not None and one.attempt["outputs"] and one.job["status"] is Status.SUCCEEDED
    }  # fmt: skip
    if not theirs:
        return
    have = _numbers(session, list(theirs))
    gone = set(
        session.scalars(
            select(JobEvent.job_id).where(
                JobEvent.job_id.in_(list(theirs)), JobEvent.kind == lifecycle.SOURCE_GONE
            )
        )
    )
    asked = []
    for job_id, one in theirs.items():
        assert one.attempt is not None
        if job_id in gone:
            totals.notes["rehost: the source is gone"] += 1
        elif len(have.get(job_id, ())) == len(one.attempt["outputs"]):
            totals.notes["rehost: copied"] += 1
        else:
            totals.notes["rehost: handed to the workers"] += 1
            asked.append(one)
    if write and asked:
        _hand_over(session, asked)


def _numbers(session: Session, job_ids: list[str]) -> dict[str, set[int]]:
    have: dict[str, set[int]] = {}
    query = select(Artifact.job_id, Artifact.number).where(Artifact.job_id.in_(job_ids))
    for found, number in session.execute(query):
        have.setdefault(found, set()).add(number)
    return have


def _hand_over(session: Session, asked: Sequence[Made]) -> None:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    now = clock.epoch()
    rows = []
    for one in asked:
        assert one.attempt is not None
        rows.append({
            "job_id": one.job["id"], "step": Step.STORE, "due_at": now, "user_id": one.job["user_id"],
            "model": one.job["model"], "priority": 0, "created_at": one.job["created_at"].timestamp(),
            "deadline_at": now + _REHOST_FOR_S, "slots": 0, "account_id": one.attempt["account_id"],
            "attempt_id": one.attempt["id"], "expires_at": now + _REHOST_FOR_S, "failures": 0,
        })  # fmt: skip
    session.execute(dialect.insert(JobStep).on_conflict_do_nothing(), rows)
    after_commit(session, lambda: queue.nudge(Step.STORE))
