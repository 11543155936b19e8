"""Asynchronous S3 transport: signed requests through awscrt's HTTP client, awaited from asyncio.

`Transport.request` returns a `Response` whatever its status; tree.py interprets 404 or 412. Errors
are raised only if no answer comes (network, TLS, timeout, no credentials), or if retries are
exhausted (throttling, a server error). awscrt's own S3 client does more, but at a higher cost and
with its own retries and deadlines (ARCHITECTURE.md).

Ten thousand small requests must be cheap. So completions queue up on awscrt's thread and wake the
loop once per batch, and one timer serves all deadlines.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections import deque
from typing import Any

from .. import log
from ..aws.error_mapping import TLS_HINT, is_of_crt, translate
from ..aws.session import Aws
from ..backoff import Backoff
from ..errors import Scope, SyncloudError, Unavailable
from .pool import ConnectionPool
from .request import ANSWER_MAX_BYTES, Body, PendingRequest, Request, size_of
from .response import Response
from .signer import Pairs, Signer

ANSWER_TIMEOUT_S = 30.0
"""Seconds that any answer may take, in addition to the time for its bytes."""
SLOWEST_BYTES_PER_S = 1_000_000
"""Bytes per second: the slowest rate that the default deadline allows."""
MAX_TRIES = 3
"""Tries of one request before its error is raised. The engine retries the path, more slowly."""
RETRY = Backoff(first_s=0.4, most_s=5.0, jitter=1.0)
"""Full jitter, because the random share spreads the retries of a fleet."""

CROWD_REQUESTS, TICK_INTERVAL_S = 32, 0.002
"""Polling under load: from this number of requests on, the loop polls for completions.

The interval is in seconds. Polling is cheaper than a wake-up per completion.
"""
_PLAIN = (
    "http://%s is plain HTTP: anyone on the way can read all bytes, and replace those that come"
    " from there; use https"
)


class Transport:
    """Transport for one bucket, used from one event loop.

    `transfers` is the limit of concurrent requests, `owner` the account expected to own the bucket,
    if known. The constructor reads the configuration and finds the credentials, which can take
    seconds.
    """

    def __init__(self, aws: Aws, bucket: str, *, transfers: int, owner: str = "") -> None:
        address = aws.s3_address(bucket)
        proxy = aws.proxy(address)
        self._by_tls = address.scheme == "https"
        # An intermediary could replace the bytes of a request, so their signature protects them.
        watched = not self._by_tls and (bool(proxy) or not address.is_loopback)
        self._bucket = f"s3://{bucket}"
        self.owner = owner
        self.region = aws.region
        self._limit = max(transfers, 1)
        self._signer = Signer(aws, address, owner, signs_bodies=watched)
        self._connections = ConnectionPool(address, proxy, aws.tls)
        aws.credentials.start()
        self._flights: set[PendingRequest] = set()
        self._calls: set[PendingRequest] = set()
        self._waiting: deque[PendingRequest] = deque()
        self._opening: dict[concurrent.futures.Future[Any], float] = {}  # start of each attempt
        self._landed: deque[PendingRequest] = deque()
        self._waking = self._ticking = False
        self._closed = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answered = False
        if watched:
            log.warning("endpoint.plain", _PLAIN, address.host)

    @property
    def unproven(self) -> bool:
        """True if TLS has brought no answer yet: awscrt reports TLS failures late and tersely."""
        return self._by_tls and not self._answered

    async def request(
        self,
        method: str,
        key: str,
        *,
        operation: str,
        query: Pairs = (),
        headers: Pairs = (),
        body: Body | None = None,
        deadline: float | None = None,
        most: int = ANSWER_MAX_BYTES,
    ) -> Response:
        """Send one request about `key` (empty: about the bucket), and return the final answer.

        `operation` is S3's name for the request ("PutObject"). `deadline` is in seconds. The
        default is `ANSWER_TIMEOUT_S` plus the time for the request body at `SLOWEST_BYTES_PER_S`,
        so a large download needs an explicit one. `most` bounds the bytes of the answer.

        Raises CredentialsError; Unavailable if no answer comes by the deadline or at all. Raises
        Overlong for more than `most` bytes, and Malformed if a value cannot be sent.
        """
        if deadline is None:
            deadline = ANSWER_TIMEOUT_S + size_of(body) / SLOWEST_BYTES_PER_S
        loop = self._loop = self._loop or asyncio.get_running_loop()
        what = f"{operation} {self._bucket}/{key}"
        self._require_open(what)
        request = self._signer.request(
            what, operation, method, key, query=query, headers=headers, body=body, most=most
        )
        flight = PendingRequest(request, loop.create_future(), loop.time() + deadline, self._land)
        self._watch(flight)
        try:
            self._queue(flight)
            answer: Response = await flight.future
            return answer
        finally:
            flight.future.cancel()  # a queued request is not sent once its caller gave up
            self._release(flight)

    def request_blocking(
        self, operation: str, what: str, query: Pairs, *, deadline: float = ANSWER_TIMEOUT_S
    ) -> Response:
        """Send one GET about the bucket, and block the calling thread until the answer.

        `what` describes the request in messages. `deadline` is in seconds. Raises as `request`.
        """
        # The request bypasses the event loop, because the loop may be waiting for the caller.
        self._require_open(what)
        request = self._signer.request(what, operation, "GET", "", query=query)
        until = time.monotonic() + deadline
        tries = 1
        while True:
            try:
                return self._call(request, until)
            except Unavailable as error:
                if not _is_passing(error) or tries == MAX_TRIES or time.monotonic() >= until:
                    raise
            self._closed.wait(RETRY.delay(tries))
            tries += 1

    def _call(self, request: Request, until: float) -> Response:
        call = PendingRequest(request, concurrent.futures.Future(), until, _wake)
        self._calls.add(call)
        try:
            answer = self._answer(call)
        except TimeoutError:
            raise self._overdue(call) from None
        except Exception as error:
            self._require_open(request.what)
            if is_of_crt(error):
                raise translate(error, request.what) from error
            raise
        finally:
            self._calls.discard(call)
            if (left := call.detach()) is not None:
                self._connections.discard(left)
        self._answered = True
        return answer

    def _answer(self, call: PendingRequest) -> Response:
        signed = self._signer.sign(call.request)
        rested = self._connections.acquire()
        connection = rested or self._connect(call.deadline)
        call.send_on(connection, signed, reused=rested is not None)
        call.future.result(call.deadline - time.monotonic())
        answer = call.response()
        self._connections.release(call.detach())
        return answer

    def _connect(self, until: float) -> Any:
        opened = self._connections.open()
        try:
            return opened.result(until - time.monotonic())
        except TimeoutError:
            opened.add_done_callback(self._unwanted)
            raise

    def _unwanted(self, opened: concurrent.futures.Future[Any]) -> None:
        if opened.exception() is None:
            self._connections.release(opened.result())

    def _require_open(self, what: str) -> None:
        if self._closed.is_set():
            raise _closed(what)

    async def close(self) -> None:
        """Fail pending requests with Unavailable, and wait up to 10 s for awscrt's connections."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._timer is not None:
            self._timer.cancel()
        self._give_up({flight: _closed(flight.request.what) for flight in self._flights})
        await asyncio.to_thread(self._connections.close, 10)

    # Departures: a FIFO queue for connections

    def _queue(self, flight: PendingRequest) -> None:
        if not self._ticking and len(self._flights) >= CROWD_REQUESTS:
            self._tick()
        self._waiting.append(flight)
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            if not self._waiting[0].future.done():
                connection = self._connections.acquire()
                if connection is None:
                    break
                self._board(self._waiting.popleft(), connection, reused=True)
            else:
                self._waiting.popleft()
        if self._waiting:
            self._open_more()

    def _open_more(self) -> None:
        # An attempt without an end (a silent proxy) stops counting, so no request waits for it.
        begun = time.monotonic() - ANSWER_TIMEOUT_S
        opening = sum(since > begun for since in self._opening.values())
        at_hand = len(self._connections) - len(self._calls) + opening
        for _ in range(min(len(self._waiting) - opening, self._limit - at_hand)):
            try:
                since, opened = time.monotonic(), self._connections.open()
            except Exception as error:  # noqa: BLE001 - fails the first in the queue
                self._fail(self._waiting.popleft(), error)
                continue
            self._opening[opened] = since
            opened.add_done_callback(self._opened)
            if self._loop is not None:
                self._loop.call_later(ANSWER_TIMEOUT_S, self._serve)  # replaces a silent attempt

    def _opened(self, opened: concurrent.futures.Future[Any]) -> None:
        """Hand a new connection to the loop. Runs on awscrt's thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._arrive, opened)

    def _arrive(self, opened: concurrent.futures.Future[Any]) -> None:
        """Give a new connection, or its failure, to the request that has waited longest."""
        self._opening.pop(opened, None)
        error = opened.exception()
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        if not self._waiting:
            if error is None:
                self._connections.release(opened.result())
        elif error is None:
            self._board(self._waiting.popleft(), opened.result(), reused=False)
        else:
            self._fail(self._waiting.popleft(), error)

    def _board(self, flight: PendingRequest, connection: Any, *, reused: bool) -> None:
        try:
            flight.send_on(connection, self._signer.sign(flight.request), reused=reused)
        except Exception as error:  # noqa: BLE001 - fails this request and drops its connection
            flight.detach()
            self._connections.discard(connection)
            self._fail(flight, error)

    def _fail(self, flight: PendingRequest, error: BaseException) -> None:
        """Fail `flight`. The next queued request may use the freed slot."""
        flight.error = error
        if not flight.future.done():
            self._settle(flight)
        if self._waiting and self._loop is not None:
            self._loop.call_soon(self._serve)

    # Arrivals: completions, retries and deadlines

    def _land(self, flight: PendingRequest) -> None:
        """Queue a completion and wake the loop if needed. Runs on awscrt's thread.

        `_deliver` clears the flag before it empties the queue, so no completion is left behind.
        Under load no wake-up is needed: the last tick runs after the load has ended.
        """
        self._landed.append(flight)
        if not self._waking and self._loop is not None and len(self._flights) < CROWD_REQUESTS:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its waiters with it
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False
        connections = self._connections
        while self._landed:
            flight = self._landed.popleft()
            if (connection := flight.detach()) is not None:
                give = connections.discard if flight.error else connections.release
                give(connection)
            if not flight.future.done():
                self._settle(flight)
        self._serve()

    def _tick(self) -> None:
        self._ticking = len(self._flights) >= CROWD_REQUESTS
        if self._ticking and self._loop is not None:
            self._loop.call_later(TICK_INTERVAL_S, self._tick)
        self._deliver()

    def _settle(self, flight: PendingRequest) -> None:
        try:
            answer = flight.response()
        except Exception as error:  # noqa: BLE001 - fails this request alone
            if not _is_passing(error) or not self._retry(flight):
                flight.future.set_exception(error)
        else:
            self._answered = True
            flight.future.set_result(answer)

    def _retry(self, flight: PendingRequest) -> bool:
        if flight.error is not None and flight.reused:
            self._connections.close_idle()
        flight.tries += 1
        if flight.tries >= MAX_TRIES or self._loop is None or self._closed.is_set():
            return False
        # A server may close an idle connection just as it is reused. That proves no outage, so the
        # first retry follows at once.
        was_idle = flight.reused and not flight.status and flight.tries == 1
        pause = 0.0 if was_idle else RETRY.delay(flight.tries)
        flight.error = None
        self._loop.call_later(pause, self._queue, flight)
        return True

    def _watch(self, flight: PendingRequest) -> None:
        """Track `flight`. One timer, for the earliest deadline, is free while answers come."""
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
        ended = [flight for flight in self._flights if flight.deadline <= now]
        self._give_up({flight: self._overdue(flight) for flight in ended})
        if self._flights:
            earliest = min(flight.deadline for flight in self._flights)
            self._timer = self._loop.call_at(earliest, self._expire)

    def _overdue(self, flight: PendingRequest) -> Unavailable:
        self._connections.close_idle()
        # awscrt (s2n) reports a failed TLS handshake after 10 to 30 s, often past the deadline.
        hint = TLS_HINT if self.unproven else ""
        return Unavailable(f"{flight.request.what}: no answer by the deadline", hint=hint)

    def _give_up(self, ended: dict[PendingRequest, Unavailable]) -> None:
        """Fail all `ended` requests before any release: their slots must not go to each other."""
        for flight, error in ended.items():
            if not flight.future.done():
                flight.future.set_exception(error)
        for flight in ended:
            self._release(flight)

    def _release(self, flight: PendingRequest) -> None:
        """Forget the request. If its answer is incomplete, its connection is discarded as well."""
        self._flights.discard(flight)
        if not flight.landed and (connection := flight.detach()) is not None:
            self._connections.discard(connection)
            self._serve()


def _is_passing(error: Exception) -> bool:
    """True if the same request may soon succeed."""
    return isinstance(error, SyncloudError) and error.scope is Scope.STORE


def _closed(what: str) -> Unavailable:
    return Unavailable(f"{what}: the S3 client is closed")


def _wake(call: PendingRequest) -> None:
    """Wake the thread that waits for `call`."""
    call.future.set_result(None)
