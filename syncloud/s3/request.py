"""Pending requests: the awscrt callbacks of one request over several tries, and the outcome."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from awscrt.http import HttpRequest

from ..aws.error_mapping import is_of_crt, translate
from ..core.model import SMALL_BYTES
from ..errors import Overlong
from .response import EARLY, EXPECTED_OWNER, Response, outcome

Body = bytes | io.BytesIO
"""A complete request body. Nobody may write to a stream before the answer has arrived."""

ANSWER_MAX_BYTES = 2 * SMALL_BYTES
"""Bytes. The largest answers are a part or a small object; a page of 1,000 keys has up to 4 MB."""
REFUSAL_MAX_BYTES = 1024 * 1024
"""Bytes of an answer that is no success. S3's own error bodies have some hundred bytes."""
_LATER = frozenset({408, 429, 500, 502, 503, 504})


class Request(NamedTuple):
    """A request, and its description `what` for messages. Every try signs it anew, for `region`.

    `most` is the upper bound on the bytes of a success's body.
    """

    what: str
    operation: str
    method: str
    target: str
    fields: list[tuple[str, str]]
    body: Body | None
    most: int = ANSWER_MAX_BYTES
    region: str = ""

    def stream(self) -> io.BytesIO | None:
        """The body from its beginning; None if the body is empty."""
        if not isinstance(self.body, io.BytesIO):
            return io.BytesIO(self.body) if self.body else None
        self.body.seek(0)
        return self.body


def sha256_of(body: Body | None) -> str:
    """SHA-256 of the body, in hexadecimal as a header has it."""
    return hashlib.sha256(
        body.getbuffer() if isinstance(body, io.BytesIO) else body or b""
    ).hexdigest()


def size_of(body: Body | None) -> int:
    """Size of the body in bytes."""
    return len(body.getbuffer() if isinstance(body, io.BytesIO) else body or b"")


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request in flight, over all its tries.

    awscrt's thread calls the `on_` methods, and `on_complete` last. The requesting thread owns all
    other members.
    """

    request: Request
    future: Any
    deadline: float
    on_complete: Callable[[PendingRequest], None]
    connection: Any = None
    reused: bool = False
    landed: bool = False
    tries: int = 0
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    left: int = 0
    """Bytes that the answer may still have."""
    error: Any = None

    def send_on(self, connection: Any, signed: HttpRequest, *, reused: bool) -> None:
        """Start a try on `connection`. Raises awscrt's errors; no callback follows an error."""
        self.connection, self.reused, self.landed = connection, reused, False
        self.status, self.headers, self.chunks, self.left = 0, [], [], 0
        stream = connection.request(signed, self.on_response, self.on_body)
        stream.completion_future.add_done_callback(self.on_done)
        stream.activate()

    def on_response(self, status_code: int, headers: list[tuple[str, str]], **_: Any) -> None:
        self.status, self.headers, self.left = status_code, headers, self._most(status_code)

    def _most(self, status: int) -> int:
        return self.request.most if 200 <= status < 300 else REFUSAL_MAX_BYTES

    def on_body(self, chunk: bytes, **_: Any) -> None:
        self.left -= len(chunk)
        if self.left >= 0:
            self.chunks.append(chunk)
        else:
            self.chunks.clear()
            self.connection.close()  # awscrt has no limit of its own and reads at full speed

    def on_done(self, completion: concurrent.futures.Future[int]) -> None:
        self.error = completion.exception()
        self.landed = True
        self.on_complete(self)

    def detach(self) -> Any:
        """Detach and return the connection of this request, or None."""
        connection, self.connection = self.connection, None
        return connection

    def response(self) -> Response:
        """The answer, with any status that a retry would not change.

        Raises Overlong for an oversized answer, and the translated error if awscrt failed
        (Unavailable, CredentialsError, Malformed). Raises the refusal of a status worth a retry
        (mostly Unavailable). Errors from elsewhere are raised unchanged.
        """
        if self.left < 0:
            most = self._most(self.status)
            raise Overlong(f"{self.request.what}: the answer has more than {most:,} bytes")
        if self.error is not None:
            raise translate(self.error, self.request.what) if is_of_crt(self.error) else self.error
        owner = dict(self.request.fields).get(EXPECTED_OWNER, "") if self.status == 403 else ""
        headers = {name.lower(): value for name, value in self.headers}
        answer = Response(self.status, headers, self.chunks, owner, self.request.region)
        answer = outcome(answer) if self.request.operation in EARLY else answer
        if answer.status in _LATER or (answer.status == 400 and answer.code == "RequestTimeout"):
            raise answer.refusal(self.request.what)
        return answer
