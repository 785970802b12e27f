"""This very process as one of the platform's: settings, engine and what else a process reads only once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from common import crypto, db, queue, settings, storage
from common.services import catalog

_ONCE = (settings.settings, settings.secret_key, crypto._cipher, db.engine, queue._sender, storage.storage)


@contextmanager
def configured(environment: Mapping[str, str]) -> Iterator[None]:
    """Settings from `environment` for as long as the `with` lasts; then as before."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(catalog, "_known", (float("-inf"), {}))
        _forget()
        try:
            yield
        finally:
            _forget()


def _forget() -> None:
    if db.engine.cache_info().currsize:
        db.engine().dispose()
    for known in _ONCE:
        known.cache_clear()
