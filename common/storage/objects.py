"""What a listing of a storage is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it; `modified_at` in epoch seconds."""

    key: str
    bytes: int
    modified_at: float
