"""A server on loopback that forwards every request and every answer.

Requests and answers are streamed, with their headers untouched. The Host header stays the client's,
so that signatures stay valid. Each connection from a client has a thread and a connection of its
own to the server behind.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import h11

from tests.support.operations import FORM, operation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_CHUNK = 256 * 1024
"""Bytes read at once."""


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request; `target` as it was sent (path and query)."""

    service: str
    operation: str
    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name."""


class Hook(Protocol):
    """Sees every exchange; called from several threads."""

    def before(self, request: Request) -> None:
        """Before anything of the request reaches the server."""

    def after(self, request: Request, status: int) -> None:
        """Before anything of the answer reaches the client."""


class Proxy:
    """Listens as soon as it is made, until `close`."""

    def __init__(self, upstream: str, hook: Hook) -> None:
        url = urlsplit(upstream)
        self._upstream = (url.hostname or "", url.port or 80)
        self._hook = hook
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, name="proxy")
        self._accepting.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cuts what is under way."""
        _cut(self._listener)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            for sock in self._open:
                _cut(sock)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # closed
                return
            with self._lock:
                self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name="proxy connection")
            self._threads = [*(t for t in self._threads if t.is_alive()), thread]
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        """One client's connection, request after request."""
        client = _Peer(sock, h11.SERVER)
        server: _Peer | None = None
        try:
            while isinstance(head := client.receive(), h11.Request):
                if server is None or not server.idle:
                    self._drop(server)
                    server = self._connect()
                self._exchange(head, client, server)
                if (
                    client.connection.our_state is not h11.DONE
                    or client.connection.their_state is not h11.DONE
                ):
                    return
                client.connection.start_next_cycle()
                if (
                    server.connection.our_state is h11.DONE
                    and server.connection.their_state is h11.DONE
                ):
                    server.connection.start_next_cycle()
        except (OSError, h11.RemoteProtocolError):
            pass  # one side has gone: so does the other
        finally:
            self._drop(server)
            self._drop(client)

    def _exchange(self, head: h11.Request, client: _Peer, server: _Peer) -> None:
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        buffered: list[h11.Data | h11.EndOfMessage] = []
        if headers.get("content-type", "").startswith(FORM):
            buffered = list(client.rest())
        body = b"".join(event.data for event in buffered if isinstance(event, h11.Data))
        method, target = head.method.decode("ascii"), head.target.decode("ascii")
        request = Request(*operation(method, target, headers, body), method, target, headers)
        self._hook.before(request)
        server.send(
            h11.Request(method=head.method, target=head.target, headers=head.headers.raw_items())
        )
        answer = (
            server.receive(while_open=client)
            if client.connection.they_are_waiting_for_100_continue
            else None
        )
        if isinstance(answer, h11.InformationalResponse):
            client.send(answer)
            answer = None
        if answer is None:
            # The server may refuse, answer and hang up before it has read everything, so its answer
            # counts.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for event in buffered or client.rest():
                    server.send(event)
            answer = server.receive(while_open=client)
        while isinstance(answer, h11.InformationalResponse):
            answer = server.receive(while_open=client)
        if not isinstance(answer, h11.Response):
            raise ConnectionResetError("no answer")
        self._hook.after(request, answer.status_code)
        client.send(answer)
        for event in server.rest():
            client.send(event)

    def _connect(self) -> _Peer:
        sock = socket.create_connection(self._upstream)
        with self._lock:
            self._open.add(sock)
        return _Peer(sock, h11.CLIENT)

    def _drop(self, peer: _Peer | None) -> None:
        if peer is not None:
            with self._lock:
                self._open.discard(peer.sock)
            peer.sock.close()


class _Peer:
    """One end of a connection, and how far its conversation has come."""

    def __init__(self, sock: socket.socket, role: type[h11.CLIENT | h11.SERVER]) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.connection = h11.Connection(role, max_incomplete_event_size=128 * 1024)

    @property
    def idle(self) -> bool:
        """Whether another request may be sent.

        No exchange is under way, and the other side has not hung up.
        """
        return (
            self.connection.our_state is h11.IDLE and not select.select([self.sock], [], [], 0)[0]
        )

    def receive(
        self, *, while_open: _Peer | None = None
    ) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        """The next event, never NEED_DATA.

        ConnectionResetError if `while_open` hangs up before it comes.
        """
        while (event := self.connection.next_event()) is h11.NEED_DATA:
            if while_open is not None:
                self._watch(while_open)
            self.connection.receive_data(self.sock.recv(_CHUNK))
        return event

    def rest(self) -> Iterator[h11.Data | h11.EndOfMessage]:
        """The events of the body whose head was received, its end included."""
        while True:
            event = self.receive()
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("hung up in the middle")
            if isinstance(event, h11.Data | h11.EndOfMessage):
                yield event
            if isinstance(event, h11.EndOfMessage):
                return

    def send(self, event: h11.Event) -> None:
        data = self.connection.send(event)
        if data:
            self.sock.sendall(data)

    def _watch(self, other: _Peer) -> None:
        readable, _, _ = select.select([self.sock, other.sock], [], [])
        if self.sock not in readable and not other.sock.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError("the client has gone")


def _cut(sock: socket.socket) -> None:
    """Wakes whoever waits for it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
