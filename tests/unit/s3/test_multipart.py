"""Large objects: part sizes, one proven state for each commit, and no upload that stays open."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core import checksum
from syncloud.core.model import SMALL_BYTES
from syncloud.errors import (
    Changed,
    Corrupt,
    PathError,
    PermissionRefused,
    SyncloudError,
    Unavailable,
    Unsteady,
)
from syncloud.s3 import multipart
from syncloud.s3.content import S3Content
from tests.support.meddler import Answer, Asked, Forward, Meddler, always, drop, error, once
from tests.support.store import BIG, STAMP, Bytes, awaited, large, opened, seen, small, uploads

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.recorder import Recorder


@awaited
async def test_a_lost_answer_to_complete_is_found_to_be_a_success(bucket: Bucket) -> None:
    """The repeated Complete meets a lost upload: Changed, and the next look finds equal bytes."""
    body = bytes(SMALL_BYTES + 5)
    with Meddler(bucket.server.endpoint, once(drop, "CompleteMultipartUpload")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            try:
                await tree.write(
                    large("big", len(body)), Bytes(large("big", len(body)), body), None
                )
            except Changed:
                there = await tree.with_checksum(await seen(tree, "big"))
                assert (there.size, there.crc) == (len(body), checksum.update(body))
    assert bucket.keys() == ["p/big"]
    assert uploads(bucket) == []


@pytest.mark.parametrize("size", [SMALL_BYTES + 1, 10**9, 80 * 10**9, 80 * 2**30, 50 * 10**12])
def test_part_sizes_fit_the_limits_of_s3(size: int) -> None:
    part = multipart.part_size(size)
    assert 5 * 2**20 <= part <= 5 * 2**30
    assert -(-size // part) <= 10_000
    assert part % 2**20 == 0


@given(st.integers(min_value=1, max_value=50 * 10**12))
def test_any_size_fits_into_10_000_parts(size: int) -> None:
    part = multipart.part_size(size)
    assert part >= SMALL_BYTES
    assert -(-size // part) <= 10_000
    assert part <= 5 * 2**30
    assert part == SMALL_BYTES or -(-size // (part - 2**20)) > 10_000


@awaited
async def test_a_large_object_carries_its_condition_on_complete_alone(
    bucket: Bucket, recorder: Recorder
) -> None:
    entry = large("big", len(BIG))
    async with opened(bucket, recorder.endpoint) as tree:
        written = await tree.write(entry, Bytes(entry, BIG), None)
        assert bucket.get("p/big") == BIG
        assert written.crc == checksum.update(BIG)
        there = await seen(tree, "big")
        assert (there.tag[:2], there.size, there.mtime_ns, there.mode) == (
            written.tag[:2],
            len(BIG),
            STAMP,
            0o600,
        )
        assert (await tree.with_checksum(there)).crc == checksum.update(BIG)
        await tree.write(entry, Bytes(entry, BIG), written)
        with pytest.raises(Changed):
            await tree.write(
                entry, Bytes(entry, BIG), replace(written, tag=("0" * 32 + "-2", "", ""))
            )
    conditions = [
        (request.operation, request.headers.get("if-match") or request.headers.get("if-none-match"))
        for request in recorder.requests()
        if "MultipartUpload" in request.operation or request.operation == "UploadPart"
    ]
    assert {name for name, condition in conditions if condition} == {"CompleteMultipartUpload"}
    assert all(condition for name, condition in conditions if name == "CompleteMultipartUpload")
    assert uploads(bucket) == []


@awaited
async def test_a_file_that_changed_during_its_upload_is_never_committed(bucket: Bucket) -> None:
    def changed() -> None:
        raise Unsteady("big", "big: written to meanwhile")

    entry = large("big", len(BIG))
    async with opened(bucket) as tree:
        with pytest.raises(Unsteady):
            await tree.write(entry, Bytes(entry, BIG, verified=changed), None)
        with pytest.raises(Corrupt):  # the planner has hashed other bytes than were read now
            await tree.write(replace(entry, crc=1), Bytes(entry, BIG), None)
    assert bucket.keys() == []
    assert uploads(bucket) == []


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidRequest"])
@awaited
async def test_an_upload_that_fails_is_aborted(bucket: Bucket, code: str) -> None:
    entry = large("big", len(BIG))

    def fail(asked: Asked, forward: Forward) -> Answer:
        return error(403 if code == "AccessDenied" else 400, code)

    with Meddler(bucket.server.endpoint, always(fail, "UploadPart")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(SyncloudError) as caught:  # not an exception group
                await tree.write(entry, Bytes(entry, BIG), None)
            assert isinstance(
                caught.value, PermissionRefused if code == "AccessDenied" else PathError
            )
    assert uploads(bucket) == []
    assert bucket.keys() == []


@awaited
async def test_an_upload_that_has_no_name_is_none(bucket: Bucket) -> None:
    """A part without one would be taken for the whole object."""

    def nameless(asked: Asked, forward: Forward) -> Answer:
        return replace(forward(asked), body=b"<html>Please log in</html>")

    entry = large("big", len(BIG))
    with Meddler(bucket.server.endpoint, always(nameless, "CreateMultipartUpload")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(Unavailable, match="UploadId"):
                await tree.write(entry, Bytes(entry, BIG), None)
    assert bucket.keys() == []


@awaited
async def test_a_completion_may_take_longer_than_other_requests(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncloud.s3.transport.ANSWER_TIMEOUT_S", 1.0)

    def slow(asked: Asked, forward: Forward) -> Answer:
        time.sleep(2)
        return forward(asked)

    entry = large("big", len(BIG))
    with Meddler(bucket.server.endpoint, always(slow, "CompleteMultipartUpload")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            await tree.write(entry, Bytes(entry, BIG), None)
        assert meddler.names().count("CompleteMultipartUpload") == 1
    assert bucket.get("p/big") == BIG


@awaited
async def test_an_upload_that_is_cancelled_is_aborted(bucket: Bucket) -> None:
    entry = large("big", len(BIG))
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def seen_part(asked: Asked, forward: Forward) -> Answer:
        loop.call_soon_threadsafe(reached.set)
        return forward(asked)

    with Meddler(bucket.server.endpoint, always(seen_part, "UploadPart")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            task = asyncio.create_task(tree.write(entry, Bytes(entry, BIG), None))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert uploads(bucket) == []
    assert bucket.keys() == []


@awaited
async def test_a_composite_checksum_of_the_store_is_tolerated(bucket: Bucket) -> None:
    def composite(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        told = (
            b"<ChecksumCRC64NVME>AAAAAAAAAAA=-2</ChecksumCRC64NVME></CompleteMultipartUploadResult>"
        )
        body = re.sub(rb"<ChecksumCRC64NVME>.*?</ChecksumCRC64NVME>", b"", answer.body)
        return replace(answer, body=body.replace(b"</CompleteMultipartUploadResult>", told))

    def composite_head(asked: Asked, forward: Forward) -> Answer:
        if asked.name == "CompleteMultipartUpload":
            return composite(asked, forward)
        return forward(asked).with_headers(x_amz_checksum_crc64nvme="AAAAAAAAAAA=-2")

    entry = large("big", len(BIG))
    with Meddler(
        bucket.server.endpoint, always(composite_head, "CompleteMultipartUpload", "HeadObject")
    ) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            written = await tree.write(entry, Bytes(entry, BIG), None)
            assert written.crc == checksum.update(BIG)
            there = await seen(tree, "big")
            assert there.crc is None
            assert (await tree.with_checksum(there)).crc == checksum.update(
                BIG
            )  # by reading it all


@awaited
async def test_more_than_memory_is_for_goes_through_the_same_buffers(bucket: Bucket) -> None:
    """Each of ten parts is another, one is sent twice, and the last is short."""
    body = (
        b"".join(
            bytes([number]) * SMALL_BYTES
            for number in range(multipart.MAX_IN_FLIGHT_BYTES // SMALL_BYTES + 2)
        )
        + b"end"
    )
    entry = large("big", len(body))
    with Meddler(
        bucket.server.endpoint, once(lambda asked, forward: error(503, "SlowDown"), "UploadPart")
    ) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert (await tree.write(entry, Bytes(entry, body), None)).crc == checksum.update(body)
    assert bucket.get("p/big") == body


@awaited
async def test_a_checksum_of_the_whole_that_differs_is_corruption(bucket: Bucket) -> None:
    def wrong(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        told = (
            b"<ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME></CompleteMultipartUploadResult>"
        )
        body = re.sub(rb"<ChecksumCRC64NVME>.*?</ChecksumCRC64NVME>", b"", answer.body)
        return replace(answer, body=body.replace(b"</CompleteMultipartUploadResult>", told))

    entry = large("big", len(BIG))
    with Meddler(bucket.server.endpoint, always(wrong, "CompleteMultipartUpload")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(Corrupt):
                await tree.write(entry, Bytes(entry, BIG), None)


def keeps_whole_checksums(asked: Asked, forward: Forward) -> Answer:
    """A store that promises a checksum of the whole and compares it before the commit.

    A byte changes in transit with one part.
    """
    if asked.name == "CreateMultipartUpload":
        return forward(asked).with_headers(
            x_amz_checksum_type=asked.headers.get("x-amz-checksum-type", "COMPOSITE")
        )
    if asked.name == "UploadPart" and "partNumber=1&" in asked.target:
        answer = forward(
            replace(asked, headers=_without_checksum(asked.headers), body=b"\xff" + asked.body[1:])
        )
        return replace(answer, headers=_without_checksum(answer.headers))
    if asked.name == "CompleteMultipartUpload":
        sent = checksum.decode(asked.headers.get(checksum.HEADER, ""))
        turned = checksum.update(b"\xff" + BIG[1:])
        assert asked.headers.get("x-amz-mp-object-size", str(len(BIG))) == str(len(BIG))
        if sent is not None and sent != turned:
            return error(400, "BadDigest")
    return forward(asked)


def _without_checksum(headers: dict[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in headers.items() if not name.startswith("x-amz-checksum-")
    }


@awaited
async def test_wrong_bytes_are_refused_before_anybody_can_read_them(bucket: Bucket) -> None:
    """A store with checksums of whole objects gets ours with the completion.

    No request for the store's own follows.
    """
    entry = large("big", len(BIG))
    with Meddler(bucket.server.endpoint, keeps_whole_checksums) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(PathError, match="BadDigest"):
                await tree.write(entry, Bytes(entry, BIG), None)
    assert bucket.keys() == []
    assert uploads(bucket) == []


@awaited
async def test_a_part_of_which_the_store_has_another_checksum_is_never_committed(
    bucket: Bucket,
) -> None:
    entry = large("big", len(BIG))
    wrong = always(
        lambda asked, forward: forward(asked).with_headers(x_amz_checksum_crc64nvme="AAAAAAAAAAA="),
        "UploadPart",
    )
    with Meddler(bucket.server.endpoint, wrong) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(Corrupt, match="checksum of part"):
                await tree.write(entry, Bytes(entry, BIG), None)
    assert bucket.keys() == []


@awaited
async def test_a_store_that_promises_no_checksum_of_the_whole_is_told_none(bucket: Bucket) -> None:
    """It may take it for a checksum of the parts' checksums, and refuse it."""
    entry = large("big", len(BIG))
    with Meddler(bucket.server.endpoint, lambda asked, forward: forward(asked)) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            await tree.write(entry, Bytes(entry, BIG), None)
        (complete,) = [asked for asked in meddler.asked if asked.name == "CompleteMultipartUpload"]
    assert checksum.HEADER not in complete.headers


@awaited
async def test_without_checksums_nothing_of_them_is_sent(
    bucket: Bucket, recorder: Recorder
) -> None:
    entry = large("big", len(BIG))
    async with opened(bucket, recorder.endpoint, sends_checksum=False) as tree:
        await tree.write(small("a", b"x"), None, None)
        await tree.write(entry, Bytes(entry, BIG), None)
    sent = [request for request in recorder.requests() if request.method in ("PUT", "POST")]
    assert not [
        name
        for request in sent
        for name in request.headers
        if name.startswith("x-amz-checksum-crc64")
    ]
    assert bucket.get("p/big") == BIG


def weakened(asked: Asked, forward: Forward) -> Answer | None:
    """Something on the way that compresses, and calls what it sends on weakly equal."""
    answer = forward(asked)
    return (
        answer.with_headers(etag="W/" + answer.headers["etag"])
        if "etag" in answer.headers
        else answer
    )


@awaited
async def test_an_etag_that_was_made_weak_on_its_way_is_the_stores(bucket: Bucket) -> None:
    bucket.put("p/a", b"theirs")
    with Meddler(bucket.server.endpoint, weakened) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            there = await seen(tree, "a")
            await tree.write(small("a", b"ours"), None, there)
            entry = large("big", len(BIG))
            first = await tree.write(entry, Bytes(entry, BIG), None)
            assert b"".join(await S3Content(tree.bucket, first).part(0, 1000)) == BIG[:1000]
            await tree.delete(await seen(tree, "big"))
    assert bucket.get("p/a") == b"ours"
