"""One S3 request through awscrt, awaited from asyncio. With aws.py the owner of awscrt.

A request is a `send` and its answer a `Response`, whatever its status: what 404 or 412 mean is for s3.py. Only where
there is no answer (network, TLS, timeouts, no credentials) is an error raised. What awscrt does by itself, seen with
0.24 and 0.38: it signs without normalising the path, keeps connections, repeats 5xx, throttling and network failures
(and says of those only that it gave up), gives up a connection that is silent for 30 s, and collects the whole answer
before it tells of any of it.

Ten thousand small requests must cost little: completions arrive on awscrt's threads, queue up, and wake the loop once
for as many as there are by then; one timer serves the deadlines of all requests.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import io
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from awscrt.exceptions import AwsCrtError
from awscrt.http import HttpHeaders, HttpRequest
from awscrt.s3 import S3RequestType, S3ResponseError

from syncloud.aws import TLS_HINT, Aws, refused, translate
from syncloud.errors import SyncloudError, Unavailable

Pairs = Iterable[tuple[str, str]]

PATIENCE = 30.0
"""Seconds that any answer may take, beside the time for its bytes."""
SLOWEST = 1_000_000
"""Bytes per second that a connection must reach to be waited for."""

# S3 answers a copy or the completion of an upload with 200 before it knows the outcome; an error comes in the body.
_LATE = {
    "PreconditionFailed": 412,
    "ConditionalRequestConflict": 409,
    "NoSuchUpload": 404,
    "NoSuchKey": 404,
    "AccessDenied": 403,
}


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Names of headers are lower case; the body of an error status is S3's XML, if it sent one.

    `truncated`: the object is larger than the `limit` of the request; the headers are its own, the body is empty.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    truncated: bool = False

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        """S3's word for what went wrong; empty where there is none (every HEAD)."""
        return self._said("Code")

    def refusal(self, what: str) -> SyncloudError:
        """The SyncloudError for this answer, for whoever did not expect it."""
        region = self._said("Region") or self.headers.get("x-amz-bucket-region", "")
        request_id = self.headers.get("x-amz-request-id", "")
        return refused(
            what, status=self.status, code=self.code, message=self._said("Message"), request_id=request_id, region=region
        )

    def _said(self, name: str) -> str:
        if self.ok or not self.body:
            return ""
        try:
            return ElementTree.fromstring(self.body).findtext(name, "")
        except ElementTree.ParseError:  # a proxy's page
            return ""


class _Flight:
    """A request on its way. awscrt's threads call the `on_` methods; the rest belongs to the loop."""

    __slots__ = ("body", "crt", "deadline", "error", "future", "headers", "landed", "request", "status", "what")

    def __init__(
        self, crt: Crt, what: str, future: asyncio.Future[Response] | concurrent.futures.Future[Response], deadline: float
    ) -> None:
        self.crt = crt
        self.what = what
        self.future = future
        self.deadline = deadline
        self.landed = False
        self.request: Any = None
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.error: Any = None

    def on_headers(self, status_code: int, headers: list[tuple[str, str]], **_: Any) -> None:
        self.status, self.headers = status_code, headers

    def on_body(self, chunk: bytes, **_: Any) -> None:
        self.body = self.body + chunk if self.body else chunk

    def on_done(self, error: Any, **_: Any) -> None:
        self.error = error
        self.landed = True
        self.crt._land(self)

    def response(self) -> Response:
        """Raises the AwsCrtError of a request without an answer."""
        status, headers, body = self.status, self.headers, self.body
        if self.error is not None:
            if not isinstance(self.error, S3ResponseError):
                raise self.error
            status, headers, body = int(self.error.status_code), self.error.headers, self.error.body or b""
            if status == 200:
                status = _LATE.get(Response(500, {}, body).code, 500)
        return Response(status, {name.lower(): value for name, value in headers}, body)


class _Call(_Flight):
    """A request that a thread waits for: its answer does not go by the loop."""

    __slots__ = ()

    def on_done(self, error: Any, **_: Any) -> None:
        self.error = error
        self.landed = True
        self.crt._settle(self)


class Crt:
    """Requests to one bucket, from one event loop. `transfers` is how many may be on the wire at once.

    Making it reads the configuration and finds the credentials, which can take seconds.
    """

    def __init__(self, aws: Aws, bucket: str, *, transfers: int) -> None:
        self._bucket = f"s3://{bucket}"
        self._credentials = aws.credentials
        self._address = aws.s3_address(bucket)
        self._client: Any = aws.crt_s3_client(self._address, transfers=transfers)
        self._flights: set[_Flight] = set()
        self._calls: set[_Call] = set()
        self._landed: deque[_Flight] = deque()
        self._waking = False
        self._at_home = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answered = False
        self._by_tls = self._address.scheme == "https"

    @property
    def unproven(self) -> bool:
        """Whether nothing was answered yet over TLS, of whose failures awscrt tells late, and in few words."""
        return self._by_tls and not self._answered

    async def send(
        self,
        method: str,
        key: str,
        *,
        operation: str,
        query: Pairs = (),
        headers: Pairs = (),
        body: bytes | None = None,
        limit: int | None = None,
        deadline: float | None = None,
    ) -> Response:
        """Send one request about `key` (empty: about the bucket) and return the answer, whatever its status.

        `operation` is S3's name for it ("PutObject"), on which awscrt's handling depends. `deadline` in seconds, by
        default `PATIENCE` and the time for the bytes to send, or `limit`, at `SLOWEST`: give one for a large download.

        `limit` in bytes is for a GET of something that may be unexpectedly huge. awscrt shows nothing of an answer
        before it is complete, so it travels as a Range: a larger object comes back `truncated` and costs `limit` bytes;
        an empty one costs a second request; stores may leave out the checksum of a range. A GET that knows its object
        (If-Match) does without.

        Raises CredentialsError, or Unavailable where there is no answer, by the deadline or at all.
        """
        headers = list(headers)
        if deadline is None:
            deadline = PATIENCE + (len(body or b"") + (limit or 0)) / SLOWEST
        if limit is None:
            return await self._send(method, key, operation, query, headers, body, deadline)
        return await self._capped(method, key, operation, query, headers, limit, deadline)

    async def _capped(
        self, method: str, key: str, operation: str, query: Pairs, headers: list[tuple[str, str]], limit: int, deadline: float
    ) -> Response:
        ranged = [*headers, ("range", f"bytes=0-{max(limit, 1) - 1}")]
        for _ in range(3):
            answer = await self._send(method, key, operation, query, ranged, None, deadline)
            if answer.status != 416 or not answer.headers.get("content-range", "").endswith("/0"):
                return _limited(answer, limit)
            # An empty object has no range: its headers are all there is, unless it has grown meanwhile.
            answer = await self._send("HEAD", key, "HeadObject", query, headers, None, deadline)
            if not answer.ok or answer.headers.get("content-length") == "0":
                return answer
        raise Unavailable(f"{operation} {self._bucket}/{key}: the object changes faster than it can be read")

    async def _send(
        self,
        method: str,
        key: str,
        operation: str,
        query: Pairs,
        headers: list[tuple[str, str]],
        body: bytes | None,
        deadline: float,
    ) -> Response:
        loop = self._loop = self._loop or asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()
        flight = _Flight(self, f"{operation} {self._bucket}/{key}", answer, loop.time() + deadline)
        self._take_off(flight, method, key, operation, query, headers, body)
        self._watch(flight)
        try:
            return await answer
        finally:
            self._release(flight)

    def ask(self, operation: str, what: str, query: Pairs, *, deadline: float = PATIENCE) -> Response:
        """One GET about the bucket, answered to the thread that asks: blocking. `what` is asked about, for people.

        Raises CredentialsError, or Unavailable where there is no answer, as `send` does.
        """
        # Not by the loop: who asks may be in its way.
        answer: concurrent.futures.Future[Response] = concurrent.futures.Future()
        call = _Call(self, what, answer, deadline)
        self._calls.add(call)
        try:
            self._take_off(call, "GET", "", operation, query, [], None)
            return answer.result(timeout=deadline)
        except TimeoutError:
            raise self._overdue(call) from None
        finally:
            self._calls.discard(call)
            self._release(call)

    def _take_off(
        self,
        flight: _Flight,
        method: str,
        key: str,
        operation: str,
        query: Pairs,
        headers: list[tuple[str, str]],
        body: bytes | None,
    ) -> None:
        client = self._client  # another thread may close it meanwhile
        if client is None:
            raise Unavailable("the S3 client is closed")
        self._credentials.check()
        fields = [("host", self._address.host), *headers]
        if body is not None or method in ("PUT", "POST"):
            fields.append(("content-length", str(len(body or b""))))
        flight.request = client.make_request(
            type=S3RequestType.DEFAULT,
            operation_name=operation,
            request=HttpRequest(method, self._target(key, query), HttpHeaders(fields), io.BytesIO(body) if body else None),
            on_headers=flight.on_headers,
            on_body=flight.on_body,
            on_done=flight.on_done,
        )

    async def close(self) -> None:
        """Give up what is under way (it ends as Unavailable) and wait, at most 10 s, until awscrt has let go."""
        client, self._client = self._client, None
        if client is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        for flight in list(self._flights):
            self._give_up(flight, Unavailable(f"{flight.what}: the S3 client is closed"))
        for call in list(self._calls):
            self._release(call)  # its thread is told so by awscrt
        ended = client.shutdown_event
        del client  # the last reference: this is what starts the shutdown
        await asyncio.to_thread(ended.wait, 10)

    def _target(self, key: str, query: Pairs) -> str:
        path = f"{self._address.prefix}/{quote(key, safe='/-_.~')}"
        pairs = [f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query]
        return f"{path}?{'&'.join(pairs)}" if pairs else path

    def _land(self, flight: _Flight) -> None:
        """On a thread of awscrt's. The flag is cleared before the queue is emptied, so that nothing stays behind."""
        if not self._at_home:
            self._at_home = True
            # To Python a foreign thread is a new one with every call: six states a request, each with a stack to map and
            # unmap. A state that is never given back is found again by the next call.
            ctypes.pythonapi.PyGILState_Ensure()
        self._landed.append(flight)
        if not self._waking and self._loop is not None:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False
        while self._landed:
            flight = self._landed.popleft()
            if not flight.future.done():
                self._settle(flight)

    def _settle(self, flight: _Flight) -> None:
        try:
            flight.future.set_result(flight.response())
            self._answered = True
        except AwsCrtError as error:
            flight.future.set_exception(translate(error, flight.what))

    def _watch(self, flight: _Flight) -> None:
        """One timer for the earliest deadline of all: it costs nothing while answers come."""
        self._flights.add(flight)
        if self._loop is not None and (self._timer is None or flight.deadline < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(flight.deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._loop is None:
            return
        now = self._loop.time()
        for flight in [flight for flight in self._flights if flight.deadline <= now]:
            self._give_up(flight, self._overdue(flight))
        if self._flights:
            self._timer = self._loop.call_at(min(flight.deadline for flight in self._flights), self._expire)

    def _overdue(self, flight: _Flight) -> Unavailable:
        # A failed TLS handshake is told of after 10 to 30 s only (s2n), so the deadline often comes first.
        return Unavailable(f"{flight.what}: no answer by the deadline", hint=TLS_HINT if self.unproven else "")

    def _give_up(self, flight: _Flight, error: Unavailable) -> None:
        if not flight.future.done():
            flight.future.set_exception(error)
        self._release(flight)

    def _release(self, flight: _Flight) -> None:
        """Also cuts the cycle through awscrt that would keep the request for ever."""
        self._flights.discard(flight)
        request, flight.request = flight.request, None
        if request is not None and not flight.landed:
            request.cancel()


def _limited(answer: Response, limit: int) -> Response:
    """The answer to a ranged GET as if the whole object had been asked for."""
    if not answer.ok:
        return answer
    total = answer.headers.get("content-range", "").rpartition("/")[2]
    size = int(total) if total.isdigit() else int(answer.headers.get("content-length") or len(answer.body))
    headers = {name: value for name, value in answer.headers.items() if name != "content-range"}
    headers["content-length"] = str(size)
    if size > limit:
        return Response(200, headers, b"", truncated=True)
    return Response(200, headers, answer.body)
