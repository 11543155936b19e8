"""A trial: one byte of any object is enough, and the trial object is deleted again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import Overlong, PermissionRefused, Unavailable
from syncloud.s3 import trial
from syncloud.s3.trial import gives, takes
from tests.support.meddler import Answer, Asked, Forward, Meddler, always, error
from tests.support.store import awaited, opened

if TYPE_CHECKING:
    from syncloud.s3.response import Response
    from tests.support.emulator import Bucket


@awaited
async def test_a_store_gives_where_the_first_byte_of_any_comes(bucket: Bucket) -> None:
    for key, body in (("p/empty", b""), ("p/large", bytes(1_000_000))):
        bucket.put(key, body)
    with Meddler(bucket.server.endpoint, lambda asked, forward: forward(asked)) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert not await gives(tree.bucket.send, [])
            assert not await gives(tree.bucket.send, ["none", "missing"])
            assert await gives(tree.bucket.send, ["none", "large", "never asked for"])
            assert await gives(tree.bucket.send, ["empty"]), "an empty object has no first byte"
    assert len(meddler.asked) == 5
    assert {asked.headers["range"] for asked in meddler.asked} == {"bytes=0-0"}


@awaited
async def test_a_refusal_of_one_object_is_none_of_the_others(bucket: Bucket) -> None:
    def refuse(asked: Asked, forward: Forward) -> Answer:
        return error(403, "AccessDenied") if "/closed" in asked.target else forward(asked)

    bucket.put("p/open", b"x")
    with Meddler(bucket.server.endpoint, always(refuse, "GetObject")) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert not await gives(tree.bucket.send, ["closed"])
            assert await gives(tree.bucket.send, ["closed", "open"])


@awaited
async def test_what_is_put_for_a_trial_goes_again_where_that_is_allowed(bucket: Bucket) -> None:
    async with opened(bucket) as tree:
        assert await takes(tree.bucket.send, "trial")
    assert bucket.keys() == []
    refuse = always(lambda asked, forward: error(403, "AccessDenied"), "DeleteObject")
    with Meddler(bucket.server.endpoint, refuse) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert await takes(tree.bucket.send, "trial")
    assert bucket.keys() == ["p/trial"]


@awaited
async def test_where_nothing_is_taken_nothing_is_deleted(bucket: Bucket) -> None:
    refuse = always(lambda asked, forward: error(403, "AccessDenied"), "PutObject")
    with Meddler(bucket.server.endpoint, refuse) as meddler:
        async with opened(bucket, meddler.endpoint) as tree:
            assert not await takes(tree.bucket.send, "trial")
    assert meddler.names() == ["PutObject"]


@pytest.mark.parametrize(
    ("raised", "given"),
    [(Overlong("x"), True), (Unavailable("x"), False), (PermissionRefused("x"), False)],
)
def test_more_than_a_byte_is_a_gift_too(raised: Exception, given: bool) -> None:
    async def send(*_: object, **__: object) -> Response:
        raise raised

    assert asyncio.run(trial.gives(send, ["a"])) is given
