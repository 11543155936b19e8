"""Connections: reused while they can be trusted, and opened through a proxy if there is one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.aws.session import Aws
from syncloud.errors import Unavailable
from syncloud.s3.pool import IDLE_MAX_S, ConnectionPool
from syncloud.s3.transport import Transport
from tests.support.server import Handle, Server, answering, head, http, silent, splice
from tests.support.transport import crt, get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.emulator import Bucket


def test_python_knows_the_thread_of_awscrt_again(bucket: Bucket) -> None:
    """Thread-local values vanish with a new state of Python's.

    A new state for each answer would be costly.
    """
    seen: list[int] = []
    kept = threading.local()

    class Watched(Transport):
        def _land(self, flight: Any) -> None:
            kept.answers = getattr(kept, "answers", 0) + 1
            seen.append(kept.answers)
            super()._land(flight)

    async def go() -> None:
        with contextlib.closing(Aws(endpoint_url=bucket.server.endpoint)) as aws:
            client = Watched(aws, bucket.name, transfers=4)
            for _ in range(3):
                await client.request("GET", "none", operation="GetObject")
            await client.close()

    asyncio.run(go())
    assert seen == [1, 2, 3]


def test_a_proxy_that_is_down_is_unavailable(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        get(bucket.server.endpoint, bucket.name, deadline=2)


def once_each(sock: socket.socket) -> None:
    """One answer for each connection, which then closes without having said so."""
    if head(sock):
        sock.sendall(http("200 OK", b"fine"))


def parting(sock: socket.socket) -> None:
    """The same, and it says so."""
    if head(sock):
        sock.sendall(http("200 OK", b"fine", Connection="close"))


@pytest.mark.parametrize("handle", [once_each, parting])
def test_a_connection_that_its_server_has_closed_costs_nothing(handle: Handle) -> None:
    async def go(endpoint: str) -> float:
        async with crt(endpoint, transfers=1) as client:
            started = time.monotonic()
            for number in range(20):
                assert (
                    await client.request("GET", str(number), operation="GetObject")
                ).body == b"fine"
                assert client.request_blocking("ListObjectsV2", "list", []).body == b"fine"
            return time.monotonic() - started

    with Server(handle) as server:
        assert asyncio.run(go(server.endpoint)) < 5, "no pause before such a try"
        assert server.connections >= 40


def test_what_rested_beside_a_dead_connection_is_not_used_again() -> None:
    """A network that was cut says nothing on connections that rest: each would cost a deadline."""
    cut = threading.Event()

    def handle(sock: socket.socket) -> None:
        old = not cut.is_set()
        while head(sock):
            if old and cut.is_set():
                silent(sock)
            else:
                time.sleep(0.1)
                sock.sendall(http("204 No Content"))

    async def go(endpoint: str) -> None:
        async with crt(endpoint, transfers=8) as client:
            await asyncio.gather(
                *(client.request("DELETE", str(n), operation="DeleteObject") for n in range(8))
            )
            cut.set()
            with pytest.raises(Unavailable):
                await client.request("DELETE", "key", operation="DeleteObject", deadline=0.5)
            for _ in range(8):
                assert (
                    await client.request("DELETE", "key", operation="DeleteObject", deadline=2)
                ).ok

    with Server(handle) as server:
        asyncio.run(go(server.endpoint))


def test_a_connection_that_has_rested_for_long_is_not_used_again() -> None:
    """A NAT gateway forgets it after 350 s, a server sooner."""

    async def go(endpoint: str) -> None:
        now = 0.0
        with contextlib.closing(Aws(endpoint_url=endpoint)) as aws:
            connections = ConnectionPool(aws.s3_address("bucket"), "", aws.tls, clock=lambda: now)
            first = await asyncio.wrap_future(connections.open())
            connections.release(first)
            now = IDLE_MAX_S - 1
            assert connections.acquire() is first
            connections.release(first)
            now += IDLE_MAX_S + 1
            assert (connections.acquire(), len(connections)) == (None, 0)
            await asyncio.to_thread(connections.close, 5)

    with Server(silent) as server:
        asyncio.run(go(server.endpoint))
        assert server.closed.wait(5)


def test_a_proxy_is_told_who_asks(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        requests.append(head(sock))
        sock.sendall(http("204 No Content"))

    with Server(handle) as watching:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:p%40ss@127.0.0.1:{watching.port}")
        assert get(bucket.server.endpoint, bucket.name).status == 204
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in requests[0]


def test_a_proxy_may_itself_speak_tls(
    private_ca: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private_ca / "server.pem", private_ca / "server.key")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    with Server(answering(http("200 OK", b"by the proxy")), context=context) as server:
        monkeypatch.setenv("HTTP_PROXY", server.endpoint)
        assert get(bucket.server.endpoint, bucket.name).body == b"by the proxy"


@pytest.fixture
def mute(
    secure: Server, private_ca: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[threading.Event]:
    """While it is set, the proxy on the way to `secure` says nothing to whoever comes."""
    muted = threading.Event()
    muted.set()

    def handle(sock: socket.socket) -> None:
        if head(sock) and muted.is_set():
            silent(sock)
            return
        with socket.create_connection(("127.0.0.1", secure.port)) as behind:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            splice(sock, behind)

    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    with Server(handle) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.endpoint)
        yield muted


def test_who_asks_while_a_proxy_says_nothing_is_served_when_that_has_lasted_too_long(
    secure: Server, bucket: Bucket, mute: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening connections count as available until their timeout.

    Then a new request opens its own connection.
    """
    monkeypatch.setattr("syncloud.s3.transport.ANSWER_TIMEOUT_S", 3.0)

    async def go() -> None:
        async with crt(secure.endpoint, bucket.name, transfers=2) as client:
            with pytest.raises(Unavailable):
                await asyncio.gather(
                    *(
                        client.request("HEAD", "key", operation="HeadObject", deadline=0.5)
                        for _ in range(2)
                    )
                )
            mute.clear()
            assert (
                await client.request("HEAD", "key", operation="HeadObject", deadline=20)
            ).status == 404

    asyncio.run(go())


def test_a_proxy_that_says_nothing_is_not_waited_for_for_ever(
    secure: Server, bucket: Bucket, mute: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does the connection come nor does it fail: awscrt waits as long as the proxy."""
    monkeypatch.setattr("syncloud.s3.transport.ANSWER_TIMEOUT_S", 1.0)

    async def go() -> None:
        async with crt(secure.endpoint, bucket.name, transfers=2) as client:
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await asyncio.gather(
                        *(client.request("HEAD", "key", operation="HeadObject") for _ in range(4))
                    )
            mute.clear()
            assert (
                await client.request("HEAD", "key", operation="HeadObject", deadline=10)
            ).status == 404

    asyncio.run(go())
