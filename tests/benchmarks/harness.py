"""What a benchmark is made of: figures with goals, and two things measured side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.bench import Bench


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound: of the figure itself, or (`of_reference`) of its ratio to the reference."""

    bound: float
    at_least: bool = False
    of_reference: bool = False

    def is_met(self, value: float) -> bool:
        """Whether a figure, or its ratio, is on the right side."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number. Without a goal it only explains the others."""

    what: str
    where: str = ""  # database, size
    value: float
    unit: str = ""
    reference: float | None = None
    reference_name: str = ""
    goal: Goal | None = None
    rounds: tuple[float, ...] = ()  # what the value is the median of
    reference_rounds: tuple[float, ...] = ()

    @property
    def ratio(self) -> float | None:
        """The value in units of its reference."""
        return self.value / self.reference if self.reference else None

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing where there is no goal."""
        if self.goal is None:
            return ""
        judged = self.ratio if self.goal.of_reference else self.value
        return "met" if judged is not None and self.goal.is_met(judged) else "missed"


Benchmark = Callable[["Bench"], Iterable[Figure]]
BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(name: str) -> Callable[[Benchmark], Benchmark]:
    """Register a function that measures and yields figures."""

    def register(function: Benchmark) -> Benchmark:
        BENCHMARKS[name] = function
        return function

    return register


def side_by_side(
    rounds: int, ours: Callable[[], float], theirs: Callable[[], float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure both in turns, beginning with the other one each time, so that a drift of the machine hits both."""
    seen: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            seen[which].append((ours, theirs)[which]())
    return tuple(seen[0]), tuple(seen[1])


def compared(
    what: str,
    where: str,
    unit: str,
    rounds: tuple[tuple[float, ...], tuple[float, ...]],
    *,
    reference_name: str,
    goal: Goal | None = None,
) -> Figure:
    """The median of our rounds beside the median of the yardstick's."""
    return Figure(
        what=what,
        where=where,
        value=statistics.median(rounds[0]),
        unit=unit,
        reference=statistics.median(rounds[1]),
        reference_name=reference_name,
        goal=goal,
        rounds=rounds[0],
        reference_rounds=rounds[1],
    )


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` of them (0 to 1) do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
