"""What a test writes down for a doomed worker: who dies where. The worker's side is `doomed`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from common.words import Step

ENVIRONMENT = "DOOM"  # the variable that names the file


class Boundary(StrEnum):
    """Where a step can be cut off. All have `claiming`, `claimed`, `answered`, `recording` and `recorded`."""

    CLAIMING = "claiming"  # the claim is written, not committed
    CLAIMED = "claimed"  # it is committed, and nothing else has happened
    SENDING = "sending"  # submit: that it may have been sent is written, not committed
    SENT = "sent"  # submit: that is committed, and nothing was sent
    FETCHED = "fetched"  # store: the result is here, not in storage
    PUT = "put"  # store: the result is in storage, its thumbnail is not
    THUMBNAIL = "thumbnail"  # store: both are
    ANSWERED = "answered"  # the outside world has answered, and nothing of that is written
    RECORDING = "recording"  # it is written, not committed
    RECORDED = "recorded"  # it is committed


@dataclass(frozen=True)
class Doom:
    """Who dies where: a process of the pool, or (`whole`) its parent with it. `gathered`: how many claims must be
    at that place; `cancels`: only those count whose users want to cancel, else only the others."""

    step: Step
    boundary: Boundary
    gathered: int
    whole: bool = False
    cancels: bool = False
    number: int = 0  # tells one from the next

    def write(self, path: Path) -> None:
        """Have it obeyed from now on."""
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)


def met(path: Path) -> Path:
    """What the file is called once its doom has struck."""
    return path.with_suffix(".met")


def hold(path: Path) -> Path:
    """What stands beside the doom while no job may be claimed for its submit, so that many can be at once."""
    return path.with_suffix(".hold")
