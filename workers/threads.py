"""What blocks runs in threads: transactions in some, storage in others, so that neither ever waits for the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from common.db import again, transaction

T = TypeVar("T")

_database = ThreadPoolExecutor(8, "database")  # fewer than the pool has connections
_storage = ThreadPoolExecutor(16, "storage")


async def in_transaction(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run `call(session, …)` in a thread, in one transaction of its own."""
    work = partial(_committed, lambda session: call(session, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_database, work)


async def in_storage_thread(call: Callable[..., T], *args: Any) -> T:
    """Run what reads, converts and uploads files."""
    return await asyncio.get_running_loop().run_in_executor(_storage, partial(call, *args))


def _committed(call: Callable[[Session], T]) -> T:
    def once() -> T:
        with transaction() as session:
            return call(session)

    return again(once)
