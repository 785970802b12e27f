"""Identifiers: a prefix that says what it is, and a ULID that sorts by time."""

from ulid import ULID

ID_LENGTH = 30  # four characters of prefix, 26 of ULID
_TIME_LENGTH = 10  # of the ULID: milliseconds


def new_id(prefix: str) -> str:
    """A new identifier such as `job_01KB3…`, for `job att art evt tok pay …`."""
    return f"{prefix}_{str(ULID()).lower()}"


def since(prefix: str, moment: float) -> str:
    """What all identifiers of that kind made at this moment (epoch seconds) or later are greater than."""
    return f"{prefix}_{str(ULID.from_timestamp(moment)).lower()[:_TIME_LENGTH]}"
