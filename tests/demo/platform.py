"""What `make run` runs: the platform on services that need nothing but this checkout, and a user to try it with."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NoReturn, Self

from sqlalchemy.orm import Session

from common.db import build_engine
from common.errors import NotFound
from common.ids import new_id
from common.services import credits, users
from common.settings import secret_key
from common.words import Role
from tests.infrastructure.client import Client, Refused
from tests.infrastructure.environment import ROOT, isolate
from tests.infrastructure.platform import Platform
from tests.infrastructure.valkey import Valkey
from tests.simulators.world import World

DATA = ROOT / "data"
DEMO_USER = "demo@example.com"
DEMO_CREDITS = 10_000


class Unable(RuntimeError):
    """Something about this machine stands in the way; the message says what, in one line."""


class Demo:
    """Valkey, the simulators, the release, then web, worker and beat. Leaving the `with` ends them all.

    The database lies where the operators' commands look for it, everything else in `data/run`.
    """

    def __init__(self, port: str, *, say: Callable[[str], None]) -> None:
        self._port = _free(port)
        self._say = say
        self._folder = DATA / "run"
        self._stack = ExitStack()
        self.logs = (self._folder / "logs").relative_to(ROOT)

    def __enter__(self) -> Self:
        isolate()
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._platform = self._start(stack)
            self.user = self._user()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> Platform:
        valkey = stack.enter_context(Valkey(self._folder / "valkey"))
        world = stack.enter_context(World(cos_folder=self._folder / "cos"))
        platform = Platform(
            self._folder,
            database_url=f"sqlite:///{DATA / 'webui.db'}",
            redis_url=valkey.url,
            environment={
                **world.environment(storage="cos"),
                "SECRET_KEY": secret_key(),
                "ADMIN_PASSWORD": "",
            },
            port=self._port,
        )
        stack.enter_context(platform)
        self._say("migrating …")
        for line in platform.release().splitlines():
            if line.startswith("Admin:") and "password" in line:
                self._say(line)
        self._say("starting web, worker and beat …")
        platform.start()
        return platform

    def watch(self) -> NoReturn:
        """Return never. Raises StartError when a process ends by itself."""
        while True:
            self._platform.require_life()
            time.sleep(0.5)

    # ------------------------------------------------------------ a user

    def _user(self) -> Client:
        """The demo user, who is made and given credits when there is none yet."""
        kept = self._folder / "token"
        known = Client(self._platform.url, kept.read_text() if kept.exists() else "none")
        try:
            known.get("/v1/me")
        except Refused:
            kept.touch(mode=0o600)
            kept.write_text(_equip_user(self._platform.group.environment["DATABASE_URL"]))
        return Client(self._platform.url, kept.read_text())


def _equip_user(database_url: str) -> str:
    """A new token of the demo user, who gets new credits. As the operators' commands do it, without their starts."""
    made = build_engine(database_url)
    with Session(made) as session, session.begin():
        try:
            user = users.find_user(session, DEMO_USER)
        except NotFound:
            user = users.create_user(session, email=DEMO_USER, name="", role=Role.USER, password=None)
        token, _ = users.create_token(session, user.id, "make run")
        credits.grant(
            session, user.id, DEMO_CREDITS, note="make run", reference=f"grant:operator:{new_id('key')}"
        )
    made.dispose()
    return token


def _free(port: str) -> int:
    """The port as a number. Raises Unable where it is none, or taken."""
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise Unable("PORT must be a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", int(port)))
        except OSError as error:
            other = int(port) % 65535 + 1
            raise Unable(
                f"port {port} cannot be used ({error.strerror}); try PORT={other} make run"
            ) from None
    return int(port)
