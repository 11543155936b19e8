"""A Transport to any endpoint, one request of it, and a tree on top of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from syncloud.aws.session import Aws
from syncloud.s3.transport import Transport
from syncloud.s3.tree import S3Tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from syncloud.s3.response import Response


@contextlib.asynccontextmanager
async def crt(
    endpoint: str, bucket: str = "bucket", *, transfers: int = 4
) -> AsyncIterator[Transport]:
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


@contextlib.asynccontextmanager
async def tree_at(endpoint: str, *, owner: str = "") -> AsyncIterator[S3Tree]:
    """The bucket of the account `owner`, or of whoever it is."""
    with contextlib.closing(Aws(endpoint_url=endpoint)) as aws:
        client = Transport(aws, "bucket", transfers=4, owner=owner)
        try:
            yield S3Tree(
                client, lambda: aws.client("s3"), bucket="bucket", prefix="", nonce="0" * 16
            )
        finally:
            await client.close()
