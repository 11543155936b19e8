"""Every key travels unchanged, signed as by botocore, and over plain HTTP with the body's hash."""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import TYPE_CHECKING

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.server import Server, head, http
from tests.support.transport import crt

if TYPE_CHECKING:
    import socket

    from tests.support.emulator import Bucket, Emulator


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
    s3, name = (
        aws_server.client("s3"),
        "every-key",
    )  # unversioned: the emulator cannot list versions of control characters
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
                assert (
                    await client.request("DELETE", key, operation="DeleteObject")
                ).status == 204, key

    asyncio.run(go())
    s3.delete_bucket(Bucket=name)


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
                await client.request(
                    "DELETE", key, operation="DeleteObject", query=[("versionId", "a+b/c=d ~")]
                )
            await client.request(
                "POST", "k", operation="CreateMultipartUpload", query=[("uploads", "")]
            )
            client.request_blocking(
                "ListObjectsV2",
                "list",
                [("list-type", "2"), ("prefix", "a+b/c=d \xe4~*'"), ("encoding-type", "url")],
            )

    with Server(handle) as server:
        asyncio.run(go(server.endpoint))
    assert len(requests) == len(KEYS) + 2
    for request in requests:
        assert signature_by_botocore(request) in request.decode(), request


def signature_by_botocore(raw: bytes) -> str:
    lines = raw.decode().split("\r\n")
    method, target, _ = lines[0].split(" ")
    fields = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in lines[1:] if line)
    }
    signed = fields["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest(
        method=method,
        url=f"http://{fields['host']}{target}",
        headers={name: fields[name] for name in signed},
    )
    request.context["timestamp"] = fields["x-amz-date"]
    auth = S3SigV4Auth(Credentials("test", "test"), "s3", "us-east-1")
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return f"Signature={auth.signature(text, request)}"


@pytest.mark.parametrize(
    "body", [b"", b"x" * 70_000, io.BytesIO(b"in a stream")], ids=["empty", "bytes", "stream"]
)
def test_over_plain_http_elsewhere_a_body_is_signed_and_that_is_told(
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    body: bytes | io.BytesIO,
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
        return next(
            line.partition(": ")[2] for line in lines if line.startswith("x-amz-content-sha256")
        )

    with Server(handle) as server:
        asyncio.run(go(server.endpoint))
        assert digest() == "unsigned-payload"
        assert "is plain HTTP" not in capsys.readouterr().err
        monkeypatch.setenv("HTTP_PROXY", server.endpoint)
        asyncio.run(go("http://s3.example.org"))
        assert "http://s3.example.org is plain HTTP" in capsys.readouterr().err
    plain = body.getvalue() if isinstance(body, io.BytesIO) else body
    assert digest() == hashlib.sha256(plain).hexdigest()
