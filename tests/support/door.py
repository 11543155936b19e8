"""A port on loopback that leads to a server.

A test can close and open the port again, like a network that fails.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_CHUNK = 256 * 1024
"""Bytes."""


class Door:
    """Closed until `open`: connections are refused. `endpoint` stays the same."""

    def __init__(self, upstream: str) -> None:
        url = urlsplit(upstream)
        self._upstream = (url.hostname or "", url.port or 80)
        # Bound but not listening, it keeps the port, and refuses.
        self._keeper = _socket(("127.0.0.1", 0))
        self._address = self._keeper.getsockname()
        self.endpoint = f"http://127.0.0.1:{self._address[1]}"
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Door:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        self._keeper.close()

    def open(self) -> None:
        self._listener = _socket(self._address)
        self._listener.listen(128)
        self._start(self._accept, self._listener)

    def close(self) -> None:
        """Cuts what is under way. Harmless where it is closed."""
        if self._listener is not None:
            _cut(self._listener)
            with self._lock:
                self._listener = None
                for connection in self._connections:
                    _cut(connection)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # closed
                    return
                try:
                    server = socket.create_connection(self._upstream)
                except OSError:
                    client.close()
                    continue
                self._start(self._carry, client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            with self._lock:
                if self._listener is None:
                    return
                self._connections |= {client, server}
            back = threading.Thread(target=_pour, args=(server, client))
            back.start()
            _pour(client, server)
            back.join()
            with self._lock:
                self._connections -= {client, server}

    def _start(self, target: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args, name="door")
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()


def _socket(address: tuple[str, int]) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(address)
    return made


def _pour(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends; then the target is told."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    _cut(target)


def _cut(sock: socket.socket) -> None:
    """Wakes whoever waits for it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
