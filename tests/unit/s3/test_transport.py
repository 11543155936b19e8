"""Single S3 requests over real HTTP: every key and signature, deadlines, tries, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.aws.session import Aws
from syncloud.core import checksum
from syncloud.errors import CredentialsError, Unavailable
from syncloud.s3.transport import CROWD_REQUESTS, Transport
from tests.support.server import Handle, Server, answering, endless, error_xml, head, http, silent
from tests.support.transport import crt, get

if TYPE_CHECKING:
    import socket

    from tests.support.emulator import Bucket


# --- the emulator


def test_answers_of_every_kind(bucket: Bucket) -> None:
    body = b"hello"
    crc = (checksum.HEADER, checksum.encode(checksum.update(body)))

    async def go() -> None:
        async with crt(bucket.server.endpoint, bucket.name) as client:
            send = client.request
            new = [crc, ("if-none-match", "*"), ("x-amz-meta-mtime", "1.5")]
            put = await send("PUT", "k", operation="PutObject", headers=new, body=body)
            assert put.ok
            assert put.headers["x-amz-version-id"]
            again = await send("PUT", "k", operation="PutObject", headers=new, body=body)
            assert (again.status, again.code) == (412, "PreconditionFailed")
            seen = await send(
                "HEAD", "k", operation="HeadObject", headers=[("x-amz-checksum-mode", "ENABLED")]
            )
            assert seen.headers.items() >= {
                crc,
                ("x-amz-meta-mtime", "1.5"),
                ("content-length", "5"),
            }
            assert seen.body == b""
            same = await send(
                "GET", "k", operation="GetObject", headers=[("if-none-match", put.headers["etag"])]
            )
            assert (same.status, same.body) == (304, b"")
            gone = await send("GET", "nothing", operation="GetObject")
            assert (gone.status, gone.code) == (404, "NoSuchKey")
            assert (await send("HEAD", "nothing", operation="HeadObject")).status == 404
            version = [("versionId", put.headers["x-amz-version-id"])]
            assert (await send("GET", "k", operation="GetObject", query=version)).body == body
            source = [("x-amz-copy-source", f"/{bucket.name}/k")]
            assert (await send("PUT", "copy", operation="CopyObject", headers=source)).ok
            upload = await send(
                "POST", "big", operation="CreateMultipartUpload", query=[("uploads", "")]
            )
            assert b"<UploadId>" in upload.body
            assert (await send("PUT", "empty", operation="PutObject", body=b"")).ok
            assert (await send("GET", "empty", operation="GetObject")).body == b""
            listed = await send(
                "GET", "", operation="ListObjectsV2", query=[("list-type", "2"), ("prefix", "co")]
            )
            assert b"<Key>copy</Key>" in listed.body
            assert (await send("DELETE", "k", operation="DeleteObject")).status == 204

    asyncio.run(go())
    assert bucket.get("copy") == body


def test_throttling_is_waited_out() -> None:
    slow, fine = http("503 Slow Down", error_xml("SlowDown")), http("200 OK", b"fine")
    with Server(answering(slow, fine)) as server:
        assert get(server.endpoint).body == b"fine"


# --- no answer


def test_a_server_that_stalls_costs_no_more_than_the_deadline() -> None:
    with Server(silent) as server:
        start = time.monotonic()
        with pytest.raises(
            Unavailable, match=r"GetObject s3://bucket/key: no answer by the deadline"
        ):
            get(server.endpoint, deadline=0.5)
        assert 0.4 < time.monotonic() - start < 5
        assert server.closed.wait(5), "the request is cancelled on the wire too"


def test_a_thread_asks_without_the_loop(bucket: Bucket) -> None:
    bucket.put("p/a b+c", b"x")

    async def go() -> None:
        async with crt(bucket.server.endpoint, bucket.name) as client:
            query = [("list-type", "2"), ("prefix", "p/a b+c")]
            # The loop is busy with waiting here, and cannot help.
            assert (
                b"<Key>p/a b+c</Key>"
                in client.request_blocking("ListObjectsV2", "list", query).body
            )
            refused = await asyncio.to_thread(
                client.request_blocking,
                "ListObjectsV2",
                "list",
                [*query, ("continuation-token", "none")],
            )
            assert refused.ok or refused.code

    asyncio.run(go())


@pytest.mark.parametrize("handle", [silent, endless])
def test_a_thread_waits_until_the_deadline(handle: Handle) -> None:
    async def go(endpoint: str) -> None:
        async with crt(endpoint) as client:
            with pytest.raises(Unavailable, match="list: no answer by the deadline"):
                client.request_blocking("ListObjectsV2", "list", [], deadline=1)

    with Server(handle) as server:
        started = time.monotonic()
        asyncio.run(go(server.endpoint))
    assert time.monotonic() - started < 5


def test_closing_tells_the_thread_that_asks() -> None:
    async def go(endpoint: str) -> None:
        async with crt(endpoint) as client:
            asked = asyncio.create_task(
                asyncio.to_thread(client.request_blocking, "ListObjectsV2", "list", [])
            )
            await asyncio.sleep(0.5)
            await client.close()
            with pytest.raises(Unavailable):
                await asyncio.wait_for(asked, 5)

    with Server(silent) as server:
        asyncio.run(go(server.endpoint))


def test_each_request_has_its_own_deadline() -> None:
    async def go(endpoint: str) -> list[float]:
        async with crt(endpoint) as client:

            async def one(deadline: float) -> float:
                start = time.monotonic()
                with pytest.raises(Unavailable):
                    await client.request("GET", "key", operation="GetObject", deadline=deadline)
                return time.monotonic() - start

            return await asyncio.gather(*map(one, [1.0, 0.2, 0.6, 0.2]))

    with Server(silent) as server:
        took = asyncio.run(go(server.endpoint))
    assert all(
        abs(measured - wanted) < 0.25
        for measured, wanted in zip(took, [1.0, 0.2, 0.6, 0.2], strict=True)
    ), took


def test_an_endless_body_ends_at_the_deadline() -> None:
    with Server(endless) as server, pytest.raises(Unavailable, match="deadline"):
        get(server.endpoint, deadline=0.5)


def test_cancelling_the_task_cancels_the_request() -> None:
    async def go(server: Server) -> None:
        async with crt(server.endpoint) as client:
            task = asyncio.create_task(client.request("GET", "key", operation="GetObject"))
            while not server.connections:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.closed.wait, 5)

    with Server(silent) as server:
        asyncio.run(go(server))


def test_names_and_ports_where_nobody_is() -> None:
    """awscrt 0.24 tries five times before it tells, which takes up to 16 s."""
    with pytest.raises(Unavailable, match="DNS"):
        get("http://nobody.invalid", deadline=60)


def test_no_credentials_until_there_are(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    async def go() -> None:
        with contextlib.closing(Aws(endpoint_url=bucket.server.endpoint)) as aws:
            client = Transport(aws, bucket.name, transfers=1)
            with pytest.raises(CredentialsError, match="no AWS credentials"):
                await client.request("HEAD", "key", operation="HeadObject")
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            aws.credentials.refresh()
            assert (await client.request("HEAD", "key", operation="HeadObject")).status == 404
            await client.close()

    asyncio.run(go())


# --- connections, closing


def test_as_many_requests_are_on_the_wire_as_wanted() -> None:
    lock, now, peak = threading.Lock(), 0, 0

    def slow(sock: socket.socket) -> None:
        nonlocal now, peak
        while head(sock):
            with lock:
                now += 1
                peak = max(peak, now)
            time.sleep(0.3)
            with lock:
                now -= 1
            sock.sendall(http("204 No Content"))

    async def go(endpoint: str) -> None:
        async with crt(endpoint, transfers=24) as client:
            await asyncio.gather(
                *(client.request("DELETE", str(n), operation="DeleteObject") for n in range(72))
            )

    with Server(slow) as server:
        asyncio.run(go(server.endpoint))
        assert (peak, server.connections) == (24, 24)


def test_closing_ends_what_is_under_way() -> None:
    async def go(server: Server) -> None:
        async with crt(server.endpoint) as client:
            tasks = [
                asyncio.create_task(client.request("GET", "key", operation="GetObject"))
                for _ in range(20)
            ]
            while not server.connections:
                await asyncio.sleep(0.01)
            start = time.monotonic()
            await client.close()
            assert time.monotonic() - start < 5
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, Unavailable) and "closed" in str(end) for end in ends)
            with pytest.raises(Unavailable, match="closed"):
                await client.request("GET", "key", operation="GetObject")

    with Server(silent) as server:
        asyncio.run(go(server))


@pytest.mark.parametrize(
    "ending", ["await client.close()", "pass", "raise SystemExit(0)", "os.kill(os.getpid(), 15)"]
)
def test_a_process_with_requests_under_way_exits(ending: str) -> None:
    program = f"""
        import asyncio, os, sys
        from syncloud.aws.session import Address, Aws
        from syncloud.s3.transport import Transport

        async def main():
            client = Transport(Aws(endpoint_url=sys.argv[1]), "bucket", transfers=4)
            tasks = [asyncio.create_task(client.request("GET", "k", operation="GetObject")) \
for _ in range(20)]
            await asyncio.sleep(0.3)
            [task.cancel() for task in tasks[10:]]
            {ending}
            await asyncio.gather(*tasks[:10], return_exceptions=True) \
if "close" in {ending!r} else None

        asyncio.run(main())
    """
    with Server(silent) as server:
        argv = [
            sys.executable,
            "-W",
            "error::ResourceWarning",
            "-c",
            textwrap.dedent(program),
            server.endpoint,
        ]
        done = subprocess.run(argv, timeout=20, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-15 if "kill" in ending else 0, "")


def test_a_thread_tries_again_too() -> None:
    slow, fine = http("503 Slow Down", error_xml("SlowDown")), http("200 OK", b"fine")

    async def go(endpoint: str) -> None:
        async with crt(endpoint) as client:
            assert client.request_blocking("ListObjectsV2", "list", []).body == b"fine"

    with Server(answering(slow, slow, fine)) as server:
        asyncio.run(go(server.endpoint))


def test_nothing_stays_behind_where_a_crowd_begins_or_ends() -> None:
    """A crowd makes the loop poll for answers; a lost one would wait for its deadline."""

    async def go(endpoint: str) -> None:
        async with crt(endpoint, transfers=2 * CROWD_REQUESTS) as client:
            for count in [
                *range(CROWD_REQUESTS - 3, CROWD_REQUESTS + 4),
                2 * CROWD_REQUESTS,
                4 * CROWD_REQUESTS,
            ] * 8:
                asked = (
                    client.request("DELETE", str(n), operation="DeleteObject", deadline=60)
                    for n in range(count)
                )
                async with asyncio.timeout(10):
                    await asyncio.gather(*asked)

    with Server(answering(http("204 No Content"))) as server:
        asyncio.run(go(server.endpoint))


def test_a_crowd_wakes_the_loop_now_and_then_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go(endpoint: str) -> int:
        loop, wakes = asyncio.get_running_loop(), 0
        waking = loop.call_soon_threadsafe

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return waking(*arguments, **named)

        async with crt(endpoint, transfers=2 * CROWD_REQUESTS) as client:
            await asyncio.gather(
                *(
                    client.request("DELETE", "first", operation="DeleteObject")
                    for _ in range(2 * CROWD_REQUESTS)
                )
            )
            monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
            await asyncio.gather(
                *(
                    client.request("DELETE", "key", operation="DeleteObject")
                    for _ in range(10 * CROWD_REQUESTS)
                )
            )
        return wakes

    with Server(answering(http("204 No Content"))) as server:
        assert asyncio.run(go(server.endpoint)) <= CROWD_REQUESTS + 1, (
            "for the last ones, which are no crowd"
        )


def test_what_is_cancelled_before_its_turn_is_never_sent() -> None:
    asked: list[bytes] = []
    release = threading.Event()

    def handle(sock: socket.socket) -> None:
        while request := head(sock):
            asked.append(request.split(b" ")[1])
            release.wait(10)
            sock.sendall(http("204 No Content"))

    async def go(endpoint: str) -> None:
        async with crt(endpoint, transfers=1) as client:
            tasks = [
                asyncio.create_task(client.request("DELETE", str(n), operation="DeleteObject"))
                for n in range(3)
            ]
            while not asked:
                await asyncio.sleep(0.01)
            tasks[1].cancel()
            release.set()
            await tasks[0]
            await tasks[2]

    with Server(handle) as server:
        asyncio.run(go(server.endpoint))
    assert asked == [b"/bucket/0", b"/bucket/2"]


@pytest.mark.parametrize("ending", ["close", "deadline"])
def test_what_still_waits_at_its_end_is_never_sent(ending: str) -> None:
    """The place of one that is given up is not for the next, whose end has come as well."""
    asked: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        while request := head(sock):
            asked.append(request.split(b" ")[1])

    async def go(endpoint: str) -> None:
        async with crt(endpoint, transfers=1) as client:
            sent = (
                client.request("PUT", str(n), operation="PutObject", body=b"", deadline=1)
                for n in range(20)
            )
            tasks = [asyncio.create_task(one) for one in sent]
            while not asked:
                await asyncio.sleep(0.01)
            if ending == "close":
                await client.close()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, Unavailable) for end in ends)
            await asyncio.sleep(0.2)

    with Server(handle) as server:
        asyncio.run(go(server.endpoint))
        assert server.connections == 1
    assert asked == [b"/bucket/0"]


def test_what_is_cancelled_while_its_connection_is_opened_leaves_the_connection_to_the_next() -> (
    None
):
    asked: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        while request := head(sock):
            asked.append(request.split(b" ")[1])
            sock.sendall(http("200 OK"))

    async def go(endpoint: str) -> None:
        async with crt(endpoint, transfers=1) as client:
            for number in range(20):
                task = asyncio.create_task(
                    client.request("PUT", f"cancelled{number}", operation="PutObject", body=b"")
                )
                for _ in range(number % 3 + 1):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                if number == 0:
                    while client._opening:
                        await asyncio.sleep(0.01)
            assert (await client.request("GET", "key", operation="GetObject", deadline=10)).ok
            assert len(client._connections) == 1

    with Server(handle) as server:
        asyncio.run(go(server.endpoint))
    assert b"/bucket/cancelled0" not in asked
    assert asked[-1] == b"/bucket/key"
