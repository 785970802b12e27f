"""Identifiers: a prefix that says what it is, and a ULID that sorts by time."""

from ulid import ULID

ID_LENGTH = 30  # four characters of prefix, 26 of ULID


def new_id(prefix: str) -> str:
    """A new identifier such as `job_01KB3…`, for `job att art evt tok pay …`."""
    return f"{prefix}_{str(ULID()).lower()}"
