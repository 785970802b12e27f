"""A server in front of another one on the loopback, which does something to what passes."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from typing import Self

CHUNK = 65_536
CONNECT_S = 5.0


class Front(ABC):
    """Listens on a `port` of its own; each connection is served in a thread. Leaving the `with` ends it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="front", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @abstractmethod
    def serve(self, client: socket.socket) -> None:
        """Serve one connection to its end; OSError ends it, too."""

    def connect(self) -> socket.socket:
        """A connection to the server behind."""
        inner = socket.create_connection(("127.0.0.1", self._target), CONNECT_S)
        inner.settimeout(None)
        return inner

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="front", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            self.serve(client)
