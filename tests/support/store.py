"""An S3Tree in front of the emulator, entries for it, and a look at the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec

from syncloud.aws.session import Aws
from syncloud.core import checksum
from syncloud.core.interfaces import Content
from syncloud.core.model import Entry
from syncloud.s3.objects import FULL, StoreCapabilities
from syncloud.s3.transport import Transport
from syncloud.s3.tree import S3Tree
from tests.support.meddler import Answer, Asked, Forward, error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.emulator import Bucket

P = ParamSpec("P")
PREFIX = "p/"
NONCE = "0123456789abcdef"
STAMP = 1_700_000_000_123_456_789
BIG = b"".join(bytes([i]) * 2**20 for i in range(9)) + b"end"
"""Two parts, the second a short one."""


def awaited(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """The coroutine `test` as a function that pytest can call."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def scenario() -> None:
            await test(*args, **kwargs)

        asyncio.run(scenario())

    return run


@contextlib.asynccontextmanager
async def opened(
    bucket: Bucket, endpoint: str = "", conditions: StoreCapabilities = FULL, **options: Any
) -> AsyncIterator[S3Tree]:
    """An S3Tree below PREFIX; `endpoint` is what stands before the emulator."""
    aws = Aws(region="us-east-1", endpoint_url=endpoint or bucket.server.endpoint)
    crt = Transport(aws, bucket.name, transfers=4)
    try:
        tree = S3Tree(
            crt, lambda: aws.client("s3"), bucket=bucket.name, prefix=PREFIX, nonce=NONCE, **options
        )
        tree.conditions = conditions
        yield tree
    finally:
        await crt.close()
        aws.close()


def small(path: str, body: bytes, *, mtime_ns: int = STAMP, mode: int = 0o640) -> Entry:
    """What a source has read."""
    return Entry(path, ("source",), len(body), mtime_ns, mode, checksum.update(body), body)


def large(path: str, size: int) -> Entry:
    return Entry(path, ("source",), size, STAMP, 0o600)


class Bytes(Content):
    """Content in memory. The tree calls `verified` to check that all parts were of one state."""

    def __init__(
        self, entry: Entry, body: bytes, *, verified: Callable[[], None] = lambda: None
    ) -> None:
        self.entry = entry
        self._body = body
        self._verified = verified

    async def part(self, offset: int, length: int) -> list[bytes]:
        return [self._body[offset : offset + length]]

    async def verify(self, crc: int | None) -> None:
        assert crc == checksum.update(self._body)
        self._verified()

    def close(self) -> None:
        """Nothing is held."""


async def seen(tree: S3Tree, path: str) -> Entry:
    side = await tree.observe(path, None, None)
    assert isinstance(side, Entry), side
    return side


def promised(path: str, answer: dict[str, Any], body: bytes) -> Entry:
    """As an event or a listing names what `answer` said was written."""
    return Entry(path, (answer["ETag"].strip('"'), "", ""), len(body), 0, 0)


def uploads(bucket: Bucket) -> list[dict[str, Any]]:
    return list(
        bucket.server.client("s3").list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    )


def obeys_copy(asked: Asked, forward: Forward) -> Answer | None:
    """A store that obeys conditions on CopyObject, which the emulator does not."""
    plain = {
        name: value
        for name, value in asked.headers.items()
        if name in ("host", "authorization", "x-amz-date")
    }
    there = forward(replace(asked, method="HEAD", headers=plain))
    wanted = asked.headers.get("if-match", there.headers.get("etag"))
    if (
        asked.headers.get("if-none-match") == "*" and there.status == 200
    ) or wanted != there.headers.get("etag"):
        return error(412, "PreconditionFailed")
    return forward(asked)
