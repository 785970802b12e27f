"""What the compatibility mode costs while the schema is whole: nothing is in the way then, and this proves it."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from common.db import build_engine, compat
from common.db.types import Base
from common.models import User
from tests.benchmarks.bench import LABELS, Bench
from tests.benchmarks.harness import Figure, Goal, benchmark, compared

_GOAL = Goal(bound=1.02, of_reference=True)
_WARM = 20


@benchmark("compat")
def cost(bench: Bench) -> Iterator[Figure]:
    """The same reads and writes on an engine with the mode and on one without, in turns: calls and processor time."""
    for kind in bench.kinds(quick="sqlite"):
        ground = bench.platform(kind)
        url = ground.platform.group.environment["DATABASE_URL"]
        bare, ready = build_engine(url), build_engine(url)
        mode = compat.install(ready, Base.metadata)
        if mode is None or mode.lacking:
            raise RuntimeError("the mode is not installed, or the schema is not whole")
        for what, work in (("read", _read), ("write", _write)):
            yield _calls(f"Python calls per {what}", LABELS[kind], work, ready, bare)
            rounds = [
                _side_by_side_us(work, ready, bare, bench.amount(300, 20)) for _ in range(bench.amount(9, 3))
            ]
            took = tuple(one for one, _ in rounds), tuple(other for _, other in rounds)
            yield compared(
                f"processor time per {what}", LABELS[kind], "µs", took, reference_name="without", goal=_GOAL
            )
        mode.close()
        bare.dispose()
        ready.dispose()


def _read(engine: Engine) -> None:
    with Session(engine) as session:
        session.connection(execution_options={"reads_only": True})
        session.scalars(select(User).where(User.role == "admin").order_by(User.created_at).limit(1)).all()


def _write(engine: Engine) -> None:
    with Session(engine) as session:
        session.execute(update(User).where(User.id == "nobody").values(phone=None, name="n"))
        session.rollback()


def _side_by_side_us(
    work: Callable[[Engine], None], ready: Engine, bare: Engine, times: int
) -> tuple[float, float]:
    """This thread's processor time, the median of either: a busy machine would hide two in a hundred otherwise."""
    took: dict[Engine, list[float]] = {ready: [], bare: []}
    for number in range(times):
        for engine in (ready, bare) if number % 2 else (bare, ready):
            began = time.thread_time()
            work(engine)
            took[engine].append(1e6 * (time.thread_time() - began))
    return statistics.median(took[ready]), statistics.median(took[bare])


def _calls(what: str, where: str, work: Callable[[Engine], None], ready: Engine, bare: Engine) -> Figure:
    with_it, without = (_counted(work, engine) for engine in (ready, bare))
    return Figure(
        what=what, where=where, value=with_it, reference=without, reference_name="without", goal=_GOAL
    )


def _counted(work: Callable[[Engine], None], engine: Engine) -> int:
    for _ in range(_WARM):
        work(engine)
    seen = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal seen
        seen += event == "call"

    sys.setprofile(count)
    try:
        work(engine)
    finally:
        sys.setprofile(None)
    return seen
