"""Somebody's webhook endpoint: it takes whatever is sent, and tests look at its `calls`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from aiohttp import web

from tests.simulators.frame import Simulator


class Receiver(Simulator):
    """Answers 204 to every POST."""

    name: ClassVar[str] = "receiver"

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Any path."""
        return [web.post("/{path:.*}", self._taken)]

    async def _taken(self, request: web.Request) -> web.Response:
        return web.Response(status=204)
