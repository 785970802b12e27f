"""Names of stored objects: readable by a person, the same on every repeat of a step."""

from __future__ import annotations

from datetime import UTC, datetime

ROOMS = ("artifacts", "uploads")  # what our keys begin with
KEY_BYTES = 850  # the limit of Tencent COS


def artifact_key(job_id: str, created_at: datetime, number: int, extension: str) -> str:
    """`artifacts/2026/11/24/job_…/1.png`; the day is the job's own (UTC), so a repeat finds the same key."""
    return f"artifacts/{_day(created_at)}/{job_id}/{number}.{extension}"


def thumbnail_key(job_id: str, created_at: datetime, number: int, extension: str = "jpg") -> str:
    """`artifacts/2026/11/24/job_…/1.thumbnail.jpg`, beside the artifact it shows."""
    return f"artifacts/{_day(created_at)}/{job_id}/{number}.thumbnail.{extension}"


def upload_key(upload_id: str, created_at: datetime, extension: str) -> str:
    """`uploads/2026/11/24/upl_….png`: an input that a user brought."""
    return f"uploads/{_day(created_at)}/{upload_id}.{extension}"


def day_prefix(room: str, day: datetime) -> str:
    """What the keys of a day's objects begin with: `artifacts/2026/11/24/`."""
    return f"{room}/{_day(day)}/"


def check_key(key: str) -> str:
    """The key itself, if it names an object below the root and nothing hidden. Raises ValueError."""
    parts = key.split("/")
    if any(not part or part.startswith(".") for part in parts):
        raise ValueError("a storage key has no empty part and none that starts with a dot")
    if "\\" in key or not key.isprintable() or len(key.encode()) > KEY_BYTES:
        raise ValueError(f"a storage key is printable, without backslash, and has at most {KEY_BYTES} bytes")
    return key


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y/%m/%d")
