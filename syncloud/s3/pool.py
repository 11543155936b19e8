"""The connections to one address, kept open between requests: awscrt's HTTP client, on a thread of its own.

A server closes a connection that rests (S3 after some seconds), a NAT gateway forgets it without a word, so one that has
rested for long is not trusted, and where one turns out to be dead the others that rest are not either. Sources: "Basics:
idle timeout" of NAT gateways in the Amazon VPC user guide (350 s); `awscrt.http`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from awscrt.http import HttpClientConnection, HttpProxyAuthenticationType, HttpProxyOptions
from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup, SocketOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from awscrt.io import ClientTlsContext, TlsConnectionOptions

    from ..aws.session import Address

IDLE_MAX_S = 60.0
"""Seconds after which a connection that rests is not used again."""
CONNECT_TIMEOUT_MS = 5000
"""Milliseconds until the other side must have taken a new connection."""


class ConnectionPool:
    """To `address`, through the proxy at the URL `proxy` if there is one; `tls` is asked for where either is https.

    Any thread may call.

    Each of them carries one request at a time. Making it opens none.
    """

    def __init__(
        self,
        address: Address,
        proxy: str,
        tls: Callable[[], ClientTlsContext],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._to, self._proxy = urlsplit(address.url), urlsplit(proxy)
        self._tls = tls() if "https" in (self._to.scheme, self._proxy.scheme) else None
        group = EventLoopGroup(1)
        self._bootstrap = ClientBootstrap(group, DefaultHostResolver(group))
        self._socket = SocketOptions()
        self._socket.connect_timeout_ms = CONNECT_TIMEOUT_MS
        self._resting: deque[tuple[float, Any]] = deque()
        self._open: set[Any] = set()
        self._at_home = False
        self._closed = False

    def __len__(self) -> int:
        """How many are open, at work or at rest."""
        return len(self._open)

    def acquire(self) -> Any:
        """One that rests, the latest first; None where there is none that can be trusted."""
        while True:
            try:
                since, connection = self._resting.pop()
            except IndexError:
                return None
            if self._clock() - since < IDLE_MAX_S and connection.is_open():
                return connection
            self.discard(connection)

    def release(self, connection: Any) -> None:
        """It is not needed any more: its answer has come, whole. Whether it is still open matters to who takes it."""
        if self._closed:
            self.discard(connection)
        else:
            self._resting.append((self._clock(), connection))

    def discard(self, connection: Any) -> None:
        """Close it, and give up what is under way on it."""
        self._open.discard(connection)
        connection.close()

    def close_idle(self) -> None:
        """One was found dead: what has rested meanwhile may be, too."""
        with contextlib.suppress(IndexError):
            while True:
                self.discard(self._resting.pop()[1])

    def open(self) -> concurrent.futures.Future[Any]:
        """A new one, to be given back or dropped. The future's callbacks run on awscrt's thread, what it raises is awscrt's."""
        opened: concurrent.futures.Future[Any] = HttpClientConnection.new(
            host_name=self._to.hostname or "",
            port=_port(self._to),
            bootstrap=self._bootstrap,
            socket_options=self._socket,
            tls_connection_options=self._secure(self._to),
            proxy_options=self._through(self._proxy) if self._proxy.hostname else None,
        )
        opened.add_done_callback(self._count)
        return opened

    def _count(self, opened: concurrent.futures.Future[Any]) -> None:
        """On awscrt's thread."""
        if not self._at_home:
            self._at_home = True
            # To Python a foreign thread is a new one with every call: six states a request, each with a stack to map and
            # unmap. A state that is never given back is found again by the next call.
            ctypes.pythonapi.PyGILState_Ensure()
        if opened.exception() is None:
            self._open.add(opened.result())
            if self._closed:
                self.discard(opened.result())

    def _secure(self, to: SplitResult) -> TlsConnectionOptions | None:
        if self._tls is None or to.scheme != "https":
            return None
        options = self._tls.new_connection_options()
        options.set_server_name(to.hostname or "")
        return options

    def _through(self, proxy: SplitResult) -> HttpProxyOptions:
        named = proxy.username is not None
        return HttpProxyOptions(
            proxy.hostname or "",
            _port(proxy),
            tls_connection_options=self._secure(proxy),
            auth_type=HttpProxyAuthenticationType.Basic if named else HttpProxyAuthenticationType.Nothing,
            auth_username=unquote(proxy.username or "") if named else None,
            auth_password=unquote(proxy.password or "") if named else None,
        )

    def close(self, timeout: float) -> None:
        """Close all of them, and wait until awscrt has let go, at most `timeout` seconds. Blocking."""
        self._closed = True
        ending = list(self._open)
        for connection in ending:
            self.discard(connection)
        concurrent.futures.wait([connection.shutdown_future for connection in ending], timeout)


def _port(to: SplitResult) -> int:
    return to.port or {"http": 80, "https": 443}[to.scheme]
