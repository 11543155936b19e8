"""Redirects: none is followed, so no stranger gets a request with our credentials."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.aws.error_mapping import translated
from syncloud.aws.session import Aws
from syncloud.errors import ConfigurationError, SyncloudError
from syncloud.s3.tree import S3Tree
from tests.support.server import Server, answering, error_xml, head, http, silent
from tests.support.transport import crt, get

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

QUEUE = "http://127.0.0.1/1/queue"


REDIRECTS = [
    "301 Moved Permanently",
    "302 Found",
    "303 See Other",
    "307 Temporary Redirect",
    "308 Permanent Redirect",
]
QUESTIONS: dict[str, Callable[[Aws], object]] = {
    "s3": lambda aws: aws.client("s3").list_objects_v2(Bucket="bucket"),
    "sqs": lambda aws: aws.client("sqs").receive_message(QueueUrl=QUEUE),
    "cloudformation": lambda aws: aws.client("cloudformation").describe_stacks(StackName="s"),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("service", QUESTIONS)
def test_nobody_is_led_elsewhere_with_our_credentials(service: str, status: str) -> None:
    """Redirects by a header, by the address or by the region that the answer names.

    Over a 303 urllib3 stumbles, and drops the socket: that is collected here, where the warning is
    expected.
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
            assert isinstance(
                get(server.endpoint).refusal("get s3://bucket/key"), ConfigurationError
            )
            assert server.connections == 1
        assert elsewhere.connections == 0


@pytest.mark.parametrize("named", ["", "eu-west-2"])
def test_a_bucket_that_has_moved_is_told_at_the_first_look_over_tls(
    named: str, tls: ssl.SSLContext
) -> None:
    """boto3's client followed the answer to its own question about the region, round and round."""
    asked: list[bytes] = []

    def moved(sock: Any) -> None:
        while request := head(sock):
            asked.append(request)
            sock.sendall(
                http(
                    "301 Moved Permanently",
                    error_xml("PermanentRedirect"),
                    x_amz_bucket_region=named,
                )
            )

    async def go(endpoint: str) -> SyncloudError:
        async with crt(endpoint) as client:
            with contextlib.closing(Aws(endpoint_url=endpoint)) as aws:
                tree = S3Tree(
                    client, lambda: aws.client("s3"), bucket="bucket", prefix="", nonce="0" * 16
                )
                with pytest.raises(ConfigurationError) as caught:
                    tree.check()
                return caught.value

    with Server(moved, context=tls) as server:
        error = asyncio.run(go(server.endpoint))
    assert (named or "the bucket's region") in error.hint
    assert len(asked) == 1
