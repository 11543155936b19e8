"""An answer to botocore ends in time and in size, and never becomes a tree of millions."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.aws import bounds
from syncloud.aws.error_mapping import translated
from syncloud.aws.session import Aws
from syncloud.errors import CredentialsError, SyncloudError, Unavailable
from tests.support.secrets import BAD, PROBE, program, saying
from tests.support.server import FIRST, REST, Server, answering, answers, head, http

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

QUEUE = "http://127.0.0.1/1/queue"
PEAK = 64 * 1024 * 1024
"""Bytes: what is admitted, and room for what Python makes of it."""


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
def test_an_answer_that_drips_ends_at_the_deadline(
    where: str, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then keeps each single recv(2) content."""
    monkeypatch.setattr(bounds, "ANSWER_TIMEOUT_S", 1.0)
    with Server(answers(FIRST[where], REST.get(where, b"a"), pause=0.2)) as server:
        error = ended(polled(queue(server.endpoint)), within=20)
    assert type(error) is Unavailable
    assert "ead timeout" in str(error)


@pytest.mark.parametrize("where", FIRST)
def test_an_answer_of_botocores_without_end_is_cut_off_and_takes_no_memory(
    where: str, queue: Any
) -> None:
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
def test_the_metadata_service_has_its_time_and_no_more(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_source_of_credentials_that_drips_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_the_next_answer_on_a_connection_has_all_of_its_time_again(
    queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize(
    "body", [b"[" * 4_000_000, b'{"a":' * 1_000_000], ids=["arrays", "objects"]
)
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
@pytest.mark.parametrize(
    ("service", "status"), [*((one, "200 OK") for one in ASKED), ("sqs", "400 Bad Request")]
)
def test_what_no_answer_has_is_not_made_a_tree_by_botocore(
    service: str, kind: str, status: str
) -> None:
    with (
        Server(answering(http(status, MANY[kind]))) as server,
        contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws,
    ):
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
    """An answer may name its own charset, and so a charset in which no bracket is a bracket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    body = ("[" + "[]," * 1_300_000 + "[]]").encode(charset)
    answer = http("200 OK", body).replace(
        b"\r\n", f"\r\nContent-Type: text/plain; charset={charset}\r\n".encode(), 1
    )

    def metadata(sock: Any) -> None:
        while request := head(sock):
            sock.sendall(
                answer
                if b"/role" in request
                else http("200 OK", b"token" if b"PUT" in request else b"role")
            )

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
    with (
        Server(answering(http("200 OK", body))) as server,
        contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws,
    ):
        got = aws.client("sqs").receive_message(QueueUrl=QUEUE)
    assert [one["Body"] for one in got["Messages"]] == texts


def test_neither_stack_signs_with_what_no_request_can_hold(
    profile: Callable[[str], Aws], tmp_path: Path
) -> None:
    """boto3 asks botocore's credentials by itself."""
    aws = profile(program(tmp_path, saying(SessionToken=BAD["line break"])))
    with pytest.raises(CredentialsError, match="SessionToken") as caught:
        aws.client("sqs").list_queues()
    assert PROBE not in str(caught.value)
