"""Deleting jobs and what they made; results that are kept for so many days; objects that nobody knows of."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import delete, select, update

from common import clock
from common.db import reading, transaction
from common.errors import StorageUnavailable
from common.ids import since
from common.models import AppSetting, Artifact, JobAttempt, JobStep, ObjectDeletion
from common.services import deletions, doctor, lifecycle
from common.settings import settings
from common.storage import LocalStorage, StoredObject, artifact_key, storage, thumbnail_key
from common.words import Status
from tests.integration.web.api import Api
from tests.integration.web.jobs import BODY, PRICE, attempt, entries_of, jobs_of, succeed
from workers import tasks
from workers.steps import removal


@pytest.fixture(autouse=True)
def _nothing_to_remove(app: Flask) -> Iterator[None]:
    yield
    with transaction() as session:
        session.execute(delete(ObjectDeletion))
        session.execute(delete(AppSetting).where(AppSetting.key == tasks.TIDIED))


def stored_job(user: Api, tmp_path: Path) -> tuple[str, list[str]]:
    """A job that has succeeded, and the keys of its objects, which are in the storage."""
    job_id = str(user.post("/v1/jobs", {**BODY, "metadata": {"order": 7}})["id"])
    attempt(job_id)
    succeed(job_id)
    now = clock.now()
    keys = [artifact_key(job_id, now, 1, "png"), thumbnail_key(job_id, now, 1)]
    (tmp_path / "file").write_bytes(b"content")
    for key in keys:
        storage().put(key, tmp_path / "file", "image/png")
    with transaction() as session:
        session.execute(
            update(Artifact).where(Artifact.job_id == job_id).values(key=keys[0], thumbnail_key=keys[1])
        )
    return job_id, keys


def present(keys: list[str]) -> list[bool]:
    """Which of the objects are there."""
    return [storage().exists(key) for key in keys]


def owed() -> list[ObjectDeletion]:
    """What is still to be removed."""
    with reading() as session:
        return list(session.scalars(select(ObjectDeletion)))


# ---------------------------------------------------------------- jobs


def test_a_deleted_job_is_gone_with_all_it_made(user: Api, tmp_path: Path) -> None:
    job_id, keys = stored_job(user, tmp_path)
    kept_id, kept_keys = stored_job(user, tmp_path)
    assert user.ask("DELETE", f"/v1/jobs/{job_id}").status == 204
    for path in ("", "/timeline", "/events"):
        assert user.ask("GET", f"/v1/jobs/{job_id}{path}").status == 404
    assert user.ask("DELETE", f"/v1/jobs/{job_id}").status == 404
    assert user.ask("POST", f"/v1/jobs/{job_id}/cancel").status == 404
    assert [job["id"] for job in user.get("/v1/jobs")["data"]] == [kept_id]
    tasks.remove_objects()
    assert (present(keys), present(kept_keys)) == ([False, False], [True, True])
    assert owed() == []


def test_what_it_cost_stays_and_what_was_asked_for_does_not(user: Api, tmp_path: Path) -> None:
    job_id, _ = stored_job(user, tmp_path)
    user.ask("DELETE", f"/v1/jobs/{job_id}")
    (job,) = jobs_of(user)
    assert (job.input, job.metadata_, job.charged) == ({}, {}, PRICE)
    assert [kind for kind, *_ in entries_of(job_id)] == ["hold", "capture"]
    assert user.get("/v1/credits/ledger")["data"][0]["job_id"] == job_id
    with reading() as session:
        assert session.scalars(select(JobAttempt).where(JobAttempt.job_id == job_id)).one()
        assert doctor.findings(session) == []


def test_only_what_is_finished_and_ones_own(user: Api, other: Api, tmp_path: Path) -> None:
    live = str(user.post("/v1/jobs", BODY)["id"])
    refused = user.ask("DELETE", f"/v1/jobs/{live}")
    assert (refused.status, refused.json["error"]["code"]) == (409, "conflict")
    job_id, keys = stored_job(user, tmp_path)
    assert other.ask("DELETE", f"/v1/jobs/{job_id}").status == 404
    tasks.remove_objects()
    assert present(keys) == [True, True]


def test_a_result_that_is_still_waited_for_does_not_come(user: Api) -> None:
    job_id = str(user.post("/v1/jobs", BODY)["id"])
    attempt(job_id)
    with transaction() as session:
        lifecycle.finish(session, job_id, Status.FAILED, spent=0, code="timeout", message="late", watch=True)
        assert session.get(JobStep, job_id) is not None
    assert user.ask("DELETE", f"/v1/jobs/{job_id}").status == 204
    with reading() as session:
        assert session.get(JobStep, job_id) is None


def test_a_deleted_job_has_no_follow_ups(user: Api, tmp_path: Path) -> None:
    job_id, _ = stored_job(user, tmp_path)
    user.ask("DELETE", f"/v1/jobs/{job_id}")
    body = {"model": "midjourney/action", "input": {"action": "reroll"}, "parent_id": job_id}
    assert user.ask("POST", "/v1/jobs", body).json["error"]["param"] == "parent_id"


# ---------------------------------------------------------------- the storage away


def test_a_storage_that_is_away_loses_no_removal(
    user: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, keys = stored_job(user, tmp_path)
    user.ask("DELETE", f"/v1/jobs/{job_id}")

    def away(self: LocalStorage, key: str) -> None:
        raise StorageUnavailable("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "delete", away)
        tasks.remove_objects()
    assert {(each.tries, each.last_error) for each in owed()} == {(1, "the disk is gone")}
    assert min(each.due_at for each in owed()) > clock.epoch() + 3
    tasks.remove_objects()
    assert present(keys) == [True, True]
    with transaction() as session:
        session.execute(update(ObjectDeletion).values(due_at=0.0))
    tasks.remove_objects()
    assert (present(keys), owed()) == ([False, False], [])


def test_what_a_dead_worker_was_to_remove_is_removed_by_another(user: Api, tmp_path: Path) -> None:
    job_id, keys = stored_job(user, tmp_path)
    user.ask("DELETE", f"/v1/jobs/{job_id}")
    with transaction() as session:
        assert len(deletions.due(session)) == 2
        assert deletions.due(session) == []
        session.execute(update(ObjectDeletion).values(due_at=0.0))  # the lease is over
    tasks.remove_objects()
    assert present(keys) == [False, False]


def test_doctor_tells_of_removals_that_wait_too_long(user: Api) -> None:
    with transaction() as session:
        deletions.forget(session, ["artifacts/2026/01/01/job_x/1.png"])
        session.execute(update(ObjectDeletion).values(created_at=clock.now() - timedelta(hours=2)))
    with reading() as session:
        assert any("still to be removed" in line for line in doctor.findings(session))


# ---------------------------------------------------------------- retention


def age(job_id: str, days: float) -> None:
    """The job's results were stored so many days ago: their ids tell the time."""
    with transaction() as session:
        (artifact_id,) = session.scalars(select(Artifact.id).where(Artifact.job_id == job_id))
        old = since("art", clock.epoch() - days * 86_400) + artifact_id[14:]
        session.execute(update(Artifact).where(Artifact.id == artifact_id).values(id=old))


def expire(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """A sweep with RETENTION_DAYS."""
    kept = settings().model_copy(update={"retention_days": days})
    monkeypatch.setattr(deletions, "settings", lambda: kept)
    with transaction() as session:
        deletions.expire(session)


def test_results_are_kept_for_so_many_days(
    user: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, old_keys = stored_job(user, tmp_path)
    new, new_keys = stored_job(user, tmp_path)
    age(old, 31)
    age(new, 29)
    expire(monkeypatch, 0)
    tasks.remove_objects()
    assert present(old_keys) == [True, True]
    expire(monkeypatch, 30)
    tasks.remove_objects()
    assert (present(old_keys), present(new_keys)) == ([False, False], [True, True])
    shown = user.get(f"/v1/jobs/{old}")
    assert (shown["status"], shown["artifacts"], shown["cost"]["charged"]) == ("succeeded", [], PRICE)
    kinds = [moment["kind"] for moment in user.get(f"/v1/jobs/{old}/timeline")["data"]]
    assert "results_expired" in kinds
    assert len(user.get(f"/v1/jobs/{new}")["artifacts"]) == 1


# ---------------------------------------------------------------- orphans


def listed(keys: list[str], age_s: float) -> list[StoredObject]:
    """Objects as a listing shows them."""
    return [StoredObject(key, 7, clock.epoch() - age_s) for key in keys]


def found(objects: list[StoredObject]) -> list[str]:
    """Which of them nobody knows of."""
    with reading() as session:
        return [each.key for each in deletions.orphans(session, objects, 3600)]


def test_what_nobody_knows_of_is_found(user: Api, tmp_path: Path) -> None:
    job_id, keys = stored_job(user, tmp_path)
    live = str(user.post("/v1/jobs", BODY)["id"])
    day = datetime(2026, 11, 24, tzinfo=UTC)
    lost = [
        artifact_key(job_id, day, 2, "png"),
        artifact_key("job_nobody", day, 1, "png"),
        "uploads/2026/11/24/upl_x.png",
    ]
    of_others = [
        "artifacts/readme.txt",
        "backup/1.tar",
        "uploads/2026/x.png",
        artifact_key(live, day, 1, "mp4"),
    ]
    assert sorted(found(listed([*keys, *lost, *of_others], 7200))) == sorted(lost)
    assert found(listed(lost, 60)) == []
    with transaction() as session:
        deletions.forget(session, lost[:1])
    assert sorted(found(listed(lost, 7200))) == sorted(lost[1:])


def test_once_a_day_what_was_left_behind_is_removed(user: Api, tmp_path: Path, media: Path) -> None:
    _, keys = stored_job(user, tmp_path)
    lost = artifact_key("job_nobody", clock.now(), 1, "png")
    storage().put(lost, tmp_path / "file", "image/png")
    long_ago = time.time() - 90_000
    os.utime(media / lost, (long_ago, long_ago))
    draft = media / ".incoming" / "half"
    draft.touch()
    os.utime(draft, (long_ago, long_ago))
    tasks.tidy()
    tasks.remove_objects()
    assert (present([lost, *keys]), draft.exists()) == ([False, True, True], False)
    storage().put(lost, tmp_path / "file", "image/png")
    os.utime(media / lost, (long_ago, long_ago))
    tasks.tidy()  # was done today
    tasks.remove_objects()
    assert present([lost]) == [True]


def test_operators_see_and_remove_them(app: Flask, tmp_path: Path, media: Path) -> None:
    lost = artifact_key("job_nobody", datetime(2020, 1, 1, tzinfo=UTC), 1, "png")
    (tmp_path / "file").write_bytes(b"content")
    storage().put(lost, tmp_path / "file", "image/png")
    long_ago = time.time() - 7200
    os.utime(media / lost, (long_ago, long_ago))
    runner = app.test_cli_runner()
    assert lost not in runner.invoke(args=["storage", "orphans"]).output
    shown = runner.invoke(args=["storage", "orphans", "--older-than", "1"])
    assert (shown.exit_code, f"{lost}\t7" in shown.output) == (0, True)
    tasks.remove_objects()
    assert present([lost]) == [True]
    runner.invoke(args=["storage", "orphans", "--older-than", "1", "--delete"])
    tasks.remove_objects()
    assert present([lost]) == [False]


def test_drafts_of_killed_workers_leave_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name, hours in (
        ("wxiai-a.part", 30),
        ("wxiai-b.upload", 30),
        ("wxiai-c.part", 1),
        ("other.part", 30),
    ):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - hours * 3600,) * 2)
    removal.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.part", "wxiai-c.part"]
