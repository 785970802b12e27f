"""The platform as an operator runs it: the Procfile's processes on a database and a Valkey, and clients of its API."""

from __future__ import annotations

import secrets
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.infrastructure.children import StartError, free_port, tail
from tests.infrastructure.client import Client
from tests.infrastructure.environment import clean_environment
from tests.infrastructure.processes import Process, ProcessGroup

START_S = 60.0
ADMIN_EMAIL = "admin@example.com"


class Platform:
    """One installation. `start` brings up its processes; leaving the `with` ends them and checks that all are gone.

    Its admin has `ADMIN_API_TOKEN`, unless the database is one that had users before.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str,
        redis_url: str,
        environment: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self._serving: list[Process] = []
        self.admin = Client(self.url, f"sk-admin-{secrets.token_hex(16)}")
        self.group = ProcessGroup(
            folder,
            environment={
                "DATABASE_URL": database_url,
                "REDIS_URL": redis_url,
                "SECRET_KEY": secrets.token_hex(16),
                "PUBLIC_URL": self.url,
                "PORT": str(self.port),
                "MEDIA_DIR": str(folder / "media"),
                "ADMIN_EMAIL": ADMIN_EMAIL,
                "ADMIN_PASSWORD": secrets.token_hex(8),
                "ADMIN_API_TOKEN": self.admin.token,
                **(environment or {}),
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.group.__exit__(*error)

    def release(self) -> str:
        """Run the release process; its output. Raises StartError."""
        return self.group.run("release", START_S)

    def start(self, *names: str) -> list[Process]:
        """Start these processes of the Procfile, without a name all three; a `web` answers when this returns."""
        started = [self.group.start(name) for name in names or ("web", "worker", "beat")]
        self._serving = [process for process in self._serving if process.is_running] + started
        if any(process.name == "web" for process in started):
            self.group.wait_until(self.answers, START_S, what="the API answers")
        return started

    def answers(self) -> bool:
        """Whether the API can take jobs. Raises StartError when a process has ended by itself."""
        self.require_life()
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def require_life(self) -> None:
        """Raise StartError when a process has ended that was running at the last start."""
        for process in self._serving:
            if not process.is_running:
                raise StartError(f"{process.name} ended: {tail(process.log, 3)} (all of it: {process.log})")

    def command(self, *arguments: str) -> str:
        """What an operator's command (`flask --app web.app …`) prints. Raises StartError when it fails."""
        done = subprocess.run(
            ["flask", "--app", "web.app", *arguments],
            cwd=self.group.cwd,
            env=clean_environment(self.group.environment),
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise StartError(f"flask {' '.join(arguments[:2])} exited {done.returncode}: {said[-2000:]}")
        return done.stdout.strip()

    def user(self, *, credits: int = 10_000) -> Client:
        """A new user with a token and credits."""
        email = f"user-{secrets.token_hex(6)}@example.com"
        user_id = self.admin.post("/v1/admin/users", {"email": email, "name": "", "role": "user"})["id"]
        token = self.admin.post(f"/v1/admin/users/{user_id}/tokens", {"name": "test"})["token"]
        if credits:
            self.admin.post(f"/v1/admin/users/{user_id}/credits", {"amount": credits, "note": "test"})
        return Client(self.url, token)
