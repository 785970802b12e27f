"""Processes that upgrade at the same time, forked from a server that has imported everything."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import types
from multiprocessing.process import BaseProcess
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from migrations.waiting import process_started

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(["tests.migrations.children", "alembic.command", "psycopg"])

_LOOKING = ("SELECT", "PRAGMA", "WITH", "SHOW")  # a death before these is the death after what came before


def stub_setup(session: Session, calls: list[str]) -> list[str]:
    """Stands for common.services.setup: makes the first admin."""
    calls.append("called")
    columns = "id, name, email, role, profile_image_url, created_at, updated_at, last_active_at"
    session.execute(
        sa.text(
            f"INSERT INTO \"user\" ({columns}) VALUES ('admin', 'Admin', 'a@example.com', 'admin', '', 0, 0, 0)"
        )
    )
    return ["Admin: a@example.com"]


def _die_before(boundary: int) -> None:
    """SIGKILL before the main thread's so manieth statement that changes something, or commit."""
    boundaries = itertools.count(1)

    def pass_one(*_: object) -> None:
        if threading.current_thread() is threading.main_thread() and next(boundaries) == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(_connection: object, _cursor: object, sql: str, *_: object) -> None:
        if not sql.lstrip().upper().startswith(_LOOKING):
            pass_one()

    sa.event.listen(sa.Engine, "before_cursor_execute", before)
    sa.event.listen(sa.Engine, "commit", pass_one)


def _upgrade(given: Settings, folder: Path, log_file: Path, lease_s: float, die_before: int) -> None:
    if die_before:
        _die_before(die_before)
    logging.basicConfig(filename=log_file, level=logging.INFO, force=True)
    module = types.ModuleType("common.services.setup")
    module.prepare_fresh_database = lambda session: stub_setup(session, [])  # type: ignore[attr-defined]
    sys.modules["common.services.setup"] = module
    outcome = runner.upgrade(given, Chain(folder), since=process_started(), lease_s=lease_s)
    logging.getLogger("outcome").info(outcome.line)
    sys.exit(int(outcome.code))


def start_upgrade(
    given: Settings, folder: Path, log_file: Path, *, lease_s: float = 15.0, die_before: int = 0
) -> BaseProcess:
    """Start one process that upgrades; its exit code is the outcome's, or -9 if it came to `die_before`."""
    process = _forkserver.Process(target=_upgrade, args=(given, folder, log_file, lease_s, die_before))
    process.start()
    return process


def exit_codes(processes: list[BaseProcess], seconds: float = 40) -> list[int | None]:
    """Wait for all of them."""
    for process in processes:
        process.join(seconds)
    return [process.exitcode for process in processes]
