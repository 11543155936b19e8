"""Whose bucket it is: a name that was given up can be claimed by anybody, and is then refused."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

import pytest

from syncloud import cf
from syncloud.config import parser
from syncloud.core.model import SMALL_BYTES
from syncloud.errors import ConfigurationError, PermissionRefused
from tests.support.meddler import Answer, Asked, Forward, Meddler, error
from tests.support.server import Server, answering, error_xml, head, http
from tests.support.transport import tree_at

if TYPE_CHECKING:
    import socket
    import ssl
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.emulator import Bucket

OURS, THEIRS = "111122223333", "444455556666"
HEADER = "x-amz-expected-bucket-owner"


def belongs_to_us(asked: Asked, forward: Forward) -> Answer | None:
    """As S3 does: it refuses who expects another owner, and says no more."""
    if asked.headers.get(HEADER, OURS) == OURS:
        return forward(asked)
    return error(403, "AccessDenied")


def of_s3(meddler: Meddler) -> list[Asked]:
    return [asked for asked in meddler.asked if "x-amz-target" not in asked.headers]


def arguments(role: str, place: Path, bucket: Bucket, *more: str) -> list[str]:
    pair = [
        "--directory",
        str(place / role),
        "--bucket",
        bucket.name,
        "--state-dir",
        str(place / f"state-{role}"),
    ]
    (place / role).mkdir(exist_ok=True)
    return [role, "--once", *pair, *more]


def test_every_request_to_s3_says_whose_bucket_is_expected(
    bucket: Bucket, syncloud: Start, tmp_path: Path
) -> None:
    """The probe's, those of small files and of large ones, of copies, deletions and listings."""
    more = ("--expected-bucket-owner", OURS, "--delete")
    with Meddler(bucket.server.endpoint, belongs_to_us) as meddler:
        push = arguments("push", tmp_path, bucket, *more)
        (tmp_path / "push/small").write_bytes(b"1")
        (tmp_path / "push/large").write_bytes(os.urandom(SMALL_BYTES + 1))
        assert syncloud(*push, endpoint=meddler.endpoint).wait(timeout=60) == 0
        os.utime(tmp_path / "push/large", (1, 1))
        (tmp_path / "push/small").unlink()
        assert syncloud(*push, endpoint=meddler.endpoint).wait(timeout=60) == 0
        assert (
            syncloud(*arguments("pull", tmp_path, bucket, *more), endpoint=meddler.endpoint).wait(
                timeout=60
            )
            == 0
        )
        asked = of_s3(meddler)
    assert {one.headers.get(HEADER) for one in asked} == {OURS}
    assert all(HEADER in one.headers["authorization"] for one in asked), (
        "whoever is on the way cannot take it off"
    )
    names = {
        "PutObject",
        "CopyObject",
        "UploadPart",
        "CompleteMultipartUpload",
        "DeleteObject",
        "GetObject",
        "HeadObject",
        "ListObjectsV2",
    }
    assert names <= set(meddler.names())
    assert (tmp_path / "pull/large").read_bytes() == (tmp_path / "push/large").read_bytes()


def test_without_an_account_nothing_is_said(
    bucket: Bucket, syncloud: Start, tmp_path: Path
) -> None:
    with Meddler(bucket.server.endpoint, belongs_to_us) as meddler:
        assert (
            syncloud(*arguments("push", tmp_path, bucket), endpoint=meddler.endpoint).wait(
                timeout=60
            )
            == 0
        )
        assert not [asked for asked in meddler.asked if HEADER in asked.headers]


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_bucket_of_another_account_is_refused(
    role: str, bucket: Bucket, syncloud: Start, tmp_path: Path
) -> None:
    bucket.put("theirs", b"x")
    before = bucket.keys()
    with Meddler(bucket.server.endpoint, belongs_to_us) as meddler:
        made = arguments(role, tmp_path, bucket, "--expected-bucket-owner", THEIRS)
        (tmp_path / "push").mkdir(exist_ok=True)
        (tmp_path / "push/ours").write_bytes(b"1")
        process = syncloud(*made, endpoint=meddler.endpoint)
        assert process.wait(timeout=60) == 77
    assert f"another account than {THEIRS}" in process.stderr
    assert "expected-bucket-owner" in process.stderr
    assert bucket.keys() == before
    assert role == "push" or not list((tmp_path / "pull").iterdir())


def test_the_first_look_over_tls_says_it_as_well(tls: ssl.SSLContext) -> None:
    """That one is boto3's."""
    asked: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        while request := head(sock):
            asked.append(request)
            sock.sendall(http("200 OK", b"<ListBucketResult/>"))

    async def go(endpoint: str) -> None:
        async with tree_at(endpoint, owner=OURS) as tree:
            await asyncio.to_thread(tree.check)

    with Server(handle, context=tls) as server:
        asyncio.run(go(server.endpoint))
    assert len(asked) == 1
    assert f"{HEADER}: {OURS}".encode() in asked[0].lower()


def test_setup_tells_the_account_of_the_stack() -> None:
    outputs = cf.Outputs(
        "b", "", "https://sqs/q", "https://sqs/d", "eu-central-1", "arn:push", "arn:pull", OURS
    )
    assert f"expected-bucket-owner = {OURS}" in cf.configuration_lines(outputs)


def test_what_setup_writes_is_understood(tmp_path: Path) -> None:
    outputs = cf.Outputs(
        "buk", "", "https://sqs/q", "https://sqs/d", "eu-central-1", "arn:push", "arn:pull", OURS
    )
    cf.write_config(tmp_path / "jef.conf", cf.configuration_lines(outputs))
    for role in ("push", "pull"):
        read = parser.parse(
            [role, "--config", str(tmp_path / "jef.conf"), "--directory", "/srv/jef"], {}
        )
        assert read.settings.expected_bucket_owner == OURS


def test_a_refusal_over_tls_names_the_account(tls: ssl.SSLContext) -> None:
    async def go(endpoint: str) -> None:
        async with tree_at(endpoint, owner=THEIRS) as tree:
            with pytest.raises(PermissionRefused) as caught:
                await asyncio.to_thread(tree.check)
            assert f"another account than {THEIRS}" in caught.value.hint

    with Server(answering(http("403 Forbidden", error_xml("AccessDenied"))), context=tls) as server:
        asyncio.run(go(server.endpoint))


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "12345678901",
        "1234567890123",
        "1111-2222-3333",
        "arn:aws:iam::111122223333:root",
        "\u0661" * 12,
    ],
)
def test_an_account_has_twelve_digits(bad: str) -> None:
    with pytest.raises(ConfigurationError, match=re.compile("expected-bucket-owner")):
        parser.parse(
            ["push", "--directory", "/x", "--bucket", "buk", "--expected-bucket-owner", bad], {}
        )
