"""Servers on loopback whose answers a test writes byte by byte: also answers of no store."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.support.emulator import Emulator

Handle = Callable[[socket.socket], None]


class Server:
    """Listens on loopback and gives each connection to `handle`, in a thread of its own."""

    def __init__(self, handle: Handle, *, context: ssl.SSLContext | None = None) -> None:
        self._handle = handle
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.endpoint = f"http{'s' if context else ''}://127.0.0.1:{self.port}"
        self.closed = threading.Event()
        """A client has closed a connection."""
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def connections(self) -> int:
        return len(self._threads)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                self._open.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            if self._context is None:
                self._handle(sock)
            else:
                with self._context.wrap_socket(sock, server_side=True) as secure:
                    self._open.append(secure)
                    self._handle(secure)
        self.closed.set()


def head(sock: socket.socket) -> bytes:
    """One request without its body; empty at the end of the connection."""
    read = b""
    while b"\r\n\r\n" not in read:
        chunk = sock.recv(65536)
        if not chunk:
            return b""
        read += chunk
    return read


def answering(*answers: bytes) -> Handle:
    """Gives these answers in turn, over all connections, and the last one from then on."""
    lock, left = threading.Lock(), list(answers)

    def handle(sock: socket.socket) -> None:
        while head(sock):
            with lock:
                answer = left.pop(0) if len(left) > 1 else left[0]
            sock.sendall(answer)

    return handle


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body)}",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def error_xml(code: str, extra: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>words</Message>{extra}</Error>'
    ).encode()


def silent(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def resetting(sock: socket.socket) -> None:
    head(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def endless(sock: socket.socket) -> None:
    """A body of 10 GB, slowly."""
    head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
    while True:
        sock.sendall(b"x" * 65536)
        time.sleep(0.01)


def splice(a: socket.socket, b: socket.socket) -> None:
    """Bytes from each to the other until one ends."""
    while True:
        pending = [s for s in (a, b) if isinstance(s, ssl.SSLSocket) and s.pending()]
        for source in pending or select.select([a, b], [], [])[0]:
            chunk = source.recv(65536)
            if not chunk:
                return
            (b if source is a else a).sendall(chunk)


def passed_on(aws_server: Emulator) -> Handle:
    """What comes is the emulator's."""

    def handle(sock: socket.socket) -> None:
        with socket.create_connection(
            ("127.0.0.1", urlsplit(aws_server.endpoint).port or 0)
        ) as behind:
            splice(sock, behind)

    return handle


FIRST = {
    "status line": b"HTTP/1.1 200 ",
    "header": b"HTTP/1.1 200 OK\r\nX-Long: ",
    "headers": b"HTTP/1.1 200 OK\r\n",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n",
    "body of no length": b"HTTP/1.1 200 OK\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunk extension": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    "error": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100000000\r\n\r\n",
}
"""Where an answer can be without an end."""
CHUNK = b"1000\r\n" + b"a" * 4096 + b"\r\n"
REST = {
    "headers": b"X-a: b\r\n",
    "chunks": CHUNK,
    "gzip": CHUNK,
    "trailers": b"X-a: " + b"b" * 1000 + b"\r\n",
}


def answers(first: bytes, rest: bytes, *, pause: float = 0.0) -> Handle:
    """`first`, and then `rest` for ever.

    Where there is a pause, its bytes come one by one, `pause` seconds apart.
    """
    pieces = (
        [rest[at : at + 1] for at in range(len(rest))] if pause else [rest * (65536 // len(rest))]
    )

    def handle(sock: Any) -> None:
        head(sock)
        sock.sendall(first)
        while True:
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(pause)

    return handle
