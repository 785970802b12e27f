"""Identifiers that are the same on every import: what was imported before is found again."""

from __future__ import annotations

import hashlib
from datetime import datetime

from ulid import ULID


def lasting_id(prefix: str, table: str, legacy_id: str, created: datetime) -> str:
    """An id of ours for one legacy row: it sorts by the row's own time, and the rest is made of its name."""
    milliseconds = max(0, int(created.timestamp() * 1000))
    digest = hashlib.sha256(f"{table}\0{legacy_id}".encode()).digest()
    return f"{prefix}_{str(ULID(milliseconds.to_bytes(6, 'big') + digest[:10])).lower()}"
