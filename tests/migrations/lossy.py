"""A connection to Redis on which replies get lost: the worst moment for whoever has just taken a lease."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

_CHUNK = 65_536


class LossyFront:
    """Passes everything on to `port` of the loopback. The next `lost` replies to an EVAL are dropped after the
    command was executed, together with the connection."""

    def __init__(self, port: int) -> None:
        self.lost = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="lossy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="lossy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request, one reply, and so on: redis-py does not pipeline what is tested here."""
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            while request := client.recv(_CHUNK):
                server.sendall(request)
                reply = server.recv(_CHUNK)
                if self.lost and b"EVAL" in request:
                    self.lost -= 1
                    return
                client.sendall(reply)
