"""Jobs from the request to the stored picture, at a provider that takes no time, beside bare Celery messages."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import redis
from PIL import Image
from sqlalchemy import func, select

from common.models import Job, JobStep
from common.words import Status
from tests.benchmarks.bench import LABELS, Bench, Ground
from tests.benchmarks.harness import Figure, Goal, benchmark, compared, side_by_side
from tests.benchmarks.load import Load
from tests.benchmarks.services import Database
from tests.infrastructure.environment import clean_environment
from tests.infrastructure.processes import Process

CLIENTS = 16
PICTURE_BYTES = 100_000
_BODY = json.dumps({"model": "flux/pro-1.1", "input": {"prompt": "a red fox in snow"}})
_CHAIN = (
    "celery -A tests.benchmarks.chain worker -P prefork -Q chain"
    " --without-mingle --without-gossip --without-heartbeat"
)
_LONGEST_S = 300.0


@benchmark("throughput")
def throughput(bench: Bench) -> Iterator[Figure]:
    """One submit, one poll, one stored picture of 100 kB per job; three no-op tasks per chain; two children each."""
    for kind in bench.kinds(quick="postgresql"):
        yield _measure(bench, kind)


def _measure(bench: Bench, kind: Database) -> Figure:
    ground = bench.platform(kind)
    (ground.folder / "image.jpg").write_bytes(picture(PICTURE_BYTES))
    ground.set(
        BFL_BASE_URL=ground.provider().address,
        BFL_API_KEY="bench",
        BFL_MAX_CONCURRENCY="1000",
        POLL_INTERVAL_S="0.05",
    )
    started = ground.start()
    own_keys = bench.services.valkey.url.removesuffix("/0") + "/1"  # the same server, other queues
    chain = ground.platform.group.start_command("chain", _CHAIN, environment={"REDIS_URL": own_keys})
    tokens = ground.users(CLIENTS)
    count = bench.amount(2000, 20)

    def ours() -> float:
        return _jobs_per_s(ground, tokens, count)

    def chains() -> float:
        return _chains_per_s(own_keys, ground, count, started)

    if not bench.options.quick:  # until both are warm
        ours(), chains()
    assert chain.is_running, chain.output
    rounds = side_by_side(bench.amount(3, 1), ours, chains)
    return compared(
        "jobs end to end", LABELS[kind], "/s", rounds, reference_name="3 no-op Celery tasks",
        goal=Goal(bound=1.0, at_least=True, of_reference=True),
    )  # fmt: skip


def _jobs_per_s(ground: Ground, tokens: list[str], count: int) -> float:
    """From the first request until the last job has succeeded."""
    before = _succeeded(ground)
    load = Load(
        url=f"{ground.platform.url}/v1/jobs", tokens=tokens, body=_BODY, most=count, seconds=_LONGEST_S
    )
    answers = load.run().require(202)
    left = select(func.count()).select_from(JobStep)
    ground.until(lambda: ground.scalar(left) == 0, _LONGEST_S, what="all jobs have ended")
    took_s = time.time() - answers.began_at
    if _succeeded(ground) - before != count:
        raise RuntimeError(f"not all of {count} jobs succeeded")
    return count / took_s


def _succeeded(ground: Ground) -> int:
    return int(
        ground.scalar(select(func.count()).select_from(Job).where(Job.status == Status.SUCCEEDED)) or 0
    )


def _chains_per_s(url: str, ground: Ground, count: int, platform: list[Process]) -> float:
    """The same for chains, while the platform, which would tick now and then, stands still."""
    for process in platform:
        process.pause()
    try:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.chain", str(count)],
            cwd=ground.platform.group.cwd, env=clean_environment({"REDIS_URL": url}),
            check=True, timeout=_LONGEST_S,
        )  # fmt: skip
        with redis.Redis.from_url(url, socket_timeout=5) as client:
            ground.until(
                lambda: not client.llen("chain") and not client.zcard("unacked_index"), _LONGEST_S,
                what="all chains have run",
            )  # fmt: skip
        return count / (time.perf_counter() - began)
    finally:
        for process in platform:
            process.resume()


def picture(size: int) -> bytes:
    """A JPEG of a megapixel, as Flux makes them, of about so many bytes."""
    noise = random.Random(1).randbytes(1024 * 1024 * 3 // 16)
    image = Image.frombytes("RGB", (256, 256), noise).resize((1024, 1024), Image.Resampling.BICUBIC)
    made = b""
    for quality in range(5, 96, 5):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        made = out.getvalue()
        if len(made) >= size:
            break
    return made
