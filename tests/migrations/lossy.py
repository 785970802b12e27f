"""A connection to Redis on which replies get lost: the worst moment for whoever has just taken a lease."""

from __future__ import annotations

import socket

from tests.infrastructure.front import CHUNK, Front


class LossyFront(Front):
    """Passes everything on. The next `lost` replies to an EVAL are dropped after the command was executed, together
    with the connection."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.lost = 0
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def serve(self, client: socket.socket) -> None:
        """One request, one reply, and so on: redis-py does not pipeline what is tested here."""
        with self.connect() as server:
            while request := client.recv(CHUNK):
                server.sendall(request)
                reply = server.recv(CHUNK)
                if self.lost and b"EVAL" in request:
                    self.lost -= 1
                    return
                client.sendall(reply)
