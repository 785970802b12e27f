"""What blocks runs in threads: transactions in some, storage in others, so that neither ever waits for the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from common.db import again, reading, transaction
from common.settings import settings

T = TypeVar("T")

_storage = ThreadPoolExecutor(16, "storage")


@cache
def _writers() -> ThreadPoolExecutor:
    """Fewer than the pool has connections; one for SQLite, which has one writer at a time and lets the others sleep.

    What waits here instead is written down together.
    """
    return ThreadPoolExecutor(1 if settings().is_sqlite else 8, "database")


@cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "reading")


async def in_transaction(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run `call(session, …)` in a thread, in one transaction of its own."""
    work = partial(_committed, lambda session: call(session, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_writers(), work)


async def in_reading(call: Callable[..., T], *args: Any) -> T:
    """Run `call(session, …)`, which only looks, in a thread of its own: it never waits for those that write."""
    return await asyncio.get_running_loop().run_in_executor(_readers(), partial(_read, call, *args))


async def in_storage_thread(call: Callable[..., T], *args: Any) -> T:
    """Run what reads, converts and uploads files."""
    return await asyncio.get_running_loop().run_in_executor(_storage, partial(call, *args))


def _committed(call: Callable[[Session], T]) -> T:
    def once() -> T:
        with transaction() as session:
            return call(session)

    return again(once)


def _read(call: Callable[..., T], *args: Any) -> T:
    with reading() as session:
        return call(session, *args)
