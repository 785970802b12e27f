"""How a simulated generation goes: what its prompt asks for, and how far it is at a moment.

A prompt may hold directives in brackets, so that a job can be steered from anywhere, also through another process:
`[moderate-input]` `[moderate-output]` `[fail]` `[queue=5]` and `[run=30]` (seconds in the provider's queue and at work)
`[moderate-output=1]` (of several pictures only the first, where the provider looks at each by itself)
`[expire]` (the result's URL is dead at once) `[truncate]` (the result's bytes are cut).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

_DIRECTIVE = re.compile(r"\[([a-z-]+)(?:=(\d+(?:\.\d+)?))?\]")


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds in the provider's queue and at work, for jobs whose prompt says nothing else."""

    queue_s: float = 0.2
    run_s: float = 1.0


QUICK = Pace()


@dataclass(slots=True)
class Generation:
    """One generation at a simulated provider. `reference` is what the client called it, where it can."""

    id: str
    prompt: str
    pace: Pace
    reference: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    made_at: float = field(default_factory=time.time)
    held_s: float = 0.0  # waited for a free slot at the provider, before its time in the queue
    canceled: bool = False
    results: list[str] | None = None  # URLs, made once
    hooked: int = 0  # how often its webhook was called

    def wants(self, directive: str) -> bool:
        """Whether the prompt holds `[directive]`."""
        return directive in _directives(self.prompt)

    @property
    def queue_s(self) -> float:
        """Seconds in the provider's queue."""
        return self._seconds("queue", self.pace.queue_s)

    @property
    def run_s(self) -> float:
        """Seconds at work."""
        return self._seconds("run", self.pace.run_s)

    def number_of(self, directive: str) -> int | None:
        """The number in `[directive=number]`, None without one."""
        asked = _directives(self.prompt).get(directive)
        return int(float(asked)) if asked else None

    def _seconds(self, directive: str, usual: float) -> float:
        asked = _directives(self.prompt).get(directive)
        return float(asked) if asked else usual

    @property
    def starts_at(self) -> float:
        """When work on it begins, in epoch seconds."""
        return self.made_at + self.held_s + self.queue_s

    @property
    def done_at(self) -> float:
        """When it is over, in epoch seconds."""
        return self.starts_at + self.run_s

    def progress(self) -> float | None:
        """None while queued, then 0 to 1; 1 once it is over."""
        age_s = time.time() - self.starts_at
        if age_s < 0:
            return None
        return min(1.0, age_s / self.run_s) if self.run_s > 0 else 1.0

    @property
    def is_over(self) -> bool:
        """Whether it is finished, one way or another."""
        return self.canceled or self.progress() == 1.0


@lru_cache(10_000)
def _directives(prompt: str) -> dict[str, str]:
    """What stands in brackets, with its number if it has one."""
    return dict(_DIRECTIVE.findall(prompt))
