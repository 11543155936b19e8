"""One request: sent whole with each try, made of valid values, and answered within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.core.model import Entry, Side
from syncloud.errors import Corrupt, Malformed, Unavailable
from syncloud.s3.content import S3Content
from syncloud.s3.transport import MAX_TRIES
from tests.support.server import Handle, Server, answering, error_xml, head, http, resetting
from tests.support.transport import crt, tree_at

if TYPE_CHECKING:
    import socket

    from tests.support.emulator import Bucket


def test_a_body_of_8_mib_travels_both_ways(bucket: Bucket) -> None:
    body = os.urandom(1024) * 8192

    async def go() -> bytes:
        async with crt(bucket.server.endpoint, bucket.name) as client:
            assert (await client.request("PUT", "k", operation="PutObject", body=body)).ok
            return (await client.request("GET", "k", operation="GetObject")).body

    assert asyncio.run(go()) == body


@pytest.mark.parametrize(
    ("status", "most"),
    [(b"200 OK", "16,777,216"), (b"403 Forbidden", "1,048,576")],
    ids=["an answer", "an error"],
)
@pytest.mark.parametrize("stack", ["loop", "thread"])
def test_an_answer_without_end_is_cut_off_and_takes_no_memory(
    bucket: Bucket, status: bytes, most: str, stack: str
) -> None:
    sent: list[int] = []

    def handle(sock: socket.socket) -> None:
        head(sock)
        sock.sendall(b"HTTP/1.1 " + status + b"\r\ncontent-length: 4000000000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(4_000):
                sock.sendall(bytes(1_000_000))
                sent.append(1)

    async def go(endpoint: str) -> None:
        async with crt(endpoint, bucket.name) as client:
            if stack == "loop":
                await client.request("GET", "key", operation="GetObject", deadline=30)
            else:
                await asyncio.to_thread(
                    client.request_blocking, "ListObjectsV2", "list", [], deadline=30
                )

    with Server(handle) as server, pytest.raises(Unavailable, match=f"more than {most} bytes"):
        asyncio.run(go(server.endpoint))
    assert len(sent) < MAX_TRIES * 60, "what is on the way and in buffers, besides"


def test_a_request_is_tried_three_times_whole_and_signed_each_time() -> None:
    seen: list[tuple[bytes, bytes]] = []

    def handle(sock: socket.socket) -> None:
        while request := head(sock):
            start, _, body = request.partition(b"\r\n\r\n")
            while len(body) < 100_000:
                body += sock.recv(65536)
            seen.append((start, body))
            sock.sendall(http("503 Slow Down", error_xml("SlowDown")))

    async def go(endpoint: str) -> None:
        async with crt(endpoint) as client:
            with pytest.raises(Unavailable) as caught:
                await client.request("PUT", "key", operation="PutObject", body=b"x" * 100_000)
            assert caught.value.code == "SlowDown"

    with Server(handle) as server:
        asyncio.run(go(server.endpoint))
    assert [body for _, body in seen] == [b"x" * 100_000] * 3
    assert all(b"\r\nAuthorization: AWS4-HMAC-SHA256 " in start for start, _ in seen)


class Unseekable(io.BytesIO):
    """A body that cannot be sent a second time, nor a first."""

    def seek(self, *_: int) -> int:
        raise OSError("not to be rewound")


ODD: list[tuple[type[Exception], dict[str, Any]]] = [
    *(
        (Malformed, {"headers": [("if-match", value)]})
        for value in ("a\r\nx-evil: 1", "a\nb", "a\0b", "a\rb", "\x1b", "\ud800")
    ),
    *(
        (Malformed, {"headers": [(name, "v")]})
        for name in ("a b", "a\r\nx-evil: 1", "", "a:b", "\xfc")
    ),
    (Malformed, {"query": [("versionId", "\udfff")]}),
    *((TypeError, {"headers": [("if-match", value)]}) for value in (None, 7, b"x")),
    (TypeError, {"headers": [(None, "v")]}),
    (TypeError, {"body": "a text"}),
    (OSError, {"body": Unseekable(b"x")}),
]


def test_a_request_that_cannot_be_made_is_its_own_affair_and_costs_no_connection() -> None:
    """The bad requests outnumber the connections, among good ones.

    Each error reaches its own caller at once.
    """
    seen: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        while request := head(sock):
            seen.append(request)
            sock.sendall(http("200 OK"))

    async def go(endpoint: str) -> list[tuple[Any, Any]]:
        async with crt(endpoint, transfers=2) as client:

            async def good() -> int:
                return (await client.request("GET", "key", operation="GetObject")).status

            outcomes = []
            for _ in range(3):
                odd = [
                    client.request("PUT", "key", operation="PutObject", deadline=20, **more)
                    for _, more in ODD
                ]
                sent = [
                    good(),
                    good(),
                    *odd,
                    good(),
                    good(),
                    client.request("GET", "\ud800", operation="GetObject"),
                ]
                ends = await asyncio.wait_for(asyncio.gather(*sent, return_exceptions=True), 15)
                assert [ends[number] for number in (0, 1, -3, -2)] == [200] * 4
                assert isinstance(ends[-1], Malformed)
                outcomes += list(zip(ends[2:-3], ODD, strict=True))
            assert len(client._connections) <= 2
            return outcomes

    with Server(handle) as server:
        outcomes = asyncio.run(go(server.endpoint))
    for error, (kind, more) in outcomes:
        assert isinstance(error, kind), (error, more)
        assert not isinstance(error, Unavailable), (error, more)
    assert len(seen) == 12
    assert not [request for request in seen if b"evil" in request]


def test_a_listing_that_cannot_be_asked_for_costs_no_connection() -> None:
    async def go(endpoint: str) -> None:
        async with crt(endpoint, transfers=1) as client:
            for _ in range(5):
                with pytest.raises(Malformed):
                    client.request_blocking("ListObjectsV2", "list", [("prefix", "\ud800")])
            assert client.request_blocking("ListObjectsV2", "list", [("prefix", "a")]).ok
            assert len(client._connections) == 1

    with Server(answering(http("200 OK"))) as server:
        asyncio.run(go(server.endpoint))


@pytest.mark.slow
def test_awscrt_gives_up_by_itself() -> None:
    """Retried to the end: two times, or five with awscrt 0.24, which takes up to 16 s."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        refused = f"http://127.0.0.1:{unused.getsockname()[1]}"

    async def one(endpoint: str) -> Unavailable:
        async with crt(endpoint) as client:
            with pytest.raises(Unavailable) as caught:
                await client.request("GET", "key", operation="GetObject", deadline=60)
            return caught.value

    async def go(*endpoints: str) -> list[Unavailable]:
        return await asyncio.gather(*map(one, endpoints))

    busy = answering(http("503 Slow Down", error_xml("SlowDown")))
    broken = answering(http("500 Internal Server Error", error_xml("InternalError")))
    with Server(resetting) as reset, Server(busy) as throttled, Server(broken) as faulty:
        errors = asyncio.run(go(reset.endpoint, throttled.endpoint, faulty.endpoint, refused))
    codes = [error.code for error in errors]
    assert codes[1:3] == ["SlowDown", "InternalError"]
    assert "SOCKET" in codes[0]
    assert "REFUSED" in codes[3]
    assert all("s3://bucket/key" in str(error) for error in errors)


def longer(sent: list[int], length: int) -> Handle:
    """A store that claims eight bytes for every object, and sends `length` of them."""

    def handle(sock: Any) -> None:
        while request := head(sock):
            of_head = request.startswith(b"HEAD")
            lines = [
                b"HTTP/1.1 200 OK",
                b'ETag: "e"',
                b"Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
            ]
            lines.append(b"Content-Length: %d" % (8 if of_head else length))
            sock.sendall(b"\r\n".join([*lines, b"", b""]))
            with contextlib.suppress(OSError):
                while not of_head and sum(sent) < length:
                    sock.sendall(b"x" * 65536)
                    sent.append(65536)

    return handle


@pytest.mark.parametrize("size", [0, 8])
def test_a_pinned_get_ends_at_its_size_and_the_object_is_looked_at(size: int) -> None:
    """What an event has promised may be a lie of its sender: HEAD says what is true."""
    sent: list[int] = []

    async def go(endpoint: str) -> Side:
        async with tree_at(endpoint) as tree:
            return await tree.observe(
                "a", None, None, reported=Entry("a", ("e", "", ""), size, 0, 0)
            )

    with Server(longer(sent, 1_000_000_000)) as server:
        seen = asyncio.run(go(server.endpoint))
        assert server.connections == 2, "what goes on sending is given up"
    assert isinstance(seen, Entry)
    assert (seen.size, seen.body) == (8, None)
    assert sum(sent) < 60_000_000, "what is on the way and in buffers"


def test_a_part_ends_at_its_size_and_is_its_paths_failure() -> None:
    sent: list[int] = []

    async def go(endpoint: str) -> None:
        async with tree_at(endpoint) as tree:
            with pytest.raises(Corrupt, match="more than 8 bytes") as caught:
                await S3Content(tree.bucket, Entry("a", ("e", "", ""), 8, 0, 0)).part(0, 8)
            assert caught.value.path == "a"
            with pytest.raises(Corrupt, match="more than 4 bytes"):
                await S3Content(tree.bucket, Entry("a", ("e", "", ""), 8, 0, 0)).part(0, 4)

    with Server(longer(sent, 1_000_000_000)) as server:
        asyncio.run(go(server.endpoint))
        assert server.connections == 2, "each is asked for once"
    assert sum(sent) < 60_000_000, "what is on the way and in buffers"
