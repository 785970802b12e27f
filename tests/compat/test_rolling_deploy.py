"""The release before and this one work on the same database while it is upgraded: neither sees an error."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.orm import Session

from common import clock
from common.db import again, build_engine, compat
from common.db.types import Base
from common.ids import new_id
from common.models import Artifact, Job, Tool, User
from tests.compat.releases import RELEASES
from tests.infrastructure.children import wait_until
from tests.infrastructure.environment import ROOT
from tests.migrations.test_convergence import upgrade_to
from tests.migrations.trees import migrations

EACH = 2  # clients of either release
UNITS = 10  # of work on either side of the upgrade


class Clients:
    """Of both releases, at work until the `with` ends."""

    def __init__(self, **kinds: Callable[[], None]) -> None:
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(name, unit), daemon=True)
            for name, unit in kinds.items()
            for _ in range(EACH)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self, name: str, unit: Callable[[], None]) -> None:
        while not self._stop.wait(0.005):
            try:
                unit()
                self.done[name] += 1
            except Exception as error:
                self.errors.append(f"{name}: {type(error).__name__}: {error}"[:500])

    def go_on(self) -> None:
        """Until all kinds have done some more."""
        wanted = {name: self.done[name] + UNITS for name in ("old", "new")}
        wait_until(lambda: all(self.done[name] >= count for name, count in wanted.items()), 60, what="work")


def _user(**others: Any) -> dict[str, Any]:
    key = new_id("user")
    return {"id": key, "name": "n", "email": f"{key}@example.com", "role": "user", "profile_image_url": "",
            "created_at": 1, "updated_at": 1, "last_active_at": 1, **others}  # fmt: skip


def _job(user_id: str, metadata: str, **others: Any) -> dict[str, Any]:
    return {"id": new_id("job"), "user_id": user_id, "status": "queued", "provider": "flux", "model": "flux/dev",
            "action": "generate", "input": {}, metadata: {}, "priority": 0, "price": 10, "progress": 0,
            "actions": [], "attempts": 0, "late": False, "deadline_at": clock.now(), "created_at": clock.now(),
            **others}  # fmt: skip


def _artifact(job_id: str, **others: Any) -> dict[str, Any]:
    return {"id": new_id("art"), "job_id": job_id, "number": 0, "kind": "image", "key": "k", "bytes": 1,
            "content_type": "image/png", "sha256": "0", "created_at": clock.now(), **others}  # fmt: skip


def old_unit(engine: Any, release: ModuleType) -> None:
    """What the release before does: it knows its own tables, and names every column of them."""
    with engine.begin() as connection:
        user, job = _user(), _job("", "metadata")
        connection.execute(insert(release.USER), user)
        connection.execute(insert(release.JOB), job | {"user_id": user["id"]})
        connection.execute(insert(release.ARTIFACT), _artifact(job["id"]))
        connection.execute(
            insert(release.TOOL),
            {"id": new_id("tool"), "user_id": user["id"], "name": "t", "content": "", "specs": "", "meta": "",
             "created_at": 1, "updated_at": 1},
        )  # fmt: skip
        connection.execute(
            update(release.JOB).where(release.JOB.c.id == job["id"]).values(status="succeeded")
        )
        for table in (release.USER, release.JOB, release.ARTIFACT, release.TOOL):
            assert connection.execute(select(table).limit(3)).all()


def new_unit(engine: Any) -> None:
    """What this release does, with its models, and what it has that is new."""
    with Session(engine) as session, session.begin():
        user = User(**_user(phone=new_id("tel")))
        job = Job(**_job(user.id, "metadata_"))
        session.add_all([user, job])
        session.flush()
        session.add(Artifact(**_artifact(job.id, url="https://media.example/a")))
        session.flush()
        job.status = "succeeded"
        session.flush()
        session.expire_all()
        assert job.status == "succeeded"
        query = (
            select(User, Artifact).join(Job, Job.user_id == User.id).join(Artifact, Artifact.job_id == Job.id)
        )
        assert len(session.execute(query.where(User.id == user.id)).all()) == 1
        session.scalars(select(Tool).where(Tool.access_control.is_(None)).limit(3)).all()
        session.scalars(select(User).order_by(User.phone.desc()).limit(3)).all()


@pytest.fixture
def engines(database_url: str) -> Iterator[tuple[Engine, Engine]]:
    """Of the release before, and of this one."""
    made = build_engine(database_url), build_engine(database_url)
    yield made
    for engine in made:
        engine.dispose()


@pytest.mark.parametrize("release", RELEASES, ids=lambda module: module.HEAD)
def test_an_upgrade_under_load(
    release: ModuleType,
    database_url: str,
    engines: tuple[Engine, Engine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compat, "LOOK_EVERY_S", 0.2)
    upgrade_to(database_url, release.HEAD)
    before, after = engines
    mode = compat.install(after, Base.metadata)
    assert mode is not None
    assert mode.lacking["user"] == {"phone"}
    units = {"old": lambda: old_unit(before, release), "new": lambda: again(lambda: new_unit(after))}
    with Clients(**units) as clients:
        clients.go_on()
        done = migrations(ROOT, "upgrade", DATABASE_URL=database_url, MIGRATION_BACKUP="off")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: not mode.lacking, 30, what="this release sees the new schema")
        clients.go_on()
    assert clients.errors == []
    with Session(after) as session:
        counts = dict(
            session.execute(select(User.phone.is_(None), func.count()).group_by(User.phone.is_(None))).all()
        )
        assert (
            sum(counts.values()) == session.scalar(select(func.count(Job.id))) == sum(clients.done.values())
        )
        assert counts[False] >= UNITS  # the telephones of those who came when there was room for them
    mode.close()
