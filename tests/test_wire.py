"""Who stands on the network: an answer ends in time and in size, and nobody is led elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import ssl
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.aws import bounds
from syncloud.aws.error_mapping import translated
from syncloud.aws.session import Aws
from syncloud.core.model import Entry, Side
from syncloud.errors import ConfigurationError, Corrupt, CredentialsError, SyncloudError, Unavailable
from syncloud.queue import sqs
from syncloud.queue.sqs import QueueSource
from syncloud.s3.transport import Transport
from syncloud.s3.tree import S3Tree
from tests.test_crt import Server, answering, crt, error_xml, get, head, http, private_ca, silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import botocore.client

    from tests.test_crt import Handle

__all__ = ["private_ca"]

QUEUE = "http://127.0.0.1/1/queue"
FIRST = {
    "status line": b"HTTP/1.1 200 ",
    "header": b"HTTP/1.1 200 OK\r\nX-Long: ",
    "headers": b"HTTP/1.1 200 OK\r\n",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n",
    "body of no length": b"HTTP/1.1 200 OK\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunk extension": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    "error": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100000000\r\n\r\n",
}
"""Where an answer can be without an end."""
CHUNK = b"1000\r\n" + b"a" * 4096 + b"\r\n"
REST = {"headers": b"X-a: b\r\n", "chunks": CHUNK, "gzip": CHUNK, "trailers": b"X-a: " + b"b" * 1000 + b"\r\n"}
PEAK = 64 * 1024 * 1024
"""Bytes: what is admitted, and room for what Python makes of it."""


def answers(first: bytes, rest: bytes, *, pause: float = 0.0) -> Handle:
    """`first`, and then `rest` for ever; its bytes one by one, `pause` seconds apart, where there is a pause."""
    pieces = [rest[at : at + 1] for at in range(len(rest))] if pause else [rest * (65536 // len(rest))]

    def handle(sock: Any) -> None:
        head(sock)
        sock.sendall(first)
        while True:
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(pause)

    return handle


@pytest.fixture
def queue() -> Iterator[Callable[[str], botocore.client.BaseClient]]:
    """boto3's client of the queue at an endpoint."""
    with contextlib.ExitStack() as stack:
        yield lambda endpoint: stack.enter_context(contextlib.closing(Aws(endpoint_url=endpoint))).client("sqs")


@pytest.fixture
def tls(private_ca: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """For a server whose authority AWS_CA_BUNDLE names."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private_ca / "server.pem", private_ca / "server.key")
    return context


def ended(act: Callable[[], object], *, within: float) -> BaseException | None:
    """What `act` raises; AssertionError where it is not over in time."""
    raised: list[BaseException | None] = []

    def go() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - handed on
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    thread.join(within)
    assert raised, f"not over within {within} s"
    return raised[0]


def polled(client: Any) -> Callable[[], object]:
    def poll() -> None:
        with translated("use the queue"):
            client.receive_message(QueueUrl=QUEUE, WaitTimeSeconds=20)

    return poll


@pytest.mark.parametrize("where", FIRST)
def test_an_answer_that_drips_ends_at_the_deadline(where: str, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps each single recv(2) content."""
    monkeypatch.setattr(bounds, "ANSWER_TIMEOUT_S", 1.0)
    with Server(answers(FIRST[where], REST.get(where, b"a"), pause=0.2)) as server:
        error = ended(polled(queue(server.endpoint)), within=20)
    assert type(error) is Unavailable
    assert "ead timeout" in str(error)


@pytest.mark.parametrize("where", FIRST)
def test_an_answer_of_botocores_without_end_is_cut_off_and_takes_no_memory(where: str, queue: Any) -> None:
    with Server(answers(FIRST[where], REST.get(where, b"a" * 64))) as server:
        client = queue(server.endpoint)
        tracemalloc.start()
        try:
            error = ended(polled(client), within=60)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert isinstance(error, SyncloudError)
    assert peak < PEAK


def test_an_answer_over_tls_ends_at_the_deadline_as_well(
    tls: ssl.SSLContext, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "ANSWER_TIMEOUT_S", 1.0)
    with Server(answers(FIRST["header"], b"a", pause=0.2), context=tls) as server:
        error = ended(polled(queue(server.endpoint)), within=20)
    assert type(error) is Unavailable
    assert "ead timeout" in str(error)


@pytest.mark.parametrize("where", ["header", "body", "chunks"])
def test_the_metadata_service_has_its_time_and_no_more(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    with Server(answers(FIRST[where], REST.get(where, b"a"), pause=0.2)) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint)
        with contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws:
            assert ended(aws.credentials.refresh, within=20) is None
            with pytest.raises(CredentialsError, match="no AWS credentials"):
                aws.credentials.check()


def test_a_proxy_that_drips_is_given_up(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer to CONNECT is read by others than those who read the rest."""
    monkeypatch.setattr(bounds, "CONNECT_TIMEOUT_S", 1.0)
    with Server(answers(b"HTTP/1.1 200 OK\r\n", b"X-a: b\r\n", pause=0.2)) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.endpoint)
        error = ended(polled(queue("https://queue.invalid")), within=20)
    assert type(error) is Unavailable


def test_a_handshake_that_drips_is_given_up(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "CONNECT_TIMEOUT_S", 1.0)
    record = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"  # a ServerHello of 16 KiB

    def handle(sock: Any) -> None:
        sock.recv(65536)
        for byte in record + bytes(16_000):
            sock.sendall(bytes([byte]))
            time.sleep(0.2)

    with Server(handle) as server:
        error = ended(polled(queue(server.endpoint.replace("http:", "https:"))), within=20)
    assert type(error) is Unavailable


def test_a_source_of_credentials_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STS, whose client botocore makes by itself."""
    monkeypatch.setattr(bounds, "ANSWER_TIMEOUT_S", 1.0)
    source = "[profile source]\naws_access_key_id = A\naws_secret_access_key = S\n"
    (tmp_path / "config").write_text(
        f"{source}[default]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = source\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with Server(answers(FIRST["body"], b"a", pause=0.2)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        with contextlib.closing(Aws()) as aws:
            assert ended(aws.credentials.refresh, within=20) is None
            with pytest.raises(CredentialsError, match="ead timeout"):
                aws.credentials.check()


def test_the_next_answer_on_a_connection_has_all_of_its_time_again(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "ANSWER_TIMEOUT_S", 2.0)
    body = b"{}"

    def late(sock: Any) -> None:
        while head(sock):
            time.sleep(1.2)
            sock.sendall(http("200 OK", body))

    with Server(late) as server:
        poll = polled(queue(server.endpoint))
        assert [ended(poll, within=20) for _ in range(3)] == [None] * 3
        assert server.connections == 1


def test_a_poll_that_drips_is_an_outage_of_the_queue(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deaf is not healthy."""
    monkeypatch.setattr(bounds, "ANSWER_TIMEOUT_S", 1.0)
    with Server(answers(FIRST["body"], b"a", pause=0.2)) as server:
        source = QueueSource(queue(server.endpoint), queue_url=QUEUE, bucket="bucket", prefix="")
        source.start(lambda hint: None)
        until = time.monotonic() + 20
        while source.trouble() is None and time.monotonic() < until:
            time.sleep(0.05)
        told = source.trouble()
        source.stop()
    assert told is not None
    assert "ead timeout" in told


def test_a_poll_without_an_answer_is_told_before_it_has_failed(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore asks three times, each with the whole deadline."""
    monkeypatch.setattr(sqs, "SILENT_S", 1.0)
    with Server(answers(FIRST["body"], b"a", pause=0.2)) as server:
        source = QueueSource(queue(server.endpoint), queue_url=QUEUE, bucket="bucket", prefix="")
        source.start(lambda hint: None)
        assert source.trouble() is None
        time.sleep(2)
        assert "no poll" in (source.trouble() or "")
        source.stop()


@pytest.mark.parametrize("body", [b"[" * 4_000_000, b'{"a":' * 1_000_000], ids=["arrays", "objects"])
def test_an_answer_nested_without_end_is_an_error_like_any_other(body: bytes, queue: Any) -> None:
    with Server(answering(http("200 OK", body))) as server:
        error = ended(polled(queue(server.endpoint)), within=60)
    assert type(error) is Unavailable


MANY = {
    "xml": b"<a>" + b"<b/>" * 1_500_000 + b"</a>",
    "xml of sixteen bits": ("<a>" + "<b/>" * 800_000 + "</a>").encode("utf-16"),
    "xml after a break": b"\n<a>" + b"<b/>" * 1_500_000 + b"</a>",
    "json": b'{"Messages": [' + b"[]," * 2_000_000 + b"[]]}",
    "json after a break": b'\n{"Messages": [' + b"{}," * 2_000_000 + b"{}]}",
}
"""Less than eight megabytes each, of which a parser makes some hundreds."""
ASKED: dict[str, Callable[[Any], object]] = {
    "sqs": lambda aws: aws.client("sqs").receive_message(QueueUrl=QUEUE),
    "sts": lambda aws: aws.client("sts").get_caller_identity(),
    "cloudformation": lambda aws: aws.client("cloudformation").describe_stacks(StackName="s"),
}


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize(("service", "status"), [*((one, "200 OK") for one in ASKED), ("sqs", "400 Bad Request")])
def test_what_no_answer_has_is_not_made_a_tree_by_botocore(service: str, kind: str, status: str) -> None:
    with Server(answering(http(status, MANY[kind]))) as server, contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws:
        tracemalloc.start()
        try:
            with pytest.raises(SyncloudError), translated("ask"):
                ASKED[service](aws)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < PEAK


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "cp037"])
def test_what_no_answer_of_the_metadata_service_has_is_no_text_of_any_charset(
    charset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may name the charset in which its answer is to be read, and so one in which no bracket is one."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    body = ("[" + "[]," * 1_300_000 + "[]]").encode(charset)
    answer = http("200 OK", body).replace(b"\r\n", f"\r\nContent-Type: text/plain; charset={charset}\r\n".encode(), 1)

    def metadata(sock: Any) -> None:
        while request := head(sock):
            sock.sendall(answer if b"/role" in request else http("200 OK", b"token" if b"PUT" in request else b"role"))

    with Server(metadata) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint)
        with contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws:
            tracemalloc.start()
            try:
                assert ended(aws.credentials.refresh, within=60) is None
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            with pytest.raises(CredentialsError):
                aws.credentials.check()
    assert peak < PEAK


def test_messages_that_hold_json_or_xml_are_text() -> None:
    """Ten messages have one MiB, and whoever may send some chooses their text."""
    texts = ['\\"{[' * 50_000, '"{[' * 90_000, "\\" * 100_000 + "[" * 150_000, "<a>" * 110_000]
    body = json.dumps({"Messages": [{"Body": text} for text in texts]}).encode()
    with Server(answering(http("200 OK", body))) as server, contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws:
        got = aws.client("sqs").receive_message(QueueUrl=QUEUE)
    assert [one["Body"] for one in got["Messages"]] == texts


# --- a body of more bytes than were promised


def longer(sent: list[int], length: int) -> Handle:
    """Says of every object that it has eight bytes, and sends `length` of them to whoever asks for it."""

    def handle(sock: Any) -> None:
        while request := head(sock):
            of_head = request.startswith(b"HEAD")
            lines = [b"HTTP/1.1 200 OK", b'ETag: "e"', b"Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"]
            lines.append(b"Content-Length: %d" % (8 if of_head else length))
            sock.sendall(b"\r\n".join([*lines, b"", b""]))
            with contextlib.suppress(OSError):
                while not of_head and sum(sent) < length:
                    sock.sendall(b"x" * 65536)
                    sent.append(65536)

    return handle


@contextlib.asynccontextmanager
async def tree_at(endpoint: str, *, owner: str = "") -> AsyncIterator[S3Tree]:
    """The bucket of the account `owner`, or of whoever it is."""
    with contextlib.closing(Aws(endpoint_url=endpoint)) as aws:
        client = Transport(aws, "bucket", transfers=4, owner=owner)
        try:
            yield S3Tree(client, lambda: aws.client("s3"), bucket="bucket", prefix="", nonce="0" * 16)
        finally:
            await client.close()


@pytest.mark.parametrize("size", [0, 8])
def test_a_pinned_get_ends_at_its_size_and_the_object_is_looked_at(size: int) -> None:
    """What an event has promised may be a lie of its sender: HEAD says what is true."""
    sent: list[int] = []

    async def go(endpoint: str) -> Side:
        async with tree_at(endpoint) as tree:
            return await tree.observe("a", None, None, reported=Entry("a", ("e", "", ""), size, 0, 0))

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
                await tree.part(Entry("a", ("e", "", ""), 8, 0, 0), 0, 8)
            assert caught.value.path == "a"
            with pytest.raises(Corrupt, match="more than 4 bytes"):
                await tree.part(Entry("a", ("e", "", ""), 8, 0, 0), 0, 4)

    with Server(longer(sent, 1_000_000_000)) as server:
        asyncio.run(go(server.endpoint))
        assert server.connections == 2, "each is asked for once"
    assert sum(sent) < 60_000_000, "what is on the way and in buffers"


# --- redirects

REDIRECTS = ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
QUESTIONS: dict[str, Callable[[Aws], object]] = {
    "s3": lambda aws: aws.client("s3").list_objects_v2(Bucket="bucket"),
    "sqs": lambda aws: aws.client("sqs").receive_message(QueueUrl=QUEUE),
    "cloudformation": lambda aws: aws.client("cloudformation").describe_stacks(StackName="s"),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("service", QUESTIONS)
def test_nobody_is_led_elsewhere_with_our_credentials(service: str, status: str) -> None:
    """By a header, by the address or by the region that the answer names. Over a 303 urllib3 stumbles, and drops the socket:
    that is collected here, where the warning is expected.
    """
    with Server(silent) as elsewhere:
        body = error_xml("PermanentRedirect", f"<Endpoint>{elsewhere.endpoint}</Endpoint>")
        more = {"Location": f"{elsewhere.endpoint}/x", "x_amz_bucket_region": "eu-west-9"}
        with (
            Server(answering(http(status, body, **more))) as server,
            contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws,
            pytest.raises(SyncloudError),
            translated("ask"),
        ):
            QUESTIONS[service](aws)
        assert server.connections == (3 if "303" in status else 1)
        assert elsewhere.connections == 0
    gc.collect()


@pytest.mark.parametrize("status", REDIRECTS)
def test_awscrt_is_led_nowhere_either(status: str) -> None:
    with Server(silent) as elsewhere:
        answer = http(status, error_xml("PermanentRedirect"), Location=f"{elsewhere.endpoint}/x")
        with Server(answering(answer)) as server:
            assert isinstance(get(server.endpoint).refusal("get s3://bucket/key"), ConfigurationError)
            assert server.connections == 1
        assert elsewhere.connections == 0


@pytest.mark.parametrize("named", ["", "eu-west-2"])
def test_a_bucket_that_has_moved_is_told_at_the_first_look_over_tls(named: str, tls: ssl.SSLContext) -> None:
    """boto3's client followed the answer to its own question about the region, round and round."""
    asked: list[bytes] = []

    def moved(sock: Any) -> None:
        while request := head(sock):
            asked.append(request)
            sock.sendall(http("301 Moved Permanently", error_xml("PermanentRedirect"), x_amz_bucket_region=named))

    async def go(endpoint: str) -> SyncloudError:
        async with crt(endpoint) as client:
            with contextlib.closing(Aws(endpoint_url=endpoint)) as aws:
                tree = S3Tree(client, lambda: aws.client("s3"), bucket="bucket", prefix="", nonce="0" * 16)
                with pytest.raises(ConfigurationError) as caught:
                    tree.check()
                return caught.value

    with Server(moved, context=tls) as server:
        error = asyncio.run(go(server.endpoint))
    assert (named or "the bucket's region") in error.hint
    assert len(asked) == 1
