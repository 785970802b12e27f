"""Identifiers: a prefix that says what it is, and a ULID that sorts by time.

A ULID is 48 bits of milliseconds and 80 of randomness as 26 digits of Crockford's base32
(https://github.com/ulid/spec); written here because each accepted job needs two, quickly.
"""

import os
import time

ID_LENGTH = 30  # four characters of prefix, 26 of ULID
_TIME_LENGTH = 10  # of the ULID: milliseconds
_RANDOM_BYTES = 10
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]  # ten bits each
_SHIFTS = range(120, -1, -10)


def new_id(prefix: str) -> str:
    """A new identifier such as `job_01kb3…`, for `job art att evt tok pay …`."""
    return f"{prefix}_{_ulid(time.time(), int.from_bytes(os.urandom(_RANDOM_BYTES)))}"


def since(prefix: str, moment: float) -> str:
    """What all identifiers of that kind made at this moment (epoch seconds) or later are greater than."""
    return f"{prefix}_{_ulid(moment, 0)[:_TIME_LENGTH]}"


def _ulid(moment: float, randomness: int) -> str:
    number = int(moment * 1000) << 8 * _RANDOM_BYTES | randomness
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
