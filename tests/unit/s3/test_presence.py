"""Absence is proven by a LIST that succeeds after the 404; a refusal proves nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Absent
from syncloud.errors import PermissionRefused, Unavailable
from tests.support.meddler import Meddler, always, error
from tests.support.store import awaited, opened, promised, small

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.recorder import Recorder


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
    """A bucket's earlier answer proves nothing about a later key: the bucket may be gone."""
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
    with Meddler(
        bucket.server.endpoint,
        always(lambda asked, forward: error(404, "NoSuchBucket"), "GetObject"),
    ) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(Unavailable):
                await tree.observe("a", None, None, reported=promised("a", answer, b"x"))


@pytest.mark.parametrize("refused", ["HeadObject", "ListObjectsV2"])
@awaited
async def test_a_refusal_is_never_absence(bucket: Bucket, refused: str) -> None:
    bucket.put("p/there")
    with Meddler(
        bucket.server.endpoint, always(lambda asked, forward: error(403, "AccessDenied"), refused)
    ) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            with pytest.raises(PermissionRefused):
                await tree.observe("there" if refused == "HeadObject" else "none", None, None)


@awaited
async def test_a_missing_key_is_told_by_list_where_head_is_refused(bucket: Bucket) -> None:
    """S3 says 403 for a missing key to whoever may not list the whole bucket."""
    bucket.put("p/missing-but-longer")
    with Meddler(
        bucket.server.endpoint,
        always(lambda asked, forward: error(403, "AccessDenied"), "HeadObject"),
    ) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert await tree.observe("missing", None, None) == Absent("missing")
