"""Connection pool for one address: awscrt's HTTP client with keep-alive, on awscrt's own thread.

A server closes an idle connection (S3 after some seconds), and a NAT gateway drops one silently.
Hence a long-idle connection is not reused, and one dead connection discredits all idle ones.
Sources: "Basics: idle timeout" of NAT gateways in the Amazon VPC user guide (350 s); `awscrt.http`.
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
"""Seconds after which an idle connection is not reused."""
CONNECT_TIMEOUT_MS = 5000
"""Milliseconds until the peer must have accepted a new connection."""


class ConnectionPool:
    """Pool of connections to `address`, through the proxy at the URL `proxy` if there is one.

    `tls` is called if the address or the proxy uses https. Each connection carries one request at a
    time. The constructor opens no connection. Thread-safe.
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
        """Number of open connections, busy or idle."""
        return len(self._open)

    def acquire(self) -> Any:
        """The most recently used idle connection; None if no idle connection is trustworthy."""
        while True:
            try:
                since, connection = self._resting.pop()
            except IndexError:
                return None
            if self._clock() - since < IDLE_MAX_S and connection.is_open():
                return connection
            self.discard(connection)

    def release(self, connection: Any) -> None:
        """Return a connection to the pool, once its answer is complete.

        `acquire` checks later if the connection is still open.
        """
        if self._closed:
            self.discard(connection)
        else:
            self._resting.append((self._clock(), connection))

    def discard(self, connection: Any) -> None:
        """Close the connection, and abort its request if one is under way."""
        self._open.discard(connection)
        connection.close()

    def close_idle(self) -> None:
        """Discard all idle connections: once one is found dead, the others may be dead as well."""
        with contextlib.suppress(IndexError):
            while True:
                self.discard(self._resting.pop()[1])

    def open(self) -> concurrent.futures.Future[Any]:
        """Open a connection, which the caller must release or discard.

        The future's callbacks run on awscrt's thread. The future raises awscrt's errors.
        """
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
        """Register a new connection. Runs on awscrt's thread."""
        if not self._at_home:
            self._at_home = True
            # Python creates a thread state for every call from a foreign thread: six per request,
            # each with a stack to map and unmap. A state that is never released is reused instead.
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
        named, kinds = proxy.username is not None, HttpProxyAuthenticationType
        return HttpProxyOptions(
            proxy.hostname or "",
            _port(proxy),
            tls_connection_options=self._secure(proxy),
            auth_type=kinds.Basic if named else kinds.Nothing,
            auth_username=unquote(proxy.username or "") if named else None,
            auth_password=unquote(proxy.password or "") if named else None,
        )

    def close(self, timeout: float) -> None:
        """Close all connections, and wait up to `timeout` seconds for awscrt. Blocking."""
        self._closed = True
        ending = list(self._open)
        for connection in ending:
            self.discard(connection)
        concurrent.futures.wait([connection.shutdown_future for connection in ending], timeout)


def _port(to: SplitResult) -> int:
    return to.port or {"http": 80, "https": 443}[to.scheme]
