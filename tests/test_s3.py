"""S3Tree over real HTTP: conditions, proofs of absence, verified bytes, multipart, metadata, odd keys, lesser stores."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.aws.session import Aws
from syncloud.core import checksum, names
from syncloud.core.interfaces import Content
from syncloud.core.model import SMALL_BYTES, Absent, Base, Entry, Policy, Unknown
from syncloud.core.work_queue import Work
from syncloud.engine.reconciler import Reconciler
from syncloud.errors import Archived, Changed, Corrupt, PathError, PermissionRefused, SyncloudError, Unavailable, Unsteady
from syncloud.s3 import multipart, objects
from syncloud.s3.capabilities import probe
from syncloud.s3.copies import COPY_MAX_BYTES
from syncloud.s3.objects import StoreCapabilities
from syncloud.s3.transport import Transport
from syncloud.s3.tree import S3Tree
from tests.support.faults import hang_up, late_error, refuse
from tests.support.meddler import Answer, Asked, Forward, Meddler, always, drop, error, once, unconditional
from tests.support.memory import MemoryTree

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.meddler import Meddle
    from tests.support.recorder import Recorder

P = ParamSpec("P")
PREFIX = "p/"
STAMP = 1_700_000_000_123_456_789


def awaited(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """The coroutine `test` as a function that pytest can call."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def scenario() -> None:
            await test(*args, **kwargs)

        asyncio.run(scenario())

    return run


@contextlib.asynccontextmanager
async def opened(bucket: Bucket, endpoint: str = "", **options: Any) -> AsyncIterator[S3Tree]:
    """An S3Tree below PREFIX; `endpoint` is what stands before the emulator."""
    aws = Aws(region="us-east-1", endpoint_url=endpoint or bucket.server.endpoint)
    crt = Transport(aws, bucket.name, transfers=4)
    try:
        yield S3Tree(crt, lambda: aws.client("s3"), bucket=bucket.name, prefix=PREFIX, nonce=NONCE, **options)
    finally:
        await crt.close()
        aws.close()


def small(path: str, body: bytes, *, mtime_ns: int = STAMP, mode: int = 0o640) -> Entry:
    """What a source has read."""
    return Entry(path, ("source",), len(body), mtime_ns, mode, checksum.update(body), body)


def large(path: str, size: int) -> Entry:
    return Entry(path, ("source",), size, STAMP, 0o600)


class Bytes(Content):
    """Content in memory; `verified` is called when the tree asks whether all parts were of one state."""

    def __init__(self, entry: Entry, body: bytes, *, verified: Callable[[], None] = lambda: None) -> None:
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
    return list(bucket.server.client("s3").list_multipart_uploads(Bucket=bucket.name).get("Uploads", []))


# Conditions


@awaited
async def test_a_new_object_is_written_only_where_nothing_is(bucket: Bucket, recorder: Recorder) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        written = await tree.write(small("a", b"first"), None, None)
        assert written.tag[0] == bucket.head("p/a")["ETag"].strip('"')
        assert written.tag[1] == bucket.head("p/a")["VersionId"]
        with pytest.raises(Changed):
            await tree.write(small("a", b"second"), None, None)
    assert bucket.get("p/a") == b"first"
    assert [request.headers.get("if-none-match") for request in recorder.requests()] == ["*", "*"]


@awaited
async def test_an_object_is_replaced_only_as_it_was_expected(bucket: Bucket, recorder: Recorder) -> None:
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
    assert {request.headers.get("if-match") for request in recorder.requests()[1:]} == {f'"{first.tag[0]}"'}


@awaited
async def test_a_race_that_the_store_reports_as_409_is_a_change(bucket: Bucket) -> None:
    def raced(asked: Asked, forward: Forward) -> Answer:
        return error(409, "ConditionalRequestConflict")

    with Meddler(bucket.server.endpoint, always(raced, "PutObject", "DeleteObject", "CopyObject")) as meddler:
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
        # The emulator compares only what it is asked to compare; S3 does so with every checksum that comes.
        headers = asked.headers | {"x-amz-sdk-checksum-algorithm": "CRC64NVME"}
        return forward(replace(asked, headers=headers, body=asked.body[:-1] + bytes([asked.body[-1] ^ 1])))

    with Meddler(bucket.server.endpoint, always(damaged, "PutObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(PathError):
                await tree.write(small("a", b"0123456789"), None, None)
    assert bucket.keys() == []


# A success whose answer is lost


NONCE = "0123456789abcdef"


def reconciler(source: MemoryTree, target: S3Tree, base: Base | None) -> Reconciler:
    async def nothing(_: object) -> list[Base]:
        return []

    return Reconciler(
        source, target, policy=Policy(delete=True), base_of=lambda _: base, renamed_from=nothing, look_again=lambda _: None
    )


@awaited
async def test_our_own_lost_success_is_adopted_and_never_a_conflict(bucket: Bucket) -> None:
    source = MemoryTree("pull")
    source.put("a", b"ours", mtime_ns=STAMP)
    with Meddler(bucket.server.endpoint, once(drop, "PutObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            outcome = await reconciler(source, tree, None).settle(Work("a", 0, 0, 0))
            assert outcome.put is not None
            assert not outcome.conflict
            assert outcome.put.target[:2] == (await seen(tree, "a")).tag[:2]
            assert meddler.names().count("PutObject") == 2
            # The same for an overwrite, whose If-Match no longer holds the second time.
            meddler.meddle = once(drop, "PutObject")
            source.put("a", b"newer", mtime_ns=STAMP)
            again = await reconciler(source, tree, outcome.put).settle(Work("a", 0, 0, 0))
            assert again.put is not None
            assert not again.conflict
    assert bucket.get("p/a") == b"newer"
    assert bucket.keys() == ["p/a"]
    versions = bucket.server.client("s3").list_object_versions(Bucket=bucket.name)["Versions"]
    assert len(versions) == 2


@awaited
async def test_a_lost_answer_to_complete_is_found_to_be_a_success(bucket: Bucket) -> None:
    """The repeated Complete meets an upload that is gone: Changed, and the look after it finds equal bytes."""
    body = bytes(SMALL_BYTES + 5)
    with Meddler(bucket.server.endpoint, once(drop, "CompleteMultipartUpload")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            try:
                await tree.write(large("big", len(body)), Bytes(large("big", len(body)), body), None)
            except Changed:
                there = await tree.with_checksum(await seen(tree, "big"))
                assert (there.size, there.crc) == (len(body), checksum.update(body))
    assert bucket.keys() == ["p/big"]
    assert uploads(bucket) == []


@awaited
async def test_a_lost_answer_to_a_rename_is_adopted(bucket: Bucket) -> None:
    """The repeated copy finds its own first one; so does the upload in its place; the comparison finds equal bytes."""
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
            outcome = await reconciler(source, tree, None).settle(Work("new", 0, 0, 0))
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


@awaited
async def test_404_is_absence_when_the_bucket_answers(bucket: Bucket, recorder: Recorder) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        assert await tree.observe("none", None, None) == Absent("none")
        assert recorder.counts() == {("s3", "HeadObject"): 1, ("s3", "ListObjectsV2"): 1}
        bucket.put("p/deleted", b"x")
        bucket.delete("p/deleted")  # a delete marker: 404 too
        assert await tree.observe("deleted", None, None) == Absent("deleted")


@awaited
async def test_one_proof_serves_all_that_wait_for_it(bucket: Bucket, recorder: Recorder) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        sides = await asyncio.gather(*(tree.observe(f"none{i}", None, None) for i in range(40)))
        assert all(isinstance(side, Absent) for side in sides)
        assert recorder.counts()["s3", "HeadObject"] == 40
        assert recorder.counts()["s3", "ListObjectsV2"] < 20


@awaited
async def test_a_proof_is_of_its_own_time(bucket: Bucket, recorder: Recorder) -> None:
    """What the bucket answered before a key was asked for says nothing of the answer: it may have gone in between."""
    async with opened(bucket, recorder.endpoint) as tree:
        for number in range(3):
            assert await tree.observe(f"none{number}", None, None) == Absent(f"none{number}")
            assert recorder.counts()["s3", "ListObjectsV2"] == number + 1


@awaited
async def test_404_of_a_bucket_that_is_gone_proves_nothing(bucket: Bucket) -> None:
    s3 = bucket.server.client("s3")
    async with opened(bucket) as tree:
        there = await tree.write(small("a", b"x"), None, None)
        for version in s3.list_object_versions(Bucket=bucket.name)["Versions"]:
            s3.delete_object(Bucket=bucket.name, Key=version["Key"], VersionId=version["VersionId"])
        s3.delete_bucket(Bucket=bucket.name)
        try:
            for reported in (None, there):
                with pytest.raises(Unavailable):
                    await tree.observe("a", None, None, reported=reported)
            with pytest.raises(Unavailable):
                await tree.write(small("a", b"y"), None, there)
            with pytest.raises(Unavailable):
                await tree.delete(there)
            with pytest.raises(Unavailable):
                list(tree.scan())
        finally:
            s3.create_bucket(Bucket=bucket.name)


@awaited
async def test_no_such_bucket_is_never_absence_whatever_a_listing_says(bucket: Bucket) -> None:
    answer = bucket.put("p/a", b"x")
    with Meddler(bucket.server.endpoint, always(lambda asked, forward: error(404, "NoSuchBucket"), "GetObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(Unavailable):
                await tree.observe("a", None, None, reported=promised("a", answer, b"x"))


@pytest.mark.parametrize("refused", ["HeadObject", "ListObjectsV2"])
@awaited
async def test_a_refusal_is_never_absence(bucket: Bucket, refused: str) -> None:
    bucket.put("p/there")
    with Meddler(bucket.server.endpoint, always(lambda asked, forward: error(403, "AccessDenied"), refused)) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(PermissionRefused):
                await tree.observe("there" if refused == "HeadObject" else "none", None, None)


@awaited
async def test_a_missing_key_is_told_by_list_where_head_is_refused(bucket: Bucket) -> None:
    """S3 says 403 for a missing key to whoever may not list the whole bucket."""
    bucket.put("p/missing-but-longer")
    with Meddler(bucket.server.endpoint, always(lambda asked, forward: error(403, "AccessDenied"), "HeadObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert await tree.observe("missing", None, None) == Absent("missing")


@pytest.mark.parametrize("etag", ["", "x\r\nx-amz-evil: 1", "\ud800"])
@awaited
async def test_a_promise_without_an_etag_that_can_be_asked_for_leads_to_a_head(bucket: Bucket, etag: str) -> None:
    bucket.put("p/a", b"x")
    with Meddler(bucket.server.endpoint, lambda asked, forward: forward(asked)) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            if etag:
                with pytest.raises(PathError, match="if-match"):
                    await tree.observe("a", None, None, reported=Entry("a", (etag, "", ""), 1, 0, 0))
                assert meddler.asked == []
            else:
                side = await tree.observe("a", None, None, reported=Entry("a", (etag, "", ""), 1, 0, 0))
                assert isinstance(side, Entry)
                assert meddler.names() == ["HeadObject"]


@awaited
async def test_an_odd_row_of_a_listing_spoils_no_other(bucket: Bucket) -> None:
    for key in ("p/a", "p/b", "p/c"):
        bucket.put(key, b"x")

    def odd(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        begin, row, end = answer.body.partition(b"<Key>p/b</Key>")
        etag = re.sub(rb"<ETag>.*?</ETag>", b"<ETag>x&#13;&#10;x-amz-evil: 1</ETag>", end, count=1)
        more = b"<Contents><Key>p/b2</Key></Contents><Contents><Key>p/%FF</Key><Size>1</Size></Contents></ListBucketResult>"
        return replace(answer, body=begin + row + etag.replace(b"</ListBucketResult>", more))

    with Meddler(bucket.server.endpoint, always(odd, "ListObjectsV2")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            sides = await asyncio.to_thread(lambda: list(tree.scan()))
            assert [type(side) for side in sides] == [Entry, Entry, Unknown, Entry]
            assert [side.path for side in sides] == ["a", "b", "b2", "c"]
            for side in sides:
                if isinstance(side, Entry):
                    assert isinstance(await tree.observe(side.path, None, None, reported=side), Entry)


@awaited
async def test_an_absence_that_an_event_promises_is_looked_at(bucket: Bucket) -> None:
    bucket.put("p/a", b"there again")
    async with opened(bucket) as tree:
        side = await tree.observe("a", None, None, reported=Absent("a"))
        assert isinstance(side, Entry)
        assert side.size == len(b"there again")


@awaited
async def test_an_empty_page_by_error_is_no_listing(bucket: Bucket) -> None:
    bucket.put("p/a")
    with Meddler(bucket.server.endpoint, always(lambda asked, forward: error(503, "SlowDown"), "ListObjectsV2")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(Unavailable):
                list(tree.scan())


# Reading


@awaited
async def test_a_promised_small_object_is_got_in_one_pinned_request(bucket: Bucket, recorder: Recorder) -> None:
    answer = bucket.put("p/a", b"bytes", mtime="1.5", mode="0600")
    async with opened(bucket, recorder.endpoint) as tree:
        side = await tree.observe("a", None, None, reported=promised("a", answer, b"bytes"))
        assert isinstance(side, Entry)
        assert (side.body, side.crc, side.mtime_ns, side.mode) == (b"bytes", checksum.update(b"bytes"), 1_500_000_000, 0o600)
        assert side.tag[1] == answer["VersionId"]
    (request,) = recorder.requests()
    assert (request.operation, request.headers["if-match"]) == ("GetObject", answer["ETag"])


@awaited
async def test_another_object_than_promised_is_headed_first(bucket: Bucket, recorder: Recorder) -> None:
    """What was promised small may be huge by now."""
    old = bucket.put("p/a", b"old")
    bucket.put("p/a", b"a newer one")
    async with opened(bucket, recorder.endpoint) as tree:
        side = await tree.observe("a", None, None, reported=promised("a", old, b"old"))
        assert isinstance(side, Entry)
        assert side.body is None
        assert side.size == len(b"a newer one")
    assert list(recorder.counts()) == [("s3", "GetObject"), ("s3", "HeadObject")]


@awaited
async def test_an_echo_of_the_base_asks_nothing(bucket: Bucket, recorder: Recorder) -> None:
    async with opened(bucket, recorder.endpoint) as tree:
        written = await tree.write(small("a", b"x"), None, None)
        base = Base("a", written.tag, ("local",), 1, STAMP, 0o640, written.crc)
        recorder.reset()
        echo = Entry("a", written.tag, 1, 0, 0)
        side = await tree.observe("a", base, base.source, reported=echo)
        assert side == Entry("a", written.tag, 1, STAMP, 0o640, written.crc)
    assert recorder.requests() == []


@awaited
async def test_a_touch_keeps_the_etag_and_costs_a_head(bucket: Bucket, recorder: Recorder) -> None:
    first = bucket.put("p/a", b"same", mtime="1")
    second = bucket.put("p/a", b"same", mtime="2")
    assert first["ETag"] == second["ETag"]
    async with opened(bucket, recorder.endpoint) as tree:
        known = objects.tag_of(first["ETag"], first["VersionId"], "1")
        base = Base("a", known, ("local",), 4, 10**9, 0o644, checksum.update(b"same"))
        reported = Entry("a", objects.tag_of(second["ETag"], second["VersionId"]), 4, 0, 0)
        side = await tree.observe("a", base, known, reported=reported)
        assert isinstance(side, Entry)
        assert (side.mtime_ns, side.crc) == (2 * 10**9, base.crc)
    assert list(recorder.counts()) == [("s3", "HeadObject")]


@awaited
async def test_parts_are_pinned_to_the_version_that_was_seen(bucket: Bucket) -> None:
    async with opened(bucket) as tree:
        first = await tree.write(small("a", b"0123456789"), None, None)
        content = await tree.open(first)
        assert b"".join(await content.part(2, 3)) == b"234"
        bucket.put("p/a", b"9876543210")
        with pytest.raises(Changed):
            await content.part(5, 3)
        bucket.delete("p/a")
        with pytest.raises(Changed):
            await content.part(5, 3)
        content.close()


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
    """If-Match and Range are asked for; a store may ignore them, and a cache on the way may have something else."""
    with Meddler(bucket.server.endpoint, told) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            first = await tree.write(small("a", b"0123456789"), None, None)
            with pytest.raises(wrong) as caught:
                await tree.part(first, 2, 3)
            assert caught.value.path == "a"
            meddler.meddle = as_told(etag="")
            assert b"".join(await tree.part(first, 2, 3)) == b"234", "what is not said contradicts nothing"
            meddler.meddle = as_told(content_range="bytes 2-4/*")
            assert b"".join(await tree.part(first, 2, 3)) == b"234"


@awaited
async def test_a_whole_of_another_object_or_a_part_of_it_is_its_paths_failure(bucket: Bucket) -> None:
    with Meddler(bucket.server.endpoint, as_told(etag='"another"')) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            first = await tree.write(small("a", b"0123456789"), None, None)
            with pytest.raises(Changed):
                await tree.part(first, 0, 10)
            for status in (203, 206):
                meddler.meddle = as_told(status)
                with pytest.raises(Corrupt):
                    await tree.part(first, 0, 10)
                with pytest.raises(Corrupt):
                    await tree.observe("a", None, None, reported=first)


@awaited
async def test_an_empty_object_can_be_read_whole(bucket: Bucket) -> None:
    async with opened(bucket) as tree:
        written = await tree.write(small("a", b""), None, None)
        assert b"".join(await (await tree.open(written)).part(0, 0)) == b""
        side = await tree.observe("a", None, None, reported=written)
        assert isinstance(side, Entry)
        assert side.body == b""
        assert side.crc == 0


def flipped(asked: Asked, forward: Forward) -> Answer:
    answer = forward(asked)
    return replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1])) if answer.body else answer


@awaited
async def test_corrupted_bytes_of_the_right_length_are_refused(bucket: Bucket) -> None:
    with Meddler(bucket.server.endpoint, always(flipped, "GetObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            written = await tree.write(small("a", b"0123456789"), None, None)
            with pytest.raises(Corrupt):
                await tree.observe("a", None, None, reported=written)
            content = await tree.open(written)
            crc = checksum.of(await content.part(0, 10))
            with pytest.raises(Corrupt):
                await content.verify(crc)


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
            assert isinstance(await tree.observe("a", None, None, reported=promised("a", answer, b"cold")), Unknown)
            with pytest.raises(Archived):
                await tree.part(promised("a", answer, b"cold"), 0, 4)


@awaited
async def test_a_restored_archive_can_be_read(bucket: Bucket) -> None:
    def restored(asked: Asked, forward: Forward) -> Answer:
        done = 'ongoing-request="false", expiry-date="Fri, 21 Dec 2029 00:00:00 GMT"'
        return forward(asked).with_headers(x_amz_storage_class="GLACIER", x_amz_restore=done)

    def restoring(asked: Asked, forward: Forward) -> Answer:
        return forward(asked).with_headers(x_amz_storage_class="GLACIER", x_amz_restore='ongoing-request="true"')

    bucket.put("p/a", b"warm")
    with Meddler(bucket.server.endpoint, always(restored, "HeadObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert isinstance(await tree.observe("a", None, None), Entry)
            meddler.meddle = always(restoring, "HeadObject")
            assert isinstance(await tree.observe("a", None, None), Unknown)


# Multipart


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


BIG = b"".join(bytes([i]) * 2**20 for i in range(9)) + b"end"


@awaited
async def test_a_large_object_carries_its_condition_on_complete_alone(bucket: Bucket, recorder: Recorder) -> None:
    entry = large("big", len(BIG))
    async with opened(bucket, recorder.endpoint) as tree:
        written = await tree.write(entry, Bytes(entry, BIG), None)
        assert bucket.get("p/big") == BIG
        assert written.crc == checksum.update(BIG)
        there = await seen(tree, "big")
        assert (there.tag[:2], there.size, there.mtime_ns, there.mode) == (written.tag[:2], len(BIG), STAMP, 0o600)
        assert (await tree.with_checksum(there)).crc == checksum.update(BIG)
        await tree.write(entry, Bytes(entry, BIG), written)
        with pytest.raises(Changed):
            await tree.write(entry, Bytes(entry, BIG), replace(written, tag=("0" * 32 + "-2", "", "")))
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
            assert isinstance(caught.value, PermissionRefused if code == "AccessDenied" else PathError)
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
async def test_a_completion_may_take_longer_than_other_requests(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
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
        told = b"<ChecksumCRC64NVME>AAAAAAAAAAA=-2</ChecksumCRC64NVME></CompleteMultipartUploadResult>"
        body = re.sub(rb"<ChecksumCRC64NVME>.*?</ChecksumCRC64NVME>", b"", answer.body)
        return replace(answer, body=body.replace(b"</CompleteMultipartUploadResult>", told))

    def composite_head(asked: Asked, forward: Forward) -> Answer:
        if asked.name == "CompleteMultipartUpload":
            return composite(asked, forward)
        return forward(asked).with_headers(x_amz_checksum_crc64nvme="AAAAAAAAAAA=-2")

    entry = large("big", len(BIG))
    with Meddler(bucket.server.endpoint, always(composite_head, "CompleteMultipartUpload", "HeadObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            written = await tree.write(entry, Bytes(entry, BIG), None)
            assert written.crc == checksum.update(BIG)
            there = await seen(tree, "big")
            assert there.crc is None
            assert (await tree.with_checksum(there)).crc == checksum.update(BIG)  # by reading it all


@awaited
async def test_more_than_memory_is_for_goes_through_the_same_buffers(bucket: Bucket) -> None:
    """Each of ten parts is another, one is sent twice, and the last is short."""
    body = (
        b"".join(bytes([number]) * SMALL_BYTES for number in range(multipart.MAX_IN_FLIGHT_BYTES // SMALL_BYTES + 2)) + b"end"
    )
    entry = large("big", len(body))
    with Meddler(bucket.server.endpoint, once(lambda asked, forward: error(503, "SlowDown"), "UploadPart")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert (await tree.write(entry, Bytes(entry, body), None)).crc == checksum.update(body)
    assert bucket.get("p/big") == body


@awaited
async def test_a_checksum_of_the_whole_that_differs_is_corruption(bucket: Bucket) -> None:
    def wrong(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        told = b"<ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME></CompleteMultipartUploadResult>"
        body = re.sub(rb"<ChecksumCRC64NVME>.*?</ChecksumCRC64NVME>", b"", answer.body)
        return replace(answer, body=body.replace(b"</CompleteMultipartUploadResult>", told))

    entry = large("big", len(BIG))
    with Meddler(bucket.server.endpoint, always(wrong, "CompleteMultipartUpload")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(Corrupt):
                await tree.write(entry, Bytes(entry, BIG), None)


def keeps_whole_checksums(asked: Asked, forward: Forward) -> Answer:
    """A store that promises a checksum of the whole and compares it before it commits; a byte turns on the way of a part."""
    if asked.name == "CreateMultipartUpload":
        return forward(asked).with_headers(x_amz_checksum_type=asked.headers.get("x-amz-checksum-type", "COMPOSITE"))
    if asked.name == "UploadPart" and "partNumber=1&" in asked.target:
        answer = forward(replace(asked, headers=_without_checksum(asked.headers), body=b"\xff" + asked.body[1:]))
        return replace(answer, headers=_without_checksum(answer.headers))
    if asked.name == "CompleteMultipartUpload":
        sent = checksum.decode(asked.headers.get(checksum.HEADER, ""))
        turned = checksum.update(b"\xff" + BIG[1:])
        assert asked.headers.get("x-amz-mp-object-size", str(len(BIG))) == str(len(BIG))
        if sent is not None and sent != turned:
            return error(400, "BadDigest")
    return forward(asked)


def _without_checksum(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith("x-amz-checksum-")}


@awaited
async def test_wrong_bytes_are_refused_before_anybody_can_read_them(bucket: Bucket) -> None:
    """A store that keeps checksums of whole objects is told ours with the completion, not asked for its own after it."""
    entry = large("big", len(BIG))
    with Meddler(bucket.server.endpoint, keeps_whole_checksums) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(PathError, match="BadDigest"):
                await tree.write(entry, Bytes(entry, BIG), None)
    assert bucket.keys() == []
    assert uploads(bucket) == []


@awaited
async def test_a_part_of_which_the_store_has_another_checksum_is_never_committed(bucket: Bucket) -> None:
    entry = large("big", len(BIG))
    wrong = always(lambda asked, forward: forward(asked).with_headers(x_amz_checksum_crc64nvme="AAAAAAAAAAA="), "UploadPart")
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
async def test_without_checksums_nothing_of_them_is_sent(bucket: Bucket, recorder: Recorder) -> None:
    entry = large("big", len(BIG))
    async with opened(bucket, recorder.endpoint, sends_checksum=False) as tree:
        await tree.write(small("a", b"x"), None, None)
        await tree.write(entry, Bytes(entry, BIG), None)
    sent = [request for request in recorder.requests() if request.method in ("PUT", "POST")]
    assert not [name for request in sent for name in request.headers if name.startswith("x-amz-checksum-crc64")]
    assert bucket.get("p/big") == BIG


# Touch, duplicate, set aside


@awaited
async def test_a_small_touch_is_a_put_and_a_big_one_a_copy(bucket: Bucket, recorder: Recorder) -> None:
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
        assert request.headers["if-match"] == request.headers["x-amz-copy-source-if-match"] == f'"{touched.tag[0]}"'
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


@awaited
async def test_a_copy_above_5_gib_is_not_tried(bucket: Bucket, recorder: Recorder) -> None:
    huge = Entry("huge", ("0" * 32, "", ""), COPY_MAX_BYTES + 1, 1, 0o644)
    async with opened(bucket, recorder.endpoint) as tree:
        assert await tree.touch(huge, replace(huge, mtime_ns=2)) is None
        assert await tree.server_side_copy(huge, replace(huge, path="other")) is None
    assert recorder.requests() == []


def obeys_copy(asked: Asked, forward: Forward) -> Answer | None:
    """A store that obeys conditions on CopyObject, which the emulator does not."""
    plain = {name: value for name, value in asked.headers.items() if name in ("host", "authorization", "x-amz-date")}
    there = forward(replace(asked, method="HEAD", headers=plain))
    wanted = asked.headers.get("if-match", there.headers.get("etag"))
    if (asked.headers.get("if-none-match") == "*" and there.status == 200) or wanted != there.headers.get("etag"):
        return error(412, "PreconditionFailed")
    return forward(asked)


@pytest.mark.parametrize("path", ["to", "sub dir/\u00fc +%=&?#~'\"<>\\"])
@awaited
async def test_a_rename_is_a_copy_at_the_server(bucket: Bucket, path: str) -> None:
    with Meddler(bucket.server.endpoint, always(obeys_copy, "CopyObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            origin = await tree.write(small(f"from {path}", b"moved"), None, None)
            made = await tree.server_side_copy(origin, Entry(path, ("source",), 5, 77, 0o604, origin.crc))
            assert made is not None
            assert made.crc == origin.crc
            there = await seen(tree, path)
            assert (there.tag[:2], there.mtime_ns, there.mode) == (made.tag[:2], 77, 0o604)
            # Occupied: nothing is overwritten.
            assert await tree.server_side_copy(origin, Entry(path, ("source",), 5, 88, 0o604, origin.crc)) is None
            assert (await seen(tree, path)).mtime_ns == 77
            # The origin is another object now: nothing is copied.
            bucket.put(f"p/from {path}", b"other")
            assert await tree.server_side_copy(origin, Entry("third", ("source",), 5, 77, 0o604, origin.crc)) is None
            bucket.delete(f"p/from {path}")
            assert await tree.server_side_copy(origin, Entry("third", ("source",), 5, 77, 0o604, origin.crc)) is None
            assert await tree.observe("third", None, None) == Absent("third")
    assert bucket.get(f"p/{path}") == b"moved"


@pytest.mark.parametrize("copies", [True, False])
@awaited
async def test_what_is_set_aside_keeps_bytes_and_metadata(bucket: Bucket, copies: bool) -> None:
    bucket.put("p/dir/a.txt", b"somebody's", mtime="12.5", mode="0600")
    with Meddler(bucket.server.endpoint, always(obeys_copy, "CopyObject")) as meddler:
        async with opened(bucket, meddler.endpoint, conditions=StoreCapabilities(copy=copies)) as tree:
            there = await seen(tree, "dir/a.txt")
            aside, same = await tree.keep_conflict_copy(there)
            more = {(await tree.keep_conflict_copy(there))[0] for _ in range(3)}  # within one second: a counter
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


# Copies are an optimisation


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
async def test_where_the_store_makes_no_copy_the_bytes_travel(bucket: Bucket, meddle: Meddle) -> None:
    with Meddler(bucket.server.endpoint, always(meddle, "CopyObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            first = await tree.write(large("big", len(BIG)), Bytes(large("big", len(BIG)), BIG), None)
            assert await tree.touch(first, replace(first, mtime_ns=2)) is None
            assert await tree.server_side_copy(first, replace(first, path="other")) is None


@pytest.mark.parametrize("meddle", REFUSALS)
@pytest.mark.parametrize("body", [b"somebody's", BIG], ids=["small", "large"])
@awaited
async def test_a_conflict_copy_is_kept_although_the_store_makes_none(bucket: Bucket, meddle: Meddle, body: bytes) -> None:
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
    with Meddler(bucket.server.endpoint, always(refuse(403, "AccessDenied"), "CreateMultipartUpload")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(PermissionRefused):
                await tree.keep_conflict_copy(huge)
    assert meddler.names() == ["CreateMultipartUpload"]


@pytest.mark.parametrize("copies", [True, False])
@awaited
async def test_a_condition_that_never_holds_is_not_tried_for_ever(bucket: Bucket, copies: bool) -> None:
    """As behind something that changes ETags in one direction."""
    bucket.put("p/a", b"somebody's")
    refused = always(refuse(412, "PreconditionFailed"), "CopyObject", "PutObject")
    with Meddler(bucket.server.endpoint, refused) as meddler:
        async with opened(bucket, meddler.endpoint, conditions=StoreCapabilities(copy=copies)) as tree:
            there = await seen(tree, "a")
            with pytest.raises(PathError, match="not kept under a conflict name") as failed:
                await tree.keep_conflict_copy(there)
    assert not isinstance(failed.value, Changed)
    assert len(meddler.names()) < 40


def weakened(asked: Asked, forward: Forward) -> Answer | None:
    """Something on the way that compresses, and calls what it sends on weakly equal."""
    answer = forward(asked)
    return answer.with_headers(etag="W/" + answer.headers["etag"]) if "etag" in answer.headers else answer


@awaited
async def test_an_etag_that_was_made_weak_on_its_way_is_the_stores(bucket: Bucket) -> None:
    bucket.put("p/a", b"theirs")
    with Meddler(bucket.server.endpoint, weakened) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            there = await seen(tree, "a")
            await tree.write(small("a", b"ours"), None, there)
            entry = large("big", len(BIG))
            first = await tree.write(entry, Bytes(entry, BIG), None)
            assert b"".join(await tree.part(first, 0, 1000)) == BIG[:1000]
            await tree.delete(await seen(tree, "big"))
    assert bucket.get("p/a") == b"ours"


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
    bucket.server.client("s3").put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=suspended)
    async with opened(bucket, conditions=StoreCapabilities(delete=False)) as tree:
        there = await tree.write(small("a", b"x"), None, None)
        assert not tree.keeps_versions(there)
        with pytest.raises(PathError) as caught:
            await tree.delete(there)
        assert "versioning" in caught.value.hint
    assert bucket.keys() == ["p/a"]


async def probed(bucket: Bucket, endpoint: str) -> StoreCapabilities:
    aws = Aws(region="us-east-1", endpoint_url=endpoint)
    crt = Transport(aws, bucket.name, transfers=2)
    try:
        return await probe(crt, bucket.name, PREFIX)
    finally:
        await crt.close()
        aws.close()


def refused(asked: Asked, forward: Forward, *, answer: Answer) -> Answer | None:
    return answer


def unimplemented(asked: Asked, forward: Forward) -> Answer | None:
    if "if-match" in asked.headers or "if-none-match" in asked.headers:
        return error(501, "NotImplemented")
    return forward(asked)


def creates_only(asked: Asked, forward: Forward) -> Answer | None:
    """A store that obeys If-None-Match and ignores If-Match."""
    return unconditional(asked, forward) if "if-match" in asked.headers else forward(asked)


@awaited
async def test_the_probe_finds_out_what_is_obeyed(bucket: Bucket) -> None:
    assert await probed(bucket, bucket.server.endpoint) == StoreCapabilities(put=True, copy=False, delete=True)
    nothing = StoreCapabilities(put=False, complete=False, copy=False, delete=False)
    for meddle, expected in (
        (unconditional, nothing),
        (unimplemented, nothing),
        (always(obeys_copy, "CopyObject"), StoreCapabilities()),
        (always(unconditional, "DeleteObject", "CopyObject"), StoreCapabilities(copy=False, delete=False)),
        (always(unconditional, "CompleteMultipartUpload"), StoreCapabilities(complete=False, copy=False)),
        (always(creates_only, "PutObject"), nothing),
    ):
        with Meddler(bucket.server.endpoint, meddle) as meddler:
            assert await probed(bucket, meddler.endpoint) == expected
    assert bucket.keys() == []


@awaited
async def test_a_probe_without_a_bucket_or_a_permission_says_so(bucket: Bucket) -> None:
    """What cannot be found out is not taken for a store without conditions."""

    for code, status, kind in (("AccessDenied", 403, PermissionRefused), ("NoSuchBucket", 404, Unavailable)):
        refuse = functools.partial(refused, answer=error(status, code))
        for name in ("PutObject", "CopyObject"):
            with Meddler(bucket.server.endpoint, always(refuse, name)) as meddler, pytest.raises(kind):
                await probed(bucket, meddler.endpoint)
    assert bucket.keys() == []


CONDITIONAL = ("PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "DeleteObject")
PAGE = Answer(200, {"content-type": "text/html"}, b"<html>Welcome! Please accept our terms.<br></html>")


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize(
    "answer",
    [error(400, "InvalidRequest"), error(400, ""), error(405, "MethodNotAllowed"), error(409, "OperationAborted"), PAGE],
    ids=["400", "400 of nobody", "405", "409", "a portal's page"],
)
@awaited
async def test_an_answer_that_is_not_about_the_condition_says_nothing_about_the_store(
    bucket: Bucket, name: str, answer: Answer
) -> None:
    """What the probe finds out is believed for as long as the state lasts."""
    if answer is PAGE and name == "DeleteObject":
        return  # a success of DELETE has nothing by which it could be known; the other five come first
    refuse = functools.partial(refused, answer=answer)
    meddle = always(refuse, name)
    if name == "DeleteObject":
        meddle = only_under_a_condition(refuse)
    with Meddler(bucket.server.endpoint, meddle) as meddler, pytest.raises(Unavailable):
        await probed(bucket, meddler.endpoint)


def only_under_a_condition(meddle: Meddle) -> Meddle:
    """`meddle` for a DELETE that has one."""

    def chosen(asked: Asked, forward: Forward) -> Answer | None:
        conditional = asked.name == "DeleteObject" and "if-match" in asked.headers
        return meddle(asked, forward) if conditional else forward(asked)

    return chosen


@awaited
async def test_a_condition_that_is_not_implemented_may_be_told_under_any_status(bucket: Bucket) -> None:
    def unknown(asked: Asked, forward: Forward) -> Answer | None:
        answer = unimplemented(asked, forward)
        return error(400, "NotImplemented") if answer is not None and answer.status == 501 else answer

    with Meddler(bucket.server.endpoint, unknown) as meddler:
        assert await probed(bucket, meddler.endpoint) == StoreCapabilities(put=False, complete=False, copy=False, delete=False)


@awaited
async def test_a_probe_needs_no_permission_to_delete(bucket: Bucket) -> None:
    """A push that never deletes does without; the trial objects stay, under names that every pull ignores."""

    def refuse(asked: Asked, forward: Forward) -> Answer:
        return error(403, "AccessDenied")

    with Meddler(bucket.server.endpoint, always(refuse, "DeleteObject")) as meddler:
        found = await probed(bucket, meddler.endpoint)
    assert found == StoreCapabilities(copy=False, delete=False)
    assert found.untried
    assert "DELETE" not in found.limitations, "nothing is known of it"
    left = bucket.keys()
    assert len(left) == 2  # one for the completion of multipart uploads, one for all else
    assert all(map(names.is_hidden, left))


# Metadata


@pytest.mark.parametrize("mtime_ns", [STAMP, 0, 1, -1, -(10**9) - 1, 4_102_444_800_000_000_001])
@pytest.mark.parametrize("mode", [0o000, 0o644, 0o777])
@awaited
async def test_mtime_and_mode_travel_exactly(bucket: Bucket, mtime_ns: int, mode: int) -> None:
    async with opened(bucket) as tree:
        await tree.write(small("a", b"x", mtime_ns=mtime_ns, mode=mode), None, None)
        there = await seen(tree, "a")
        assert (there.mtime_ns, there.mode) == (mtime_ns, mode)


@given(st.integers(min_value=-(2**31) * 10**9, max_value=2**63 - 1))
def test_any_mtime_survives_its_text(mtime_ns: int) -> None:
    assert objects.parse_mtime(objects.format_mtime(mtime_ns)) == mtime_ns


@pytest.mark.parametrize(
    "text",
    ["", "nan", "inf", "1e9", "-", ".", "1.", "1,5", "0x10", " 1", "1\n", "\u0661", "1_0", "9223372036.854775808", "9" * 400],
)
def test_a_hostile_mtime_is_none(text: str) -> None:
    assert objects.parse_mtime(text) is None


@pytest.mark.parametrize("mode", ["", "rw-r--r--", "-1", "0o644", "9999", "77777777777", "644 ", "\u0667\u0667\u0667"])
def test_a_hostile_mode_is_the_default(mode: str) -> None:
    assert objects.entry_of("a", {"etag": '"e"', "x-amz-meta-mode": mode}, b"", NONCE).mode == objects.DEFAULT_MODE


def test_a_mode_gives_no_special_bits() -> None:
    for told in ("104755", "4755", "2755", "1755"):  # rclone writes the whole st_mode
        assert objects.entry_of("a", {"etag": '"e"', "x-amz-meta-mode": told}, b"", NONCE).mode == 0o755


@awaited
async def test_an_object_without_our_metadata_has_the_time_of_its_upload(bucket: Bucket) -> None:
    bucket.put("p/a", b"x", mtime="next tuesday", mode="all of them", other="\t")
    async with opened(bucket) as tree:
        there = await seen(tree, "a")
        assert there.mtime_ns == int(bucket.head("p/a")["LastModified"].timestamp()) * 10**9
        assert there.mode == objects.DEFAULT_MODE


# Listing, and odd keys

ODD = [
    *(f"ascii {chr(code)}" for code in range(32, 127) if chr(code) != "/"),
    *(f"{chr(code)}first" for code in range(33, 127) if chr(code) not in "/."),
    "  spaces  ", "trailing.", "trailing ", "a+b c%20d%2Bd", "%", "%%", "%2F", "%2f..%2f", "=", "a=b&c=d?e#f;g",
    "~", "-", "...", "..a", ".a",
    "\u00fcber", "u\u0308ber", "\u65e5\u672c\u8a9e", "\U0001f980", "\u202egnp.exe", "\ufeffbom", "\u00a0", "\u2028",
    "tab\there", "line\nfeed", "carriage\rreturn", "bell\x07", "\x01", "\x1b[31mred", "\x7f", "\x85",
    "x" * 255, "/".join(["\u00e9" * 127] * 3), "con", "nul.txt", "a:b", "*", "back\\slash", "CaSe", "case",
]  # fmt: skip


@awaited
async def test_every_odd_key_is_itself(bucket: Bucket) -> None:
    async with opened(bucket) as tree:
        written = await asyncio.gather(*(tree.write(small(path, path.encode()), None, None) for path in ODD))
        assert bucket.keys() == sorted((f"p/{path}" for path in ODD), key=str.encode)
        listed = list(tree.scan())
        assert [side.path for side in listed] == sorted(ODD, key=str.encode)
        assert {(side.path, side.tag[0]) for side in listed if isinstance(side, Entry)} == {(e.path, e.tag[0]) for e in written}
        got = await asyncio.gather(*(tree.observe(e.path, None, None, reported=e) for e in written))
        assert [side.body for side in got if isinstance(side, Entry)] == [path.encode() for path in ODD]
        unlistable = [e for e in written if re.search(r"[\x00-\x08\x0e-\x1f]", e.path)]
        await asyncio.gather(*(tree.delete(entry) for entry in written if entry not in unlistable))
    assert bucket.keys() == sorted(f"p/{entry.path}" for entry in unlistable)
    for entry in unlistable:  # the emulator's list of versions cannot name them
        bucket.server.client("s3").delete_object(Bucket=bucket.name, Key=f"p/{entry.path}", VersionId=entry.tag[1])


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../x", ".", "..", "a//b", "a/./b", "x" * 256, "a\0b", "//"])
@awaited
async def test_a_key_that_can_be_no_path_is_never_asked_for(bucket: Bucket, recorder: Recorder, path: str) -> None:
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


def page(bucket: Bucket, keys: list[str], more: str = "") -> Answer:
    rows = "".join(
        f"<Contents><Key>{quote(key, safe='/')}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"{"0" * 32}"</ETag><Size>1</Size></Contents>'
        for key in keys
    )
    next_page = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    body = (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket.name}</Name><EncodingType>url</EncodingType><KeyCount>{len(keys)}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{next_page}{rows}</ListBucketResult>"
    )
    return Answer(200, {"content-type": "application/xml"}, body.encode())


@awaited
async def test_a_listing_out_of_order_is_sorted(bucket: Bucket) -> None:
    pages = [page(bucket, ["p/b", "p/a"], "one"), page(bucket, ["p/z", "p/c"], "two"), page(bucket, ["p/d", "p/x"])]

    def walked(asked: Asked, forward: Forward) -> Answer:
        token = re.search(r"continuation-token=(\w+)", asked.target)
        return pages[{"": 0, "one": 1, "two": 2}[token[1] if token else ""]]

    with Meddler(bucket.server.endpoint, always(walked, "ListObjectsV2")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            found = [side.path for side in tree.scan()]
    # Nothing is missing or doubled. What was handed out before the disorder showed (z) cannot be taken back.
    assert found == ["a", "b", "c", "z", "d", "x"]
