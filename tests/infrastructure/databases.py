"""Databases as the release process leaves them: migrated once per session and kind, then copied in a moment."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from tests.infrastructure.children import StartError
from tests.infrastructure.environment import ROOT, clean_environment
from tests.infrastructure.postgres import Postgres

RELEASE_S = 60.0
_TEMPLATE = "released"


class Released:
    """Copies of a released database. Its admin may sign in with `admin_password` or use `admin_token`."""

    admin_email = "admin@example.com"

    def __init__(self, folder: Path, postgres: Callable[[], Postgres]) -> None:
        self.admin_password = secrets.token_hex(8)
        self.admin_token = f"sk-admin-{secrets.token_hex(16)}"
        self._folder, self._postgres = folder, postgres

    def sqlite(self, path: Path) -> str:
        """DATABASE_URL of a new copy at `path`."""
        shutil.copy(self._sqlite_file, path)
        return f"sqlite:///{path}"

    def postgresql(self) -> str:
        """DATABASE_URL of a new copy; whoever asked for it drops it."""
        return self._postgres_server.create_database(template=_TEMPLATE)

    @cached_property
    def _sqlite_file(self) -> Path:
        path = self._folder / "released.db"
        self._release(f"sqlite:///{path}")
        return path

    @cached_property
    def _postgres_server(self) -> Postgres:
        server = self._postgres()
        self._release(server.create_database(_TEMPLATE))
        return server

    def _release(self, url: str) -> None:
        environment = clean_environment(
            {
                "DATABASE_URL": url,
                "REDIS_URL": "redis://127.0.0.1:1/0",
                "MIGRATION_BACKUP": "off",
                "ADMIN_EMAIL": self.admin_email,
                "ADMIN_PASSWORD": self.admin_password,
                "ADMIN_API_TOKEN": self.admin_token,
            }
        )
        done = subprocess.run(
            [sys.executable, "-m", "migrations", "upgrade"],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RELEASE_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise StartError(f"release exited {done.returncode}:\n{done.stderr}")
