"""Processes that upgrade at the same time, forked from a server that has imported everything."""

from __future__ import annotations

import logging
import multiprocessing
import sys
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


def _upgrade(given: Settings, folder: Path, log_file: Path, lease_s: float) -> None:
    logging.basicConfig(filename=log_file, level=logging.INFO, force=True)
    module = types.ModuleType("common.services.setup")
    module.prepare_fresh_database = lambda session: stub_setup(session, [])  # type: ignore[attr-defined]
    sys.modules["common.services.setup"] = module
    outcome = runner.upgrade(given, Chain(folder), since=process_started(), lease_s=lease_s)
    logging.getLogger("outcome").info(outcome.line)
    sys.exit(int(outcome.code))


def start_upgrade(given: Settings, folder: Path, log_file: Path, *, lease_s: float = 15.0) -> BaseProcess:
    """Start one process that upgrades; its exit code is the outcome's."""
    process = _forkserver.Process(target=_upgrade, args=(given, folder, log_file, lease_s))
    process.start()
    return process


def exit_codes(processes: list[BaseProcess], seconds: float = 40) -> list[int | None]:
    """Wait for all of them."""
    for process in processes:
        process.join(seconds)
    return [process.exitcode for process in processes]
