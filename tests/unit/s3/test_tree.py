"""S3Tree over real HTTP: conditions, proofs of absence, verified bytes, odd keys, lesser stores."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum, names
from syncloud.core.model import Absent, Base, Entry, Policy, Unknown
from syncloud.core.work_queue import Work
from syncloud.engine.reconciler import Reconciler
from syncloud.errors import Archived, Changed, PathError
from syncloud.s3.content import S3Content
from syncloud.s3.objects import StoreCapabilities
from tests.support.engines import Recorded, direction_between, reconciler_of, settle_with
from tests.support.meddler import (
    Answer,
    Asked,
    Forward,
    Meddler,
    always,
    drop,
    error,
    once,
    unconditional,
)
from tests.support.memory import MemoryTree
from tests.support.store import STAMP, awaited, obeys_copy, opened, promised, seen, small

if TYPE_CHECKING:
    from syncloud.s3.tree import S3Tree
    from tests.support.emulator import Bucket
    from tests.support.recorder import Recorder


# Conditions


@awaited
async def test_a_new_object_is_written_only_where_nothing_is(
    bucket: Bucket, recorder: Recorder
) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        written = await tree.write(small("a", b"first"), None, None)
        assert written.tag[0] == bucket.head("p/a")["ETag"].strip('"')
        assert written.tag[1] == bucket.head("p/a")["VersionId"]
        with pytest.raises(Changed):
            await tree.write(small("a", b"second"), None, None)
    assert bucket.get("p/a") == b"first"
    assert [request.headers.get("if-none-match") for request in recorder.requests()] == ["*", "*"]


@awaited
async def test_an_object_is_replaced_only_as_it_was_expected(
    bucket: Bucket, recorder: Recorder
) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        first = await tree.write(small("a", b"first"), None, None)
        await tree.write(small("a", b"second"), None, first)
        with pytest.raises(Changed):
            await tree.write(small("a", b"third"), None, first)
        assert bucket.get("p/a") == b"second"
        bucket.delete("p/a")
        with pytest.raises(Changed):  # 404, not 412
            await tree.write(small("a", b"third"), None, first)
    assert bucket.keys() == []
    assert {request.headers.get("if-match") for request in recorder.requests()[1:]} == {
        f'"{first.tag[0]}"'
    }


@awaited
async def test_a_race_that_the_store_reports_as_409_is_a_change(bucket: Bucket) -> None:
    def raced(asked: Asked, forward: Forward) -> Answer:
        return error(409, "ConditionalRequestConflict")

    with Meddler(
        bucket.server.endpoint, always(raced, "PutObject", "DeleteObject", "CopyObject")
    ) as meddler:
        bucket.put("p/a", b"there")
        async with opened(bucket, meddler.endpoint) as tree:
            there = await seen(tree, "a")
            with pytest.raises(Changed):
                await tree.write(small("a", b"new"), None, there)
            with pytest.raises(Changed):
                await tree.delete(there)
            with pytest.raises(Changed):
                await tree.touch(there, replace(there, mtime_ns=1))
            assert await tree.server_side_copy(there, replace(there, path="b")) is None
    assert bucket.get("p/a") == b"there"
    assert bucket.keys() == ["p/a"]


@awaited
async def test_an_object_is_deleted_only_as_it_was_expected(bucket: Bucket) -> None:
    async with opened(bucket) as tree:
        first = await tree.write(small("a", b"first"), None, None)
        bucket.put("p/a", b"somebody else's")
        with pytest.raises(Changed):
            await tree.delete(first)
        assert bucket.get("p/a") == b"somebody else's"
        await tree.delete(await seen(tree, "a"))
        with contextlib.suppress(Changed):  # gone already: either answer is right
            await tree.delete(first)
    assert bucket.keys() == []


@awaited
async def test_bytes_that_change_on_their_way_are_refused_by_the_store(bucket: Bucket) -> None:
    def damaged(asked: Asked, forward: Forward) -> Answer:
        # The emulator compares a checksum only on request; S3 compares every one it gets.
        headers = asked.headers | {"x-amz-sdk-checksum-algorithm": "CRC64NVME"}
        return forward(
            replace(asked, headers=headers, body=asked.body[:-1] + bytes([asked.body[-1] ^ 1]))
        )

    with Meddler(bucket.server.endpoint, always(damaged, "PutObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(PathError):
                await tree.write(small("a", b"0123456789"), None, None)
    assert bucket.keys() == []


# A success whose answer is lost


def reconciler(source: MemoryTree, target: S3Tree, base: Base | None) -> Reconciler:
    rows = {} if base is None else {base.path: base}
    return reconciler_of(direction_between(source, target), Policy(delete=True), Recorded(rows))


@awaited
async def test_our_own_lost_success_is_adopted_and_never_a_conflict(bucket: Bucket) -> None:
    source = MemoryTree("pull")
    source.put("a", b"ours", mtime_ns=STAMP)
    with Meddler(bucket.server.endpoint, once(drop, "PutObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            outcome = await settle_with(reconciler(source, tree, None), Work("a", 0, 0, 0))
            assert outcome.put is not None
            assert not outcome.conflict
            assert outcome.put.target[:2] == (await seen(tree, "a")).tag[:2]
            assert meddler.names().count("PutObject") == 2
            # The same for an overwrite, whose If-Match no longer holds the second time.
            meddler.meddle = once(drop, "PutObject")
            source.put("a", b"newer", mtime_ns=STAMP)
            again = await settle_with(reconciler(source, tree, outcome.put), Work("a", 0, 0, 0))
            assert again.put is not None
            assert not again.conflict
    assert bucket.get("p/a") == b"newer"
    assert bucket.keys() == ["p/a"]
    versions = bucket.server.client("s3").list_object_versions(Bucket=bucket.name)["Versions"]
    assert len(versions) == 2


@awaited
async def test_a_lost_answer_to_a_rename_is_adopted(bucket: Bucket) -> None:
    """The repeated copy finds its own first one, and so does the upload that replaces it.

    The comparison finds equal bytes.
    """
    source = MemoryTree("pull")
    moved = source.put("new", b"moved", mtime_ns=STAMP)

    def lost(asked: Asked, forward: Forward) -> Answer | None:
        answer = obeys_copy(asked, forward)
        return None if answer is not None and answer.status == 200 else answer

    with Meddler(bucket.server.endpoint, always(lost, "CopyObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            origin = await tree.write(small("old", b"moved"), None, None)
            copied = Entry("new", moved.tag, 5, STAMP, 0o644, origin.crc)
            assert await tree.server_side_copy(origin, copied) is None
            outcome = await settle_with(reconciler(source, tree, None), Work("new", 0, 0, 0))
            assert outcome.put is not None
            assert not outcome.conflict
    assert bucket.keys() == ["p/new", "p/old"]


@awaited
async def test_a_lost_answer_to_delete_is_found_to_be_a_success(bucket: Bucket) -> None:
    with Meddler(bucket.server.endpoint, once(drop, "DeleteObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            there = await tree.write(small("a", b"x"), None, None)
            with contextlib.suppress(Changed):
                await tree.delete(there)
            assert await tree.observe("a", None, None) == Absent("a")


# Absence


@pytest.mark.parametrize("etag", ["", "x\r\nx-amz-evil: 1", "\ud800"])
@awaited
async def test_a_promise_without_an_etag_that_can_be_asked_for_leads_to_a_head(
    bucket: Bucket, etag: str
) -> None:
    bucket.put("p/a", b"x")
    with Meddler(bucket.server.endpoint, lambda asked, forward: forward(asked)) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            if etag:
                with pytest.raises(PathError, match="if-match"):
                    await tree.observe(
                        "a", None, None, reported=Entry("a", (etag, "", ""), 1, 0, 0)
                    )
                assert meddler.asked == []
            else:
                side = await tree.observe(
                    "a", None, None, reported=Entry("a", (etag, "", ""), 1, 0, 0)
                )
                assert isinstance(side, Entry)
                assert meddler.names() == ["HeadObject"]


@awaited
async def test_an_absence_that_an_event_promises_is_looked_at(bucket: Bucket) -> None:
    bucket.put("p/a", b"there again")
    async with opened(bucket) as tree:
        side = await tree.observe("a", None, None, reported=Absent("a"))
        assert isinstance(side, Entry)
        assert side.size == len(b"there again")


# Reading


@awaited
async def test_a_promised_small_object_is_got_in_one_pinned_request(
    bucket: Bucket, recorder: Recorder
) -> None:
    answer = bucket.put("p/a", b"bytes", mtime="1.5", mode="0600")
    async with opened(bucket, recorder.endpoint) as tree:
        side = await tree.observe("a", None, None, reported=promised("a", answer, b"bytes"))
        assert isinstance(side, Entry)
        assert (side.body, side.crc, side.mtime_ns, side.mode) == (
            b"bytes",
            checksum.update(b"bytes"),
            1_500_000_000,
            0o600,
        )
        assert side.tag[1] == answer["VersionId"]
    (request,) = recorder.requests()
    assert (request.operation, request.headers["if-match"]) == ("GetObject", answer["ETag"])


@awaited
async def test_another_object_than_promised_is_headed_first(
    bucket: Bucket, recorder: Recorder
) -> None:
    """What was promised small may be huge by now."""
    old = bucket.put("p/a", b"old")
    bucket.put("p/a", b"a newer one")
    async with opened(bucket, recorder.endpoint) as tree:
        side = await tree.observe("a", None, None, reported=promised("a", old, b"old"))
        assert isinstance(side, Entry)
        assert side.body is None
        assert side.size == len(b"a newer one")
    assert list(recorder.counts()) == [("s3", "GetObject"), ("s3", "HeadObject")]


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
@awaited
async def test_archived_objects_are_unknown(bucket: Bucket, storage_class: str) -> None:
    def cold(asked: Asked, forward: Forward) -> Answer:
        if asked.method == "GET":
            return error(403, "InvalidObjectState")
        return forward(asked).with_headers(x_amz_storage_class=storage_class)

    answer = bucket.put("p/a", b"cold")
    with Meddler(bucket.server.endpoint, always(cold, "HeadObject", "GetObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert isinstance(await tree.observe("a", None, None), Unknown)
            assert isinstance(
                await tree.observe("a", None, None, reported=promised("a", answer, b"cold")),
                Unknown,
            )
            with pytest.raises(Archived):
                await S3Content(tree.bucket, promised("a", answer, b"cold")).part(0, 4)


@awaited
async def test_a_restored_archive_can_be_read(bucket: Bucket) -> None:
    def restored(asked: Asked, forward: Forward) -> Answer:
        done = 'ongoing-request="false", expiry-date="Fri, 21 Dec 2029 00:00:00 GMT"'
        return forward(asked).with_headers(x_amz_storage_class="GLACIER", x_amz_restore=done)

    def restoring(asked: Asked, forward: Forward) -> Answer:
        return forward(asked).with_headers(
            x_amz_storage_class="GLACIER", x_amz_restore='ongoing-request="true"'
        )

    bucket.put("p/a", b"warm")
    with Meddler(bucket.server.endpoint, always(restored, "HeadObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert isinstance(await tree.observe("a", None, None), Entry)
            meddler.meddle = always(restoring, "HeadObject")
            assert isinstance(await tree.observe("a", None, None), Unknown)


# Touch


@awaited
async def test_a_small_touch_is_a_put_and_a_big_one_a_copy(
    bucket: Bucket, recorder: Recorder
) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        first = await tree.write(small("a", b"x"), None, None)
        recorder.reset()
        touched = await tree.touch(first, small("a", b"x", mtime_ns=5))
        assert touched is not None
        assert list(recorder.counts()) == [("s3", "PutObject")]
        recorder.reset()
        copied = await tree.touch(touched, Entry("a", ("source",), 1, 7, 0o600, touched.crc))
        assert copied is not None
        assert list(recorder.counts()) == [("s3", "CopyObject")]
        (request,) = recorder.requests()
        assert (
            request.headers["if-match"]
            == request.headers["x-amz-copy-source-if-match"]
            == f'"{touched.tag[0]}"'
        )
        there = await seen(tree, "a")
        assert (there.mtime_ns, there.mode, there.tag[:2]) == (7, 0o600, copied.tag[:2])
        tree.conditions = StoreCapabilities(copy=False)
        recorder.reset()
        assert await tree.touch(copied, Entry("a", ("source",), 1, 9, 0o600, touched.crc)) is None
    assert recorder.requests() == []


@awaited
async def test_a_touch_of_what_somebody_replaced_is_a_change(bucket: Bucket) -> None:
    async with opened(bucket) as tree:
        first = await tree.write(small("a", b"x"), None, None)
        bucket.put("p/a", b"somebody else's")
        for source in (small("a", b"x", mtime_ns=5), Entry("a", ("source",), 1, 7, 0o600)):
            with pytest.raises(Changed):
                await tree.touch(first, source)
    assert bucket.get("p/a") == b"somebody else's"


# Stores without conditions


@awaited
async def test_a_store_that_ignores_conditions_is_looked_at_first(bucket: Bucket) -> None:
    weak = StoreCapabilities(put=False, copy=False, delete=False)
    with Meddler(bucket.server.endpoint, unconditional) as meddler:
        async with opened(bucket, meddler.endpoint, conditions=weak) as tree:
            first = await tree.write(small("a", b"x"), None, None)
            bucket.put("p/a", b"somebody else's")
            for expected in (None, first):
                with pytest.raises(Changed):
                    await tree.write(small("a", b"y"), None, expected)
            with pytest.raises(Changed):
                await tree.delete(first)
            assert bucket.get("p/a") == b"somebody else's"
            assert await tree.server_side_copy(first, replace(first, path="b")) is None
            await tree.delete(await seen(tree, "a"))
    assert bucket.keys() == []
    assert not [asked for asked in meddler.asked if "if-none-match" in asked.headers]


@awaited
async def test_without_versions_and_conditions_nothing_is_deleted(bucket: Bucket) -> None:
    suspended = {"Status": "Suspended"}
    bucket.server.client("s3").put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration=suspended
    )
    async with opened(bucket, conditions=StoreCapabilities(delete=False)) as tree:
        there = await tree.write(small("a", b"x"), None, None)
        assert not tree.keeps_versions(there)
        with pytest.raises(PathError) as caught:
            await tree.delete(there)
        assert "versioning" in caught.value.hint
    assert bucket.keys() == ["p/a"]


# Listing, and odd keys

ODD = [
    *(f"ascii {chr(code)}" for code in range(32, 127) if chr(code) != "/"),
    *(f"{chr(code)}first" for code in range(33, 127) if chr(code) not in "/."),
    "  spaces  ", "trailing.", "trailing ", "a+b c%20d%2Bd", "%", "%%", "%2F", "%2f..%2f", "=",
    "a=b&c=d?e#f;g",
    "~", "-", "...", "..a", ".a",
    "\u00fcber", "u\u0308ber", "\u65e5\u672c\u8a9e", "\U0001f980",
    "\u202egnp.exe", "\ufeffbom", "\u00a0", "\u2028",
    "tab\there", "line\nfeed", "carriage\rreturn", "bell\x07",
    "\x01", "\x1b[31mred", "\x7f", "\x85",
    "x" * 255, "/".join(["\u00e9" * 127] * 3),
    "con", "nul.txt", "a:b", "*", "back\\slash", "CaSe", "case",
]  # fmt: skip


@awaited
async def test_every_odd_key_is_itself(bucket: Bucket) -> None:
    async with opened(bucket) as tree:
        written = await asyncio.gather(
            *(tree.write(small(path, path.encode()), None, None) for path in ODD)
        )
        assert bucket.keys() == sorted((f"p/{path}" for path in ODD), key=str.encode)
        listed = list(tree.scan())
        assert [side.path for side in listed] == sorted(ODD, key=str.encode)
        assert {(side.path, side.tag[0]) for side in listed if isinstance(side, Entry)} == {
            (e.path, e.tag[0]) for e in written
        }
        got = await asyncio.gather(*(tree.observe(e.path, None, None, reported=e) for e in written))
        assert [side.body for side in got if isinstance(side, Entry)] == [
            path.encode() for path in ODD
        ]
        unlistable = [e for e in written if re.search(r"[\x00-\x08\x0e-\x1f]", e.path)]
        await asyncio.gather(*(tree.delete(entry) for entry in written if entry not in unlistable))
    assert bucket.keys() == sorted(f"p/{entry.path}" for entry in unlistable)
    for entry in unlistable:  # the emulator's list of versions cannot name them
        bucket.server.client("s3").delete_object(
            Bucket=bucket.name, Key=f"p/{entry.path}", VersionId=entry.tag[1]
        )


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../x", ".", "..", "a//b", "a/./b", "x" * 256, "a\0b", "//"]
)
@awaited
async def test_a_key_that_can_be_no_path_is_never_asked_for(
    bucket: Bucket, recorder: Recorder, path: str
) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        assert isinstance(await tree.observe(path, None, None), Unknown)
    assert recorder.requests() == []


@awaited
async def test_a_scan_names_what_it_refuses_and_hides_what_is_ours(bucket: Bucket) -> None:
    bucket.put("p/")  # the folder itself
    bucket.put("p/" + names.hidden("probe", names.new_nonce()))
    bucket.put("p/sub/" + names.hidden("tmp", names.new_nonce()))
    bucket.put("p/dir/")
    bucket.put("p/content/", b"x")
    bucket.put("p/a//b")
    bucket.put("other/x")
    bucket.put("p")
    async with opened(bucket) as tree:
        listed = {side.path: type(side) for side in tree.scan()}
    assert listed == {"dir/": Entry, "content/": Unknown, "a//b": Unknown}


@awaited
async def test_a_scan_below_a_folder_sees_only_that(bucket: Bucket) -> None:
    for key in ("p/a", "p/a/b", "p/a/c/d", "p/a-", "p/ab/c"):
        bucket.put(key)
    async with opened(bucket) as tree:
        assert [side.path for side in tree.scan("a")] == ["a/b", "a/c/d"]
