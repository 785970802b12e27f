"""The gate that web and workers pass before they serve: no process starts on a schema it cannot use."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from common.db import schema
from common.settings import settings

log = logging.getLogger(__name__)

DEGRADED = 4
_ROOT = Path(__file__).parents[1]


def require_schema() -> None:
    """Return once the schema is usable; else raise SystemExit with the exit code of `python -m migrations`.

    Current already: one SELECT. Otherwise the command upgrades, or with ENABLE_AUTO_MIGRATION=false waits, in
    a process of its own, and what it prints is passed on. SystemExit, because Celery swallows all others.
    """
    if _is_ready():
        return
    code = run_migrations("upgrade" if settings().enable_auto_migration else "wait")
    if code == DEGRADED:
        log.warning("starting on a degraded schema: see `python -m migrations status`")
    elif code:
        raise SystemExit(code if code > 0 else 1)


def _is_ready() -> bool:
    url = settings().database_url
    engine = schema.probe(url)
    try:
        if settings().is_sqlite and not Path(engine.url.database or "").exists():
            return False  # connecting would create the file
        with engine.connect() as connection:
            return schema.is_ready(connection)
    except SQLAlchemyError:
        return False  # the command waits for the database, and says what is wrong with it
    finally:
        engine.dispose()


def run_migrations(command: str) -> int:
    """Run `python -m migrations COMMAND` in a process of its own, which may log to where we do; its exit code."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-m", "migrations", command], env=environment, check=False
    ).returncode
