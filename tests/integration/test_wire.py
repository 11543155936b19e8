"""Answers of strangers: a silent queue is not healthy, and no redirect is followed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.aws import bounds
from syncloud.aws.error_mapping import translated
from syncloud.aws.session import Aws
from syncloud.errors import ConfigurationError, SyncloudError
from syncloud.queue import receiver
from syncloud.queue.sqs import QueueSource
from syncloud.s3.tree import S3Tree
from tests.support.server import FIRST, Server, answering, answers, error_xml, head, http, silent
from tests.support.transport import crt, get

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

QUEUE = "http://127.0.0.1/1/queue"


def test_a_poll_that_drips_is_an_outage_of_the_queue(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deaf is not healthy."""
    monkeypatch.setattr(bounds, "ANSWER_TIMEOUT_S", 1.0)
    with Server(answers(FIRST["body"], b"a", pause=0.2)) as server:
        source = QueueSource(queue(server.endpoint), queue_url=QUEUE, bucket="bucket", prefix="", hold=lambda: False)
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
    monkeypatch.setattr(receiver, "SILENT_S", 1.0)
    with Server(answers(FIRST["body"], b"a", pause=0.2)) as server:
        source = QueueSource(queue(server.endpoint), queue_url=QUEUE, bucket="bucket", prefix="", hold=lambda: False)
        source.start(lambda hint: None)
        assert source.trouble() is None
        time.sleep(2)
        assert "no poll" in (source.trouble() or "")
        source.stop()


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
