"""Who is next, and at which account: the rules of giving out slots, without a database."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

UNLIMITED = 1 << 31
_Rank: TypeAlias = tuple[int, float, str]


class Waiting(NamedTuple):
    """A job that waits for an account."""

    job_id: str
    user_id: str
    model: str
    priority: int
    created_at: float
    slots: int
    pinned_account_id: str | None

    @property
    def pile(self) -> tuple[str, str]:
        """Jobs of one user for one model wait in one pile, the first on top."""
        return self.user_id, self.model

    @property
    def rank(self) -> _Rank:
        """By priority, then by age."""
        return -self.priority, self.created_at, self.job_id


# ---------------------------------------------------------------- accounts


@dataclass(slots=True, kw_only=True)
class Room:
    """What one account can take while slots are given out."""

    account_id: str
    models: tuple[str, ...]
    limit: int
    used: int
    weight: int
    failures: int  # in a row
    submits_left: int = UNLIMITED  # by its rate, or one as a probe
    is_half_open: bool = False
    is_overdue: bool = False  # half-open for so long that somebody has to try
    kept_free: bool = False  # for a job that needs more slots than are free just now

    def serves(self, job: Waiting) -> bool:
        """Whether the job may go there at all: its API has the model, and a follow-up stays at its account."""
        return job.model in self.models and job.pinned_account_id in (None, self.account_id)

    @property
    def is_open(self) -> bool:
        """Whether it can take anything now."""
        return self.submits_left > 0 and self.used < self.limit and not self.kept_free

    def has_slots_for(self, job: Waiting) -> bool:
        """A job that needs more than the account has gets it all."""
        return self.used + min(job.slots, self.limit) <= self.limit

    def take(self, job: Waiting) -> None:
        """Give its slots to the job."""
        self.used += job.slots
        self.submits_left -= 1

    @property
    def rank(self) -> _Rank:
        """Smaller is better: by load for its weight, less to what has failed lately, a probe only if need be."""
        urgency = 1 if not self.is_half_open else 0 if self.is_overdue else 2
        return urgency, (self.used + 1) / max(1, self.weight) * (1 + self.failures), self.account_id


def place(job: Waiting, rooms: Iterable[Room]) -> Room | None:
    """The best account for the job, with its slots taken; None where none has room.

    Where only slots are missing, the account nearest to having them is kept free for the job: it would wait for
    ever if smaller ones were let past it.
    """
    able = [room for room in rooms if room.is_open and room.serves(job)]
    fitting = [room for room in able if room.has_slots_for(job)]
    if fitting:
        best = min(fitting, key=lambda room: room.rank)
        best.take(job)
        return best
    if able:
        max(able, key=lambda room: room.limit - room.used).kept_free = True
    return None


# ---------------------------------------------------------------- users


class Turns:
    """Waiting jobs in fair order: first the user with the least in flight, then by priority, then by age.

    It is given the first `known` jobs of every pile, or all if a pile has fewer. When a user's turn comes and one
    of his piles is used up, `more` fetches what lies under them, once.
    """

    def __init__(
        self,
        jobs: Iterable[Waiting],
        known: int,
        in_flight: Mapping[str, int],
        more: Callable[[str, list[str]], Iterable[Waiting]],  # of a user, for these models
    ) -> None:
        self._in_flight = Counter(in_flight)
        self._more = more
        self._seen: set[str] = set()
        self._left: Counter[tuple[str, str]] = Counter()  # by pile
        self._jobs: defaultdict[str, list[tuple[_Rank, Waiting]]] = defaultdict(list)  # by user, as heaps
        self._users: list[tuple[int, _Rank, str]] = []  # a heap
        self._add(jobs)
        self._deep: defaultdict[str, list[str]] = defaultdict(list)  # models of a user's piles that go deeper
        for (user_id, model), left in self._left.items():
            if left >= known:
                self._deep[user_id].append(model)
        for user_id in self._jobs:
            self._queue(user_id)
        self._last: Waiting | None = None

    def next(self) -> Waiting | None:
        """The job whose turn it is; None when all have had it."""
        self._requeue()
        if not self._users:
            return None
        *_, user_id = heapq.heappop(self._users)
        _, self._last = heapq.heappop(self._jobs[user_id])
        self._left[self._last.pile] -= 1
        return self._last

    def served(self, job: Waiting) -> None:
        """The job has got an account: its user's next one has to wait longer."""
        self._in_flight[job.user_id] += 1

    def _requeue(self) -> None:
        """The user of the last job queues up again, with what comes next."""
        if self._last is None:
            return
        user_id, model = self._last.pile
        if model in self._deep[user_id] and not self._left[user_id, model]:
            self._add(self._more(user_id, self._deep.pop(user_id)))
        self._queue(user_id)
        self._last = None

    def _add(self, jobs: Iterable[Waiting]) -> None:
        for job in jobs:
            if job.job_id not in self._seen:
                self._seen.add(job.job_id)
                self._left[job.pile] += 1
                heapq.heappush(self._jobs[job.user_id], (job.rank, job))

    def _queue(self, user_id: str) -> None:
        if self._jobs[user_id]:
            heapq.heappush(self._users, (self._in_flight[user_id], self._jobs[user_id][0][0], user_id))
