"""Single S3 requests over real HTTP: the emulator, servers that misbehave, TLS with a private CA, proxies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from syncloud.aws.error_mapping import translated
from syncloud.aws.session import Address, Aws
from syncloud.core import checksum
from syncloud.errors import ConfigurationError, CredentialsError, Malformed, PermissionRefused, Unavailable
from syncloud.s3.pool import IDLE_MAX_S, ConnectionPool
from syncloud.s3.response import Response
from syncloud.s3.transport import CROWD_REQUESTS, MAX_TRIES, Transport
from syncloud.s3.tree import S3Tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.emulator import Bucket, Emulator

    Handle = Callable[[socket.socket], None]


class Server:
    """Listens on loopback and gives each connection to `handle`, in a thread of its own."""

    def __init__(self, handle: Handle, *, context: ssl.SSLContext | None = None) -> None:
        self._handle = handle
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.endpoint = f"http{'s' if context else ''}://127.0.0.1:{self.port}"
        self.closed = threading.Event()
        """A client has closed a connection."""
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def connections(self) -> int:
        return len(self._threads)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                self._open.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            if self._context is None:
                self._handle(sock)
            else:
                with self._context.wrap_socket(sock, server_side=True) as secure:
                    self._open.append(secure)
                    self._handle(secure)
        self.closed.set()


def head(sock: socket.socket) -> bytes:
    """One request without its body; empty at the end of the connection."""
    read = b""
    while b"\r\n\r\n" not in read:
        chunk = sock.recv(65536)
        if not chunk:
            return b""
        read += chunk
    return read


def answering(*answers: bytes) -> Handle:
    """Gives these answers in turn, over all connections, and the last one from then on."""
    lock, left = threading.Lock(), list(answers)

    def handle(sock: socket.socket) -> None:
        while head(sock):
            with lock:
                answer = left.pop(0) if len(left) > 1 else left[0]
            sock.sendall(answer)

    return handle


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def error_xml(code: str, extra: str = "") -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>words</Message>{extra}</Error>'.encode()


def silent(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def resetting(sock: socket.socket) -> None:
    head(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def endless(sock: socket.socket) -> None:
    """A body of 10 GB, slowly."""
    head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
    while True:
        sock.sendall(b"x" * 65536)
        time.sleep(0.01)


def splice(a: socket.socket, b: socket.socket) -> None:
    """Bytes from each to the other until one ends."""
    while True:
        pending = [s for s in (a, b) if isinstance(s, ssl.SSLSocket) and s.pending()]
        for source in pending or select.select([a, b], [], [])[0]:
            chunk = source.recv(65536)
            if not chunk:
                return
            (b if source is a else a).sendall(chunk)


@contextlib.asynccontextmanager
async def crt(endpoint: str, bucket: str = "bucket", *, transfers: int = 4) -> AsyncIterator[Transport]:
    with contextlib.closing(Aws(endpoint_url=endpoint)) as aws:
        made = Transport(aws, bucket, transfers=transfers)
        try:
            yield made
        finally:
            await made.close()


def get(endpoint: str, bucket: str = "bucket", **options: Any) -> Response:
    """One GET."""

    async def go() -> Response:
        async with crt(endpoint, bucket) as client:
            return await client.request("GET", "key", operation="GetObject", **options)

    return asyncio.run(go())


# --- the emulator

KEYS = [
    "plain",
    "dir/sub/name.txt",
    "dir/",
    "a b",
    "a+b",
    "a%b",
    "%2F%20+ ",
    "a=b&c;d:e@f,g$h",
    "?query#fragment",
    "*'()!~-_.",
    'back\\slash|<>"{}^`[]',
    "line\nfeed",
    "tab\tand\rreturn",
    "\x01\x1f\x7f",
    "double//slash///three",
    "trailing.",
    "../x",
    "a/../b",
    "./x",
    "a/./b",
    "..",
    "/lead",
    "//lead2",
    "é ü ñ",
    "日本語/ファイル",
    "😀",
    "e\u0301",
    "k" * 1024,
]


def test_every_key_travels_unchanged(aws_server: Emulator) -> None:
    s3, name = aws_server.client("s3"), "every-key"  # unversioned: the emulator cannot list versions of control characters
    s3.create_bucket(Bucket=name)

    async def go() -> None:
        async with crt(aws_server.endpoint, name) as client:
            for number, key in enumerate(KEYS):
                body = f"body {number}".encode()
                put = await client.request("PUT", key, operation="PutObject", body=body)
                assert (put.status, put.headers["etag"][:1]) == (200, '"'), key
                got = await client.request("GET", key, operation="GetObject")
                assert (got.status, got.body) == (200, body), key
                with s3.get_object(Bucket=name, Key=key)["Body"] as read:
                    assert read.read() == body, key
            listed = s3.list_objects_v2(Bucket=name)["Contents"]
            assert sorted(row["Key"] for row in listed) == sorted(KEYS)
            for key in KEYS:
                assert (await client.request("DELETE", key, operation="DeleteObject")).status == 204, key

    asyncio.run(go())
    s3.delete_bucket(Bucket=name)


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
            seen = await send("HEAD", "k", operation="HeadObject", headers=[("x-amz-checksum-mode", "ENABLED")])
            assert seen.headers.items() >= {crc, ("x-amz-meta-mtime", "1.5"), ("content-length", "5")}
            assert seen.body == b""
            same = await send("GET", "k", operation="GetObject", headers=[("if-none-match", put.headers["etag"])])
            assert (same.status, same.body) == (304, b"")
            gone = await send("GET", "nothing", operation="GetObject")
            assert (gone.status, gone.code) == (404, "NoSuchKey")
            assert (await send("HEAD", "nothing", operation="HeadObject")).status == 404
            version = [("versionId", put.headers["x-amz-version-id"])]
            assert (await send("GET", "k", operation="GetObject", query=version)).body == body
            source = [("x-amz-copy-source", f"/{bucket.name}/k")]
            assert (await send("PUT", "copy", operation="CopyObject", headers=source)).ok
            upload = await send("POST", "big", operation="CreateMultipartUpload", query=[("uploads", "")])
            assert b"<UploadId>" in upload.body
            assert (await send("PUT", "empty", operation="PutObject", body=b"")).ok
            assert (await send("GET", "empty", operation="GetObject")).body == b""
            listed = await send("GET", "", operation="ListObjectsV2", query=[("list-type", "2"), ("prefix", "co")])
            assert b"<Key>copy</Key>" in listed.body
            assert (await send("DELETE", "k", operation="DeleteObject")).status == 204

    asyncio.run(go())
    assert bucket.get("copy") == body


def test_the_signature_of_every_key_is_the_one_of_botocore() -> None:
    """The emulator does not look at signatures; S3 does, and it does not normalise a path."""
    requests: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        while request := head(sock):
            requests.append(request)
            sock.sendall(http("204 No Content"))

    async def go(endpoint: str) -> None:
        async with crt(endpoint) as client:
            for key in KEYS:
                await client.request("DELETE", key, operation="DeleteObject", query=[("versionId", "a+b/c=d ~")])
            await client.request("POST", "k", operation="CreateMultipartUpload", query=[("uploads", "")])
            client.request_blocking(
                "ListObjectsV2", "list", [("list-type", "2"), ("prefix", "a+b/c=d \xe4~*'"), ("encoding-type", "url")]
            )

    with Server(handle) as server:
        asyncio.run(go(server.endpoint))
    assert len(requests) == len(KEYS) + 2
    for request in requests:
        assert signature_by_botocore(request) in request.decode(), request


def signature_by_botocore(raw: bytes) -> str:
    lines = raw.decode().split("\r\n")
    method, target, _ = lines[0].split(" ")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    signed = fields["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest(method=method, url=f"http://{fields['host']}{target}", headers={name: fields[name] for name in signed})
    request.context["timestamp"] = fields["x-amz-date"]
    auth = S3SigV4Auth(Credentials("test", "test"), "s3", "us-east-1")
    return f"Signature={auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)}"


def test_a_body_of_8_mib_travels_both_ways(bucket: Bucket) -> None:
    body = os.urandom(1024) * 8192

    async def go() -> bytes:
        async with crt(bucket.server.endpoint, bucket.name) as client:
            assert (await client.request("PUT", "k", operation="PutObject", body=body)).ok
            return (await client.request("GET", "k", operation="GetObject")).body

    assert asyncio.run(go()) == body


def test_a_missing_bucket_is_refused_by_name(aws_server: Emulator) -> None:
    answer = get(aws_server.endpoint, "no-such-bucket")
    error = answer.refusal("get s3://no-such-bucket/key")
    assert type(error) is Unavailable
    assert (error.code, error.hint[:22]) == ("NoSuchBucket", "s3://no-such-bucket mu")
    assert error.request_id


# --- answers that awscrt treats in a way of its own


def test_an_error_within_a_success_is_no_success() -> None:
    with Server(answering(http("200 OK", error_xml("PreconditionFailed")))) as server:
        answer = copied(server.endpoint)
        assert (answer.status, answer.code) == (412, "PreconditionFailed")


def test_a_servers_own_trouble_within_a_success_is_tried_again() -> None:
    """As if it had been told at once: "Response and special errors" of CopyObject, "CompleteMultipartUpload"."""
    trouble = http("200 OK", error_xml("InternalError"))
    with Server(answering(*[trouble] * (MAX_TRIES - 1), http("200 OK", b"<done/>"))) as server:
        assert copied(server.endpoint).body == b"<done/>"
    with Server(answering(trouble)) as server, pytest.raises(Unavailable, match="InternalError"):
        copied(server.endpoint)


def copied(endpoint: str) -> Response:
    async def go() -> Response:
        async with crt(endpoint) as client:
            return await client.request("PUT", "key", operation="CopyObject", headers=[("x-amz-copy-source", "/b/k")])

    return asyncio.run(go())


@pytest.mark.parametrize("kind", ["301 Moved Permanently", "400 Bad Request"])
def test_a_wrong_region_is_told(kind: str) -> None:
    body = error_xml("PermanentRedirect" if kind.startswith("301") else "AuthorizationHeaderMalformed")
    with Server(answering(http(kind, body, x_amz_bucket_region="eu-west-2", x_amz_request_id="R"))) as server:
        error = get(server.endpoint).refusal("get s3://bucket/key")
    assert isinstance(error, ConfigurationError)
    assert "eu-west-2" in error.hint
    assert error.request_id == "R"


def test_a_page_that_is_no_xml_is_judged_by_its_status() -> None:
    with Server(answering(http("403 Forbidden", b"<html>Access denied by policy<br>"))) as server:
        error = get(server.endpoint).refusal("get s3://bucket/key")
    assert isinstance(error, PermissionRefused)
    assert str(error) == "get s3://bucket/key: HTTP status 403"


@pytest.mark.parametrize("status", ["301 Moved Permanently", "400 Bad Request"])
def test_a_page_with_the_headers_of_s3_is_not_s3s(status: str) -> None:
    with Server(answering(http(status, b"<html>Please log in.<br></html>", x_amz_bucket_region="eu-west-2"))) as server:
        error = get(server.endpoint).refusal("get s3://bucket/key")
    assert isinstance(error, Unavailable)
    assert "eu-west-2" not in error.hint


def test_a_page_in_no_known_encoding_is_judged_by_its_status() -> None:
    page = http("503 Slow Down", b'<?xml version="1.0" encoding="klingon"?><Error/>')
    with Server(answering(page)) as server, pytest.raises(Unavailable, match="HTTP status 503"):
        get(server.endpoint)


def test_throttling_is_waited_out() -> None:
    slow, fine = http("503 Slow Down", error_xml("SlowDown")), http("200 OK", b"fine")
    with Server(answering(slow, fine)) as server:
        assert get(server.endpoint).body == b"fine"


# --- no answer


def test_a_server_that_stalls_costs_no_more_than_the_deadline() -> None:
    with Server(silent) as server:
        start = time.monotonic()
        with pytest.raises(Unavailable, match=r"GetObject s3://bucket/key: no answer by the deadline"):
            get(server.endpoint, deadline=0.5)
        assert 0.4 < time.monotonic() - start < 5
        assert server.closed.wait(5), "the request is cancelled on the wire too"


def test_a_thread_asks_without_the_loop(bucket: Bucket) -> None:
    bucket.put("p/a b+c", b"x")

    async def go() -> None:
        async with crt(bucket.server.endpoint, bucket.name) as client:
            query = [("list-type", "2"), ("prefix", "p/a b+c")]
            # The loop is busy with waiting here, and cannot help.
            assert b"<Key>p/a b+c</Key>" in client.request_blocking("ListObjectsV2", "list", query).body
            refused = await asyncio.to_thread(
                client.request_blocking, "ListObjectsV2", "list", [*query, ("continuation-token", "none")]
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
            asked = asyncio.create_task(asyncio.to_thread(client.request_blocking, "ListObjectsV2", "list", []))
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
    assert all(abs(measured - wanted) < 0.25 for measured, wanted in zip(took, [1.0, 0.2, 0.6, 0.2], strict=True)), took


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
            await asyncio.gather(*(client.request("DELETE", str(n), operation="DeleteObject") for n in range(72)))

    with Server(slow) as server:
        asyncio.run(go(server.endpoint))
        assert (peak, server.connections) == (24, 24)


def test_python_knows_the_thread_of_awscrt_again(bucket: Bucket) -> None:
    """What a thread keeps for itself is gone when Python has made it a new state: a costly thing to do for each answer."""
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


def test_closing_ends_what_is_under_way() -> None:
    async def go(server: Server) -> None:
        async with crt(server.endpoint) as client:
            tasks = [asyncio.create_task(client.request("GET", "key", operation="GetObject")) for _ in range(20)]
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


@pytest.mark.parametrize("ending", ["await client.close()", "pass", "raise SystemExit(0)", "os.kill(os.getpid(), 15)"])
def test_a_process_with_requests_under_way_exits(ending: str) -> None:
    program = f"""
        import asyncio, os, sys
        from syncloud.aws.session import Address, Aws
        from syncloud.s3.transport import Transport

        async def main():
            client = Transport(Aws(endpoint_url=sys.argv[1]), "bucket", transfers=4)
            tasks = [asyncio.create_task(client.request("GET", "k", operation="GetObject")) for _ in range(20)]
            await asyncio.sleep(0.3)
            [task.cancel() for task in tasks[10:]]
            {ending}
            await asyncio.gather(*tasks[:10], return_exceptions=True) if "close" in {ending!r} else None

        asyncio.run(main())
    """
    with Server(silent) as server:
        argv = [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(program), server.endpoint]
        done = subprocess.run(argv, timeout=20, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-15 if "kill" in ending else 0, "")


# --- TLS with a private CA, proxies


@pytest.fixture(scope="session")
def private_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, and server.pem and server.key for 127.0.0.1."""
    place = tmp_path_factory.mktemp("ca")
    for command in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1",
    ):
        subprocess.run(["openssl", *command.split()], cwd=place, check=True, capture_output=True)
    (place / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile san"
    subprocess.run(["openssl", *sign.split()], cwd=place, check=True, capture_output=True)
    return place


def passed_on(aws_server: Emulator) -> Handle:
    """What comes is the emulator's."""

    def handle(sock: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", urlsplit(aws_server.endpoint).port or 0)) as behind:
            splice(sock, behind)

    return handle


@pytest.fixture
def secure(private_ca: Path, aws_server: Emulator) -> Iterator[Server]:
    """The emulator behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private_ca / "server.pem", private_ca / "server.key")

    with Server(passed_on(aws_server), context=context) as server:
        yield server


def both_stacks(endpoint: str, bucket: Bucket, **settings: str) -> None:
    """One request each."""

    async def go() -> None:
        with contextlib.closing(Aws(endpoint_url=endpoint, **settings)) as aws:
            client = Transport(aws, bucket.name, transfers=1)
            try:
                with translated("boto3"):
                    aws.client("s3").head_bucket(Bucket=bucket.name)
                assert (await client.request("PUT", "a b+c", operation="PutObject", body=b"x", deadline=10)).ok
            finally:
                await client.close()

    asyncio.run(go())
    assert bucket.get("a b+c") == b"x"


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_both_stacks_accept_a_private_ca(
    where: str, secure: Server, bucket: Bucket, private_ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "environment":
        monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    else:
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {private_ca}/ca.pem\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    both_stacks(secure.endpoint, bucket)


@pytest.mark.slow
def test_both_stacks_refuse_a_private_ca_they_were_not_told_of(secure: Server, bucket: Bucket) -> None:
    with contextlib.closing(Aws(endpoint_url=secure.endpoint)) as aws:
        with pytest.raises(Unavailable) as caught, translated("boto3"):
            aws.client("s3").head_bucket(Bucket=bucket.name)
        assert "AWS_CA_BUNDLE" in caught.value.hint
    # awscrt's TLS (s2n) waits 10 to 30 s before it tells of a failed handshake, and tries again: the deadline comes first.
    with pytest.raises(Unavailable) as caught:
        get(secure.endpoint, bucket.name, deadline=3)
    assert "AWS_CA_BUNDLE" in caught.value.hint


def test_a_listing_tells_at_once_that_a_certificate_is_not_trusted(secure: Server, bucket: Bucket) -> None:
    async def go() -> None:
        with contextlib.closing(Aws(endpoint_url=secure.endpoint)) as aws:
            client = Transport(aws, bucket.name, transfers=1)
            tree = S3Tree(client, lambda: aws.client("s3"), bucket=bucket.name, prefix="", nonce="0" * 16)
            try:
                for question in (tree.check, lambda: list(tree.scan())):
                    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED") as caught:
                        question()
                    assert "AWS_CA_BUNDLE" in caught.value.hint
            finally:
                await client.close()

    started = time.monotonic()
    asyncio.run(go())
    assert time.monotonic() - started < 20


def test_a_listing_over_tls_goes_by_both_stacks(
    secure: Server, bucket: Bucket, private_ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    bucket.put("a", b"x")

    async def go() -> None:
        with contextlib.closing(Aws(endpoint_url=secure.endpoint)) as aws:
            client = Transport(aws, bucket.name, transfers=1)
            tree = S3Tree(client, lambda: aws.client("s3"), bucket=bucket.name, prefix="", nonce="0" * 16)
            try:
                assert client.unproven
                assert [side.path for side in tree.scan()] == ["a"]
                assert not client.unproven
            finally:
                await client.close()

    asyncio.run(go())


@pytest.fixture(params=["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def aged(request: pytest.FixtureRequest, private_ca: Path, aws_server: Emulator) -> Iterator[tuple[str, Server]]:
    """The emulator behind a server that speaks this version alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private_ca / "server.pem", private_ca / "server.key")
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL itself would not speak the old ones
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[request.param]

    with Server(passed_on(aws_server), context=context) as server:
        yield request.param, server


@pytest.mark.slow
def test_neither_stack_speaks_less_than_tls_1_2(
    aged: tuple[str, Server], bucket: Bucket, private_ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, server = aged
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    if version in ("TLSv1_2", "TLSv1_3"):
        both_stacks(server.endpoint, bucket)
        return
    with contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws, pytest.raises(Unavailable), translated("boto3"):
        aws.client("s3").head_bucket(Bucket=bucket.name)
    with pytest.raises(Unavailable):
        get(server.endpoint, bucket.name, deadline=3)


@pytest.fixture
def proxy() -> Iterator[tuple[Server, list[str]]]:
    """A forward and CONNECT proxy, and the first lines of what it was asked."""
    lines: list[str] = []

    def handle(sock: socket.socket) -> None:
        request = head(sock)
        if not request:
            return
        line = request.split(b"\r\n")[0].decode()
        lines.append(line)
        method, target, _ = line.split(" ")
        url = urlsplit(target if "//" in target else f"//{target}")
        with socket.create_connection(("127.0.0.1", url.port or 0)) as behind:
            if method == "CONNECT":
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                behind.sendall(request.replace(f"http://{url.netloc}".encode(), b"", 1))
            splice(sock, behind)

    with Server(handle) as server:
        yield server, lines


def test_http_proxy_holds_for_both_stacks(
    proxy: tuple[Server, list[str]], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, lines = proxy
    monkeypatch.setenv("HTTP_PROXY", server.endpoint)
    both_stacks(bucket.server.endpoint, bucket)
    assert [line.split(" ")[0] for line in lines] == ["HEAD", "PUT"]


@pytest.mark.parametrize("body", [b"", b"x" * 70_000, io.BytesIO(b"in a stream")], ids=["empty", "bytes", "stream"])
def test_over_plain_http_elsewhere_a_body_is_signed_and_that_is_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], body: bytes | io.BytesIO
) -> None:
    """A store refuses what does not have the digest that was signed."""
    asked: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        asked.append(head(sock))
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def go(endpoint: str) -> None:
        async with crt(endpoint, bucket.name) as client:
            await client.request("PUT", "key", operation="PutObject", body=body, deadline=10)

    def digest() -> str:
        lines = asked.pop().decode().lower().split("\r\n")
        return next(line.partition(": ")[2] for line in lines if line.startswith("x-amz-content-sha256"))

    with Server(handle) as server:
        asyncio.run(go(server.endpoint))
        assert digest() == "unsigned-payload"
        assert "is plain HTTP" not in capsys.readouterr().err
        monkeypatch.setenv("HTTP_PROXY", server.endpoint)
        asyncio.run(go("http://s3.example.org"))
        assert "http://s3.example.org is plain HTTP" in capsys.readouterr().err
    plain = body.getvalue() if isinstance(body, io.BytesIO) else body
    assert digest() == hashlib.sha256(plain).hexdigest()


@pytest.mark.parametrize(
    ("status", "most"), [(b"200 OK", "16,777,216"), (b"403 Forbidden", "1,048,576")], ids=["an answer", "an error"]
)
@pytest.mark.parametrize("stack", ["loop", "thread"])
def test_an_answer_without_end_is_cut_off_and_takes_no_memory(bucket: Bucket, status: bytes, most: str, stack: str) -> None:
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
                await asyncio.to_thread(client.request_blocking, "ListObjectsV2", "list", [], deadline=30)

    with Server(handle) as server, pytest.raises(Unavailable, match=f"more than {most} bytes"):
        asyncio.run(go(server.endpoint))
    assert len(sent) < MAX_TRIES * 60, "what is on the way and in buffers, besides"


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        *((host, True) for host in ("localhost", "localhost:9000", "127.0.0.1", "127.1.2.3:80", "[::1]:9000")),
        *((host, False) for host in ("10.0.0.1", "127.example.org", "s3.example.org", "[2001:db8::1]", "1127.0.0.1")),
    ],
)
def test_nobody_is_on_the_way_to_this_machine_alone(host: str, alone: bool) -> None:
    assert Address("http", host, "").is_loopback is alone


def test_https_proxy_holds_for_both_stacks(
    proxy: tuple[Server, list[str]], secure: Server, bucket: Bucket, private_ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, lines = proxy
    monkeypatch.setenv("https_proxy", server.endpoint)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    both_stacks(secure.endpoint, bucket)
    assert [line.split(" ")[:2] for line in lines] == [["CONNECT", f"127.0.0.1:{secure.port}"]] * 2


def test_no_proxy_holds_for_both_stacks(
    proxy: tuple[Server, list[str]], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, lines = proxy
    monkeypatch.setenv("HTTP_PROXY", server.endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    both_stacks(bucket.server.endpoint, bucket)
    assert lines == []


def test_a_proxy_that_is_down_is_unavailable(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        get(bucket.server.endpoint, bucket.name, deadline=2)


# --- one connection after the other


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
                assert (await client.request("GET", str(number), operation="GetObject")).body == b"fine"
                assert client.request_blocking("ListObjectsV2", "list", []).body == b"fine"
            return time.monotonic() - started

    with Server(handle) as server:
        assert asyncio.run(go(server.endpoint)) < 5, "no pause before such a try"
        assert server.connections >= 40


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


def test_a_thread_tries_again_too() -> None:
    slow, fine = http("503 Slow Down", error_xml("SlowDown")), http("200 OK", b"fine")

    async def go(endpoint: str) -> None:
        async with crt(endpoint) as client:
            assert client.request_blocking("ListObjectsV2", "list", []).body == b"fine"

    with Server(answering(slow, slow, fine)) as server:
        asyncio.run(go(server.endpoint))


def test_nothing_stays_behind_where_a_crowd_begins_or_ends() -> None:
    """While many are under way the loop looks for answers by itself; a lost one would wait for its deadline."""

    async def go(endpoint: str) -> None:
        async with crt(endpoint, transfers=2 * CROWD_REQUESTS) as client:
            for count in [*range(CROWD_REQUESTS - 3, CROWD_REQUESTS + 4), 2 * CROWD_REQUESTS, 4 * CROWD_REQUESTS] * 8:
                asked = (client.request("DELETE", str(n), operation="DeleteObject", deadline=60) for n in range(count))
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
                *(client.request("DELETE", "first", operation="DeleteObject") for _ in range(2 * CROWD_REQUESTS))
            )
            monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
            await asyncio.gather(
                *(client.request("DELETE", "key", operation="DeleteObject") for _ in range(10 * CROWD_REQUESTS))
            )
        return wakes

    with Server(answering(http("204 No Content"))) as server:
        assert asyncio.run(go(server.endpoint)) <= CROWD_REQUESTS + 1, "for the last ones, which are no crowd"


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
            await asyncio.gather(*(client.request("DELETE", str(n), operation="DeleteObject") for n in range(8)))
            cut.set()
            with pytest.raises(Unavailable):
                await client.request("DELETE", "key", operation="DeleteObject", deadline=0.5)
            for _ in range(8):
                assert (await client.request("DELETE", "key", operation="DeleteObject", deadline=2)).ok

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
            tasks = [asyncio.create_task(client.request("DELETE", str(n), operation="DeleteObject")) for n in range(3)]
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
            sent = (client.request("PUT", str(n), operation="PutObject", body=b"", deadline=1) for n in range(20))
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


class Unseekable(io.BytesIO):
    """A body that cannot be sent a second time, nor a first."""

    def seek(self, *_: int) -> int:
        raise OSError("not to be rewound")


ODD: list[tuple[type[Exception], dict[str, Any]]] = [
    *(
        (Malformed, {"headers": [("if-match", value)]})
        for value in ("a\r\nx-evil: 1", "a\nb", "a\0b", "a\rb", "\x1b", "\ud800")
    ),
    *((Malformed, {"headers": [(name, "v")]}) for name in ("a b", "a\r\nx-evil: 1", "", "a:b", "\xfc")),
    (Malformed, {"query": [("versionId", "\udfff")]}),
    *((TypeError, {"headers": [("if-match", value)]}) for value in (None, 7, b"x")),
    (TypeError, {"headers": [(None, "v")]}),
    (TypeError, {"body": "a text"}),
    (OSError, {"body": Unseekable(b"x")}),
]


def test_a_request_that_cannot_be_made_is_its_own_affair_and_costs_no_connection() -> None:
    """More of them than there are connections, in the way of good ones: each error comes at once, to who asks for it."""
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
                odd = [client.request("PUT", "key", operation="PutObject", deadline=20, **more) for _, more in ODD]
                sent = [good(), good(), *odd, good(), good(), client.request("GET", "\ud800", operation="GetObject")]
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


def test_what_is_cancelled_while_its_connection_is_opened_leaves_the_connection_to_the_next() -> None:
    asked: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        while request := head(sock):
            asked.append(request.split(b" ")[1])
            sock.sendall(http("200 OK"))

    async def go(endpoint: str) -> None:
        async with crt(endpoint, transfers=1) as client:
            for number in range(20):
                task = asyncio.create_task(client.request("PUT", f"cancelled{number}", operation="PutObject", body=b""))
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


def test_a_proxy_is_told_who_asks(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        requests.append(head(sock))
        sock.sendall(http("204 No Content"))

    with Server(handle) as watching:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:p%40ss@127.0.0.1:{watching.port}")
        assert get(bucket.server.endpoint, bucket.name).status == 204
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in requests[0]


def test_a_proxy_may_itself_speak_tls(private_ca: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private_ca / "server.pem", private_ca / "server.key")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    with Server(answering(http("200 OK", b"by the proxy")), context=context) as server:
        monkeypatch.setenv("HTTP_PROXY", server.endpoint)
        assert get(bucket.server.endpoint, bucket.name).body == b"by the proxy"


@pytest.fixture
def mute(secure: Server, private_ca: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
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
    """What is still being opened then is taken for what will come, and nobody else asks once it is not."""
    monkeypatch.setattr("syncloud.s3.transport.ANSWER_TIMEOUT_S", 3.0)

    async def go() -> None:
        async with crt(secure.endpoint, bucket.name, transfers=2) as client:
            with pytest.raises(Unavailable):
                await asyncio.gather(*(client.request("HEAD", "key", operation="HeadObject", deadline=0.5) for _ in range(2)))
            mute.clear()
            assert (await client.request("HEAD", "key", operation="HeadObject", deadline=20)).status == 404

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
                    await asyncio.gather(*(client.request("HEAD", "key", operation="HeadObject") for _ in range(4)))
            mute.clear()
            assert (await client.request("HEAD", "key", operation="HeadObject", deadline=10)).status == 404

    asyncio.run(go())
