"""Who is next, and at which account: the rules of giving out slots, without a database."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

UNLIMITED = 1 << 31
_AT_LEAST = 8  # jobs of a pile that are worth a look of its own
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
    refused_by: frozenset[str] = frozenset()  # accounts that have said that they cannot serve it

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
        """Whether the job may go there at all: its API has the model, a follow-up stays at its account, and nobody
        is asked again who cannot."""
        may_go = job.pinned_account_id in (None, self.account_id) and self.account_id not in job.refused_by
        return may_go and job.model in self.models

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
    """Waiting jobs in fair order: first the user with the least in flight for his weight,
    then by priority, then by age.

    It is given the first `known` jobs of every pile, or all if a pile has fewer. When a user's turn comes and one
    of his piles is used up, `more` is asked for the first so many of each of his piles that may hold more.
    """

    def __init__(
        self,
        jobs: Iterable[Waiting],
        known: int,
        in_flight: Mapping[str, int],
        weights: Mapping[str, int],  # of users; 1 where none is named
        more: Callable[[str, list[str], int], Iterable[Waiting]],  # of a user, for these models, so many each
    ) -> None:
        self._in_flight = Counter(in_flight)
        self._weights = weights
        self._more = more
        self._seen: set[str] = set()
        self._found: Counter[tuple[str, str]] = Counter()  # by pile
        self._left: Counter[tuple[str, str]] = Counter()  # of those, by pile
        self._deep: dict[str, list[str]] = {}  # by user, the models of the piles that may hold more
        self._known: defaultdict[str, int] = defaultdict(lambda: known)  # by user, of each such pile
        self._used_up: dict[
            str, _Rank
        ] = {}  # by user, what the next job of a used-up pile cannot be better than
        self._jobs: defaultdict[str, list[tuple[_Rank, Waiting]]] = defaultdict(list)  # by user, as heaps
        self._users: list[tuple[float, _Rank, str]] = []  # a heap
        self._add(jobs)
        for (user_id, model), found in self._found.items():
            if found >= known:
                self._deep.setdefault(user_id, []).append(model)
        for user_id in list(self._jobs):
            self._queue(user_id)
        self._last: Waiting | None = None

    def next(self) -> Waiting | None:
        """The job whose turn it is; None when all have had it."""
        if self._last is not None:  # only now it is known whether it was served
            self._queue(self._last.user_id)
            self._last = None
        while self._users:
            *_, user_id = heapq.heappop(self._users)
            if user_id not in self._used_up:
                return self._take(user_id)
            self._look_under(user_id)
            self._queue(user_id)
        return None

    def served(self, job: Waiting) -> None:
        """The job has got an account: its user's next one has to wait longer."""
        self._in_flight[job.user_id] += 1

    def _take(self, user_id: str) -> Waiting:
        _, job = heapq.heappop(self._jobs[user_id])
        self._left[job.pile] -= 1
        if not self._left[job.pile] and job.model in self._deep.get(user_id, ()):
            self._used_up[user_id] = job.rank
        self._last = job
        return job

    def _look_under(self, user_id: str) -> None:
        del self._used_up[user_id]
        models = self._deep[user_id]
        self._known[user_id] += max(_AT_LEAST, self._known[user_id])
        self._add(self._more(user_id, models, self._known[user_id]))
        self._deep[user_id] = [m for m in models if self._found[user_id, m] >= self._known[user_id]]

    def _add(self, jobs: Iterable[Waiting]) -> None:
        for job in jobs:
            if job.job_id not in self._seen:
                self._seen.add(job.job_id)
                self._found[job.pile] += 1
                self._left[job.pile] += 1
                heapq.heappush(self._jobs[job.user_id], (job.rank, job))

    def _queue(self, user_id: str) -> None:
        """Line the user up behind those with a smaller load, by the rank of his best job or a guess not below it."""
        ranks = [jobs[0][0]] if (jobs := self._jobs[user_id]) else []
        ranks += [self._used_up[user_id]] if user_id in self._used_up else []
        if ranks:
            load = self._in_flight[user_id] / self._weights.get(user_id, 1)
            heapq.heappush(self._users, (load, min(ranks), user_id))
