"""Who is asking: the Bearer token of a request becomes an actor."""

from __future__ import annotations

import re
import time
from threading import Lock

from flask import request

from common.crypto import fingerprint
from common.db import reading
from common.errors import Forbidden, Unauthenticated
from common.services import users
from common.services.users import Actor

REMEMBERED_S = 1.0  # how long a revoked token or a changed role may still count for submits
_MOST_REMEMBERED = 10_000
_BEARER = re.compile(r"bearer +([\x21-\x7e]{1,512}) *", re.IGNORECASE)


class _Memory:
    """Actors that authenticated a moment ago, by the fingerprint of their token."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Actor]] = {}
        self._lock = Lock()

    def get(self, mark: str) -> Actor | None:
        until, actor = self._known.get(mark, (0.0, None))
        return actor if time.monotonic() < until else None

    def put(self, mark: str, actor: Actor) -> None:
        with self._lock:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[mark] = (time.monotonic() + REMEMBERED_S, actor)

    def forget(self) -> None:
        with self._lock:
            self._known.clear()


_memory = _Memory()
forget = _memory.forget  # after a change of tokens or roles in this process


def bearer() -> str:
    """The token of this request. Raises Unauthenticated where there is none or it cannot be one.

    Clients of midjourney-proxy servers send it as `mj-api-secret` (fact sheet midjourney_proxy.md, section 1).
    """
    said = request.headers.get("Authorization") or f"Bearer {request.headers.get('mj-api-secret', '')}"
    match = _BEARER.fullmatch(said)
    if match is None:
        raise Unauthenticated
    return match[1]


def actor(*, remembered: bool = False) -> Actor:
    """Who is asking; `remembered` accepts an answer that is a moment old. Raises Unauthenticated, AwaitingApproval."""
    token = bearer()
    mark = fingerprint(token)
    known = _memory.get(mark) if remembered else None
    if known is None:
        with reading(one_read=True) as session:
            known = users.authenticate(session, token)
        _memory.put(mark, known)
    return known


def admin() -> Actor:
    """The administrator who is asking. Raises Forbidden for anybody else."""
    who = actor()
    if not who.is_admin:
        raise Forbidden("This is for administrators.")
    return who
