"""A server on loopback that stands before another one.

The server may change requests and answers, or answer itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote_plus, urlsplit

from tests.support.operations import operation

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Asked:
    """A whole request. Names of headers are lower case; `name` is the operation's ("PutObject")."""

    name: str
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    `length`, where given, is the claim of the head; the connection ends after the actual bytes.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    length: int | None = None

    def with_headers(self, **headers: str) -> Answer:
        """`_` stands for `-`."""
        return replace(
            self,
            headers=self.headers
            | {name.replace("_", "-"): value for name, value in headers.items()},
        )


Forward: TypeAlias = Callable[[Asked], Answer]
Meddle: TypeAlias = Callable[[Asked, Forward], Answer | None]
"""None hangs up without an answer; a ConnectionResetError that it raises resets the connection."""


def error(status: int, code: str) -> Answer:
    """As S3 says no."""
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said the test</Message></Error>"
    )
    return Answer(status, {"content-type": "application/xml"}, body.encode())


class Meddler:
    """A server whose `meddle` may be exchanged at any time.

    Several threads call it. `asked` has the requests so far.
    """

    def __init__(self, upstream: str, meddle: Meddle, *, port: int = 0) -> None:
        self.meddle = meddle
        self.asked: list[Asked] = []
        self._open: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler(upstream))
        self._server.socket.listen(
            128
        )  # with five waiting, as is the default, the next one is kept waiting for a second
        self._server.daemon_threads = True  # one may be in a long poll: it is left to itself
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="meddler"
        )
        self._thread.start()

    def __enter__(self) -> Meddler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        for client in list(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    def names(self) -> list[str]:
        """The operations asked for so far."""
        return [asked.name for asked in self.asked]

    def _handler(self, upstream: str) -> type[BaseHTTPRequestHandler]:
        meddler, address = self, urlsplit(upstream)

        def forward(asked: Asked) -> Answer:
            link = http.client.HTTPConnection(address.hostname or "", address.port)
            with contextlib.closing(link):
                headers = {name: value for name, value in asked.headers.items() if name not in _HOP}
                link.request(
                    asked.method,
                    asked.target,
                    asked.body or None,
                    headers | {"content-length": str(len(asked.body))},
                )
                got = link.getresponse()
                kept = {
                    name.lower(): value
                    for name, value in got.getheaders()
                    if name.lower() not in _HOP
                }
                length = kept.pop("content-length", "")
                body = got.read()
                return Answer(
                    got.status,
                    kept,
                    body,
                    int(length) if length and asked.method == "HEAD" else None,
                )

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle(self) -> None:
                meddler._open.add(self.connection)
                try:
                    super().handle()
                except ConnectionResetError:
                    self.reset()
                except OSError:
                    pass  # the client has gone
                finally:
                    meddler._open.discard(self.connection)

            def reset(self) -> None:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                for held in (self.rfile, self.wfile, self.connection):
                    held.close()

            def serve(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", "0")))
                asked = Asked(
                    operation(self.command, self.path, headers, body)[1],
                    self.command,
                    self.path,
                    headers,
                    body,
                )
                meddler.asked.append(asked)
                answer = meddler.meddle(asked, forward)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response_only(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 204:
                    self.send_header(
                        "content-length",
                        str(len(answer.body) if answer.length is None else answer.length),
                    )
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
                    self.close_connection = answer.length is not None

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Nothing: what was asked is in `asked`."""

        return Handler


_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


def once(meddle: Meddle, *names: str) -> Meddle:
    """`meddle` for the first request whose operation is one of `names`; everything else passes."""
    left = [True]
    lock = threading.Lock()

    def chosen(asked: Asked, forward: Forward) -> Answer | None:
        with lock:
            mine = asked.name in names and left[0]
            if mine:
                left[0] = False
        return meddle(asked, forward) if mine else forward(asked)

    return chosen


def always(meddle: Meddle, *names: str) -> Meddle:
    """`meddle` for every request whose operation is one of `names`; everything else passes."""
    return lambda asked, forward: meddle(asked, forward) if asked.name in names else forward(asked)


def drop(asked: Asked, forward: Forward) -> Answer | None:
    """The server does it, and the answer is lost."""
    forward(asked)
    return None


def unconditional(asked: Asked, forward: Forward) -> Answer | None:
    """A store that accepts conditions on writes and ignores them."""
    if asked.method in ("PUT", "DELETE", "POST"):
        kept = {
            name: value
            for name, value in asked.headers.items()
            if name not in ("if-match", "if-none-match")
        }
        asked = replace(asked, headers=kept)
    return forward(asked)


def encoding(asked: Asked, forward: Forward) -> Answer | None:
    """Keys in native notifications as S3 sends them: form-urlencoded.

    The emulator does not encode them.
    """
    answer = forward(asked)
    if asked.name != "ReceiveMessage" or answer.status != 200:
        return answer
    told = json.loads(answer.body)
    for message in told.get("Messages", ()):
        body = json.loads(message["Body"])
        for record in body.get("Records", ()):
            record["s3"]["object"]["key"] = quote_plus(record["s3"]["object"]["key"], safe="/")
        message["Body"] = json.dumps(body)
        message["MD5OfBody"] = hashlib.md5(
            message["Body"].encode(), usedforsecurity=False
        ).hexdigest()
    return replace(answer, body=json.dumps(told).encode())
