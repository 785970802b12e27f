"""What a process has only so much of, and who gets it next."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Places:
    """So many at once, and no more than a few of them for one `owner`. Whoever has the fewest is next.

    So one who wants many slow ones waits for himself: another's first does not queue up behind them.
    """

    def __init__(self, total: int, each: int) -> None:
        self._free = total
        self._each = each
        self._held: Counter[object] = Counter()
        self._waiting: list[tuple[object, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def one(self, owner: object) -> AsyncIterator[None]:
        """A place for as long as the `with` lasts."""
        await self._enter(owner)
        try:
            yield
        finally:
            self._leave(owner)

    async def _enter(self, owner: object) -> None:
        waits = (owner, asyncio.get_running_loop().create_future())
        self._waiting.append(waits)
        self._give_out()
        try:
            await waits[1]
        except asyncio.CancelledError:
            if waits in self._waiting:
                self._waiting.remove(waits)
            else:  # it got its place in the very moment
                self._leave(owner)
            raise

    def _leave(self, owner: object) -> None:
        self._free += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        self._give_out()

    def _give_out(self) -> None:
        while self._free and (fit := [each for each in self._waiting if self._held[each[0]] < self._each]):
            owner, place = chosen = min(fit, key=lambda each: self._held[each[0]])  # of equals the first
            self._waiting.remove(chosen)
            self._free -= 1
            self._held[owner] += 1
            if not place.done():
                place.set_result(None)


class Budget:
    """So many bytes of memory at once, given out in the order of asking. Who wants more than all gets all, alone."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def free(self) -> int:
        """How many bytes nobody holds."""
        return self._free

    @asynccontextmanager
    async def held(self, wanted: int) -> AsyncIterator[None]:
        """So many bytes for as long as the `with` lasts."""
        size = min(wanted, self._total)
        await self._enter(size)
        try:
            yield
        finally:
            self._leave(size)

    async def _enter(self, size: int) -> None:
        waits = (size, asyncio.get_running_loop().create_future())
        self._waiting.append(waits)
        self._give_out()
        try:
            await waits[1]
        except asyncio.CancelledError:
            if waits in self._waiting:
                self._waiting.remove(waits)
                self._give_out()  # it may have kept smaller ones waiting
            else:
                self._leave(size)
            raise

    def _leave(self, size: int) -> None:
        self._free += size
        self._give_out()

    def _give_out(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, place = self._waiting.popleft()
            self._free -= size
            if not place.done():
                place.set_result(None)


# Of media on their way to a provider inside a request, and of answers that bring media: well below the memory
# at which a process is replaced (`worker_max_memory_per_child`), which would cut off what is being sent.
INLINE = Budget(128 * 1024 * 1024)
