"""Connections to SQLite while others are at work."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from common.db import build_engine


def test_the_first_connections_to_a_database_may_come_at_once(tmp_path: Path) -> None:
    """SQLite refuses at once to turn WAL on while another connection writes in the mode of before."""
    path = tmp_path / "webui.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE done (what TEXT)")
    other.execute("BEGIN IMMEDIATE")
    committing = threading.Timer(0.2, other.commit)
    committing.start()
    engine = build_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()
    committing.join()
    other.close()
