"""The demo jobs: one at each provider, their progress, and a table of what came of them."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tests.infrastructure.client import ENDED, Client, Refused

LONGEST_S = 180.0
LOOK_EVERY_S = 0.25
_JOBS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("midjourney/imagine", {"prompt": "a lighthouse in a storm, oil painting"}),
    ("kling/text-to-video", {"prompt": "a paper boat on a mountain stream"}),
    ("jimeng/text-to-image", {"prompt": "a crane over misty water, ink"}),
    ("flux/pro-1.1", {"prompt": "a red fox in snow"}),
)


def run_jobs(client: Client, console: Console) -> None:
    """Submit them all, show how they go, and print where their results are. Raises Refused."""
    jobs = [client.post("/v1/jobs", {"model": model, "input": given}) for model, given in _JOBS]
    ended = _follow(client, [job["id"] for job in jobs], console)
    console.print(_table(ended))
    failed = [job for job in ended if job["status"] != "succeeded"]
    if failed:
        error = failed[0]["error"] or {"message": f"still {failed[0]['status']}"}
        raise Refused(f"{failed[0]['model']}: {error['message']}")


def _follow(client: Client, job_ids: list[str], console: Console) -> list[dict[str, Any]]:
    columns = (
        TextColumn("{task.fields[model]:<22}"),
        BarColumn(bar_width=32),
        TextColumn("{task.fields[status]:<10}"),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + LONGEST_S
    with Progress(*columns, console=console) as progress:
        bars = {job_id: progress.add_task("", total=100, model="", status="queued") for job_id in job_ids}
        while True:
            jobs = [client.get(f"/v1/jobs/{job_id}") for job_id in job_ids]
            for job in jobs:
                _advance(progress, bars[job["id"]], job)
            if all(job["status"] in ENDED for job in jobs) or time.monotonic() > deadline:
                return jobs
            time.sleep(LOOK_EVERY_S)


def _advance(progress: Progress, bar: TaskID, job: dict[str, Any]) -> None:
    progress.update(bar, completed=job["progress"], model=job["model"], status=job["status"])
    if job["status"] in ENDED:
        progress.stop_task(bar)


def _table(jobs: list[dict[str, Any]]) -> str:
    """Aligned text and not a table of rich's, which would cut URLs to fit a terminal."""
    rows = [("job", "provider", "seconds", "credits", "URL")]
    for job in jobs:
        urls = [artifact["url"] for artifact in job["artifacts"]] or [job["status"]]
        rows.append((job["id"], job["provider"], _seconds(job), str(job["cost"]["charged"]), urls[0]))
        rows += [("", "", "", "", url) for url in urls[1:]]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ("  ".join([*map(str.ljust, row[:4], widths), row[4]]).rstrip() for row in rows)
    return "\n" + "\n".join(lines)


def _seconds(job: dict[str, Any]) -> str:
    if job["finished_at"] is None:
        return "-"
    began, ended = datetime.fromisoformat(job["created_at"]), datetime.fromisoformat(job["finished_at"])
    return f"{(ended - began).total_seconds():.1f}"
