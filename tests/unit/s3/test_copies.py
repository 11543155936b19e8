"""Copies at the server, and conflict copies: the bytes travel where the store copies nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Absent, Entry
from syncloud.errors import Changed, PathError, PermissionRefused
from syncloud.s3.copies import COPY_MAX_BYTES
from syncloud.s3.objects import StoreCapabilities
from tests.support.faults import hang_up, late_error, refuse
from tests.support.meddler import Meddler, always
from tests.support.store import BIG, Bytes, awaited, large, obeys_copy, opened, seen, small

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.meddler import Meddle
    from tests.support.recorder import Recorder


@awaited
async def test_a_copy_above_5_gib_is_not_tried(bucket: Bucket, recorder: Recorder) -> None:
    huge = Entry("huge", ("0" * 32, "", ""), COPY_MAX_BYTES + 1, 1, 0o644)
    async with opened(bucket, recorder.endpoint) as tree:
        assert await tree.touch(huge, replace(huge, mtime_ns=2)) is None
        assert await tree.server_side_copy(huge, replace(huge, path="other")) is None
    assert recorder.requests() == []


@pytest.mark.parametrize("path", ["to", "sub dir/\u00fc +%=&?#~'\"<>\\"])
@awaited
async def test_a_rename_is_a_copy_at_the_server(bucket: Bucket, path: str) -> None:
    with Meddler(bucket.server.endpoint, always(obeys_copy, "CopyObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            origin = await tree.write(small(f"from {path}", b"moved"), None, None)
            made = await tree.server_side_copy(
                origin, Entry(path, ("source",), 5, 77, 0o604, origin.crc)
            )
            assert made is not None
            assert made.crc == origin.crc
            there = await seen(tree, path)
            assert (there.tag[:2], there.mtime_ns, there.mode) == (made.tag[:2], 77, 0o604)
            # Occupied: nothing is overwritten.
            assert (
                await tree.server_side_copy(
                    origin, Entry(path, ("source",), 5, 88, 0o604, origin.crc)
                )
                is None
            )
            assert (await seen(tree, path)).mtime_ns == 77
            # The origin is another object now: nothing is copied.
            bucket.put(f"p/from {path}", b"other")
            assert (
                await tree.server_side_copy(
                    origin, Entry("third", ("source",), 5, 77, 0o604, origin.crc)
                )
                is None
            )
            bucket.delete(f"p/from {path}")
            assert (
                await tree.server_side_copy(
                    origin, Entry("third", ("source",), 5, 77, 0o604, origin.crc)
                )
                is None
            )
            assert await tree.observe("third", None, None) == Absent("third")
    assert bucket.get(f"p/{path}") == b"moved"


@pytest.mark.parametrize("copies", [True, False])
@awaited
async def test_what_is_set_aside_keeps_bytes_and_metadata(bucket: Bucket, copies: bool) -> None:
    bucket.put("p/dir/a.txt", b"somebody's", mtime="12.5", mode="0600")
    with Meddler(bucket.server.endpoint, always(obeys_copy, "CopyObject")) as meddler:
        async with opened(
            bucket, meddler.endpoint, conditions=StoreCapabilities(copy=copies)
        ) as tree:
            there = await seen(tree, "dir/a.txt")
            aside, same = await tree.keep_conflict_copy(there)
            more = {
                (await tree.keep_conflict_copy(there))[0] for _ in range(3)
            }  # within one second: a counter
            assert same == there
            assert aside not in more
            assert len(more) == 3
            kept = await seen(tree, aside)
            assert (kept.size, kept.mtime_ns, kept.mode) == (10, 12_500_000_000, 0o600)
            bucket.put("p/dir/a.txt", b"changed")
            with pytest.raises(Changed):
                await tree.keep_conflict_copy(there)
    assert re.fullmatch(r"dir/a\.conflict-\d{8}T\d{6}Z-[\w-]+\.txt", aside)
    assert bucket.get(f"p/{aside}") == b"somebody's"
    assert len(bucket.keys()) == 5


@awaited
async def test_a_large_object_is_set_aside_without_conditions_on_copy(bucket: Bucket) -> None:
    entry = large("big", len(BIG))
    async with opened(bucket, conditions=StoreCapabilities(copy=False)) as tree:
        written = await tree.write(entry, Bytes(entry, BIG), None)
        aside, _ = await tree.keep_conflict_copy(written)
        again, _ = await tree.keep_conflict_copy(written)
        assert aside != again
    assert bucket.get(f"p/{aside}") == BIG


REFUSALS = [
    pytest.param(refuse(403, "AccessDenied"), id="403"),
    pytest.param(refuse(403, "InvalidObjectState"), id="archived"),
    pytest.param(refuse(400, "InvalidRequest"), id="400"),
    pytest.param(refuse(501, "NotImplemented"), id="501"),
    pytest.param(late_error("AccessDenied"), id="403 within a 200"),
    pytest.param(late_error("InternalError"), id="500 within a 200"),
    pytest.param(hang_up, id="no answer"),
]


@pytest.mark.parametrize("meddle", REFUSALS)
@awaited
async def test_where_the_store_makes_no_copy_the_bytes_travel(
    bucket: Bucket, meddle: Meddle
) -> None:
    with Meddler(bucket.server.endpoint, always(meddle, "CopyObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            first = await tree.write(
                large("big", len(BIG)), Bytes(large("big", len(BIG)), BIG), None
            )
            assert await tree.touch(first, replace(first, mtime_ns=2)) is None
            assert await tree.server_side_copy(first, replace(first, path="other")) is None


@pytest.mark.parametrize("meddle", REFUSALS)
@pytest.mark.parametrize("body", [b"somebody's", BIG], ids=["small", "large"])
@awaited
async def test_a_conflict_copy_is_kept_although_the_store_makes_none(
    bucket: Bucket, meddle: Meddle, body: bytes
) -> None:
    bucket.put("p/dir/a.txt", body, mtime="12.5", mode="0600")
    with Meddler(bucket.server.endpoint, always(meddle, "CopyObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            there = await seen(tree, "dir/a.txt")
            aside, same = await tree.keep_conflict_copy(there)
            more, _ = await tree.keep_conflict_copy(there)
            kept = await seen(tree, aside)
    assert same == there
    assert more != aside
    assert (kept.size, kept.mtime_ns, kept.mode) == (len(body), 12_500_000_000, 0o600)
    assert bucket.get(f"p/{aside}") == bucket.get(f"p/{more}") == body


@awaited
async def test_what_is_too_large_to_be_copied_is_carried_aside(bucket: Bucket) -> None:
    """CopyObject takes 5 GiB; a conflict of more must be kept all the same."""
    huge = Entry("huge", ("0" * 32, "", ""), COPY_MAX_BYTES + 1, 1, 0o644)
    with Meddler(
        bucket.server.endpoint, always(refuse(403, "AccessDenied"), "CreateMultipartUpload")
    ) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(PermissionRefused):
                await tree.keep_conflict_copy(huge)
    assert meddler.names() == ["CreateMultipartUpload"]


@pytest.mark.parametrize("copies", [True, False])
@awaited
async def test_a_condition_that_never_holds_is_not_tried_for_ever(
    bucket: Bucket, copies: bool
) -> None:
    """As behind something that changes ETags in one direction."""
    bucket.put("p/a", b"somebody's")
    refused = always(refuse(412, "PreconditionFailed"), "CopyObject", "PutObject")
    with Meddler(bucket.server.endpoint, refused) as meddler:
        async with opened(
            bucket, meddler.endpoint, conditions=StoreCapabilities(copy=copies)
        ) as tree:
            there = await seen(tree, "a")
            with pytest.raises(PathError, match="not kept under a conflict name") as failed:
                await tree.keep_conflict_copy(there)
    assert not isinstance(failed.value, Changed)
    assert len(meddler.names()) < 40
