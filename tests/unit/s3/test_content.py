"""Parts of an object: pinned to one version, whole, and of no other object."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Entry
from syncloud.errors import Changed, Corrupt, PathError
from syncloud.s3.content import S3Content
from tests.support.meddler import Answer, Asked, Forward, Meddler, always, once
from tests.support.store import awaited, opened, small

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.meddler import Meddle
    from tests.support.recorder import Recorder


@awaited
async def test_parts_are_pinned_to_the_version_that_was_seen(
    bucket: Bucket, recorder: Recorder
) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        first = await tree.write(small("a", b"0123456789"), None, None)
        content = await tree.open(first)
        assert b"".join(await content.part(2, 3)) == b"234"
        assert recorder.requests()[-1].headers["if-match"] == f'"{first.tag[0]}"'
        bucket.put("p/a", b"9876543210")
        with pytest.raises(Changed):
            await content.part(5, 3)
        bucket.delete("p/a")
        with pytest.raises(Changed):
            await content.part(5, 3)
        content.close()


@awaited
async def test_an_empty_object_can_be_read_whole(bucket: Bucket) -> None:
    async with opened(bucket) as tree:
        written = await tree.write(small("a", b""), None, None)
        assert b"".join(await (await tree.open(written)).part(0, 0)) == b""
        side = await tree.observe("a", None, None, reported=written)
        assert isinstance(side, Entry)
        assert side.body == b""
        assert side.crc == 0


@awaited
async def test_a_body_that_ends_early_is_refused(bucket: Bucket) -> None:
    def cut(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        return replace(answer, body=answer.body[:4], length=len(answer.body))

    def short(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        return replace(answer, body=answer.body[:4])

    with Meddler(bucket.server.endpoint, once(cut, "GetObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            written = await tree.write(small("a", b"0123456789"), None, None)
            side = await tree.observe("a", None, None, reported=written)  # awscrt asks again
            assert isinstance(side, Entry)
            assert side.body == b"0123456789"
            meddler.meddle = always(short, "GetObject")
            with pytest.raises(Corrupt):
                await tree.observe("a", None, None, reported=written)
            with pytest.raises(Corrupt):
                await (await tree.open(written)).part(0, 10)


def as_told(status: int | None = None, **headers: str) -> Meddle:
    """Of each GET the answer has these headers (or, empty, none of the name) and this status."""

    def told(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked).with_headers(**headers)
        kept = {name: value for name, value in answer.headers.items() if value}
        return replace(answer, headers=kept, status=status or answer.status)

    return always(told, "GetObject")


OTHER_PARTS = [
    (as_told(etag='"another"'), Changed),
    (as_told(content_range="bytes 3-5/10"), Corrupt),
    (as_told(content_range="bytes 2-5/10"), Corrupt),
    (as_told(content_range="bytes 2-4/11"), Corrupt),
    (as_told(content_range="bytes */10"), Corrupt),
    (as_told(content_range="2-4/10"), Corrupt),
    (as_told(content_range=""), Corrupt),
    (as_told(200), Corrupt),
    (as_told(203), Corrupt),
]


@pytest.mark.parametrize(("told", "wrong"), OTHER_PARTS)
@awaited
async def test_a_part_of_another_object_or_of_another_place_is_its_paths_failure(
    bucket: Bucket, told: Meddle, wrong: type[PathError]
) -> None:
    """A store may ignore If-Match and Range, and a cache on the way may hold another object."""
    with Meddler(bucket.server.endpoint, told) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            first = await tree.write(small("a", b"0123456789"), None, None)
            with pytest.raises(wrong) as caught:
                await S3Content(tree.bucket, first).part(2, 3)
            assert caught.value.path == "a"
            meddler.meddle = as_told(etag="")
            assert b"".join(await S3Content(tree.bucket, first).part(2, 3)) == b"234", (
                "what is not said contradicts nothing"
            )
            meddler.meddle = as_told(content_range="bytes 2-4/*")
            assert b"".join(await S3Content(tree.bucket, first).part(2, 3)) == b"234"


@awaited
async def test_a_whole_of_another_object_or_a_part_of_it_is_its_paths_failure(
    bucket: Bucket,
) -> None:
    with Meddler(bucket.server.endpoint, as_told(etag='"another"')) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            first = await tree.write(small("a", b"0123456789"), None, None)
            with pytest.raises(Changed):
                await S3Content(tree.bucket, first).part(0, 10)
            for status in (203, 206):
                meddler.meddle = as_told(status)
                with pytest.raises(Corrupt):
                    await S3Content(tree.bucket, first).part(0, 10)
                with pytest.raises(Corrupt):
                    await tree.observe("a", None, None, reported=first)
