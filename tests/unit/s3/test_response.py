"""The error of an answer: also within a success, and of a page that is no store's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import ConfigurationError, PermissionRefused, Unavailable
from syncloud.s3.transport import MAX_TRIES
from tests.support.server import Server, answering, error_xml, http
from tests.support.transport import crt, get

if TYPE_CHECKING:
    from syncloud.s3.response import Response
    from tests.support.emulator import Emulator


def test_a_missing_bucket_is_refused_by_name(aws_server: Emulator) -> None:
    answer = get(aws_server.endpoint, "no-such-bucket")
    error = answer.refusal("get s3://no-such-bucket/key")
    assert type(error) is Unavailable
    assert (error.code, error.hint[:22]) == ("NoSuchBucket", "s3://no-such-bucket mu")
    assert error.request_id


def test_an_error_within_a_success_is_no_success() -> None:
    with Server(answering(http("200 OK", error_xml("PreconditionFailed")))) as server:
        answer = copied(server.endpoint)
        assert (answer.status, answer.code) == (412, "PreconditionFailed")


def test_a_servers_own_trouble_within_a_success_is_tried_again() -> None:
    """A late error counts as an early one.

    Sources: "Response and special errors" of CopyObject, and "CompleteMultipartUpload".
    """
    trouble = http("200 OK", error_xml("InternalError"))
    with Server(answering(*[trouble] * (MAX_TRIES - 1), http("200 OK", b"<done/>"))) as server:
        assert copied(server.endpoint).body == b"<done/>"
    with Server(answering(trouble)) as server, pytest.raises(Unavailable, match="InternalError"):
        copied(server.endpoint)


def copied(endpoint: str) -> Response:
    async def go() -> Response:
        async with crt(endpoint) as client:
            return await client.request(
                "PUT", "key", operation="CopyObject", headers=[("x-amz-copy-source", "/b/k")]
            )

    return asyncio.run(go())


@pytest.mark.parametrize("kind", ["301 Moved Permanently", "400 Bad Request"])
def test_a_wrong_region_is_told(kind: str) -> None:
    body = error_xml(
        "PermanentRedirect" if kind.startswith("301") else "AuthorizationHeaderMalformed"
    )
    with Server(
        answering(http(kind, body, x_amz_bucket_region="eu-west-2", x_amz_request_id="R"))
    ) as server:
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
    with Server(
        answering(http(status, b"<html>Please log in.<br></html>", x_amz_bucket_region="eu-west-2"))
    ) as server:
        error = get(server.endpoint).refusal("get s3://bucket/key")
    assert isinstance(error, Unavailable)
    assert "eu-west-2" not in error.hint


def test_a_page_in_no_known_encoding_is_judged_by_its_status() -> None:
    page = http("503 Slow Down", b'<?xml version="1.0" encoding="klingon"?><Error/>')
    with Server(answering(page)) as server, pytest.raises(Unavailable, match="HTTP status 503"):
        get(server.endpoint)
