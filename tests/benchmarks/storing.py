"""How much memory it takes to bring a large video from a provider into Tencent COS."""

from __future__ import annotations

import statistics
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psutil

from tests.benchmarks.bench import Bench, members, memory_mb
from tests.benchmarks.harness import Figure, Goal, benchmark
from tests.simulators.clip import CLIP
from tests.simulators.cos import Cos
from tests.simulators.frame import Stage

_MB = 1024 * 1024
_SMALL_MB = 1  # what is loaded at the first use is loaded then
_GOAL = Goal(bound=64)
_LONGEST_S = 300.0
_LOOK_S = 0.02


@benchmark("storing")
def storing(bench: Bench) -> Iterator[Figure]:
    """The worker machine's memory while it stores one video, above what it needs at rest after a small one."""
    size_mb = bench.amount(1024, 64)
    cos = Cos(folder=bench.folder / "cos")
    with ExitStack() as stack:
        stack.enter_context(Stage([cos]))
        ground = bench.platform(bench.kinds(quick="sqlite")[0])
        for name, megabytes in (("small.mp4", _SMALL_MB), ("large.mp4", size_mb)):
            film(ground.folder / name, megabytes * _MB)
        ground.set(KLING_BASE_URL=ground.provider().address, KLING_API_KEY="bench", POLL_INTERVAL_S="0.2")
        ground.set(
            STORAGE="cos", COS_BUCKET=cos.bucket, COS_DOMAIN=cos.host, COS_SCHEME="http",
            COS_SECRET_ID=cos.keys.secret_id, COS_SECRET_KEY=cos.keys.secret_key,
        )  # fmt: skip
        started = ground.start()
        user = ground.platform.user()
        workers = members(process for process in started if process.name == "worker")

        def store(name: str) -> None:
            job = user.ended(user.submit("kling/text-to-video", name)["id"], _LONGEST_S)
            if job["status"] != "succeeded" or [made["bytes"] for made in job["artifacts"]] != [
                (ground.folder / name).stat().st_size
            ]:
                raise RuntimeError(f"not stored: {job}")

        for _ in range(bench.amount(4, 1)):  # until each child has done it
            store("small.mp4")
        at_rest = statistics.median(memory_mb(workers) for _ in range(5))
        began = time.perf_counter()
        with _Peak(workers) as peak:
            store("large.mp4")
        took_s = time.perf_counter() - began
        yield Figure(
            what=f"memory above idle, storing {size_mb} MB", value=peak.mb - at_rest, unit="MB", goal=_GOAL
        )
        yield Figure(what="memory of the worker at rest", value=at_rest, unit="MB")
        yield Figure(what="from the request to the stored video", value=size_mb / took_s, unit="MB/s")


class _Peak:
    """The most memory that processes had at any look while the `with` lasted."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self.mb = 0.0
        self._processes = processes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.mb = max(self.mb, memory_mb(self._processes))


def film(path: Path, size: int) -> None:
    """A real film with so much room left behind it. The room is a hole: reading it costs no disk."""
    with path.open("wb") as file:
        file.write(CLIP + struct.pack(">I4s", size - len(CLIP), b"free"))
        file.truncate(size)
