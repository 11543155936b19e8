"""The probe: only an answer about a condition counts, every other one is an error."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from syncloud.aws.session import Aws
from syncloud.core import names
from syncloud.errors import PermissionRefused, Unavailable
from syncloud.s3.capabilities import probe
from syncloud.s3.objects import StoreCapabilities
from syncloud.s3.transport import Transport
from tests.support.meddler import Answer, Asked, Forward, Meddler, always, error, unconditional
from tests.support.store import PREFIX, awaited, obeys_copy

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.meddler import Meddle


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
    assert await probed(bucket, bucket.server.endpoint) == StoreCapabilities(
        put=True, copy=False, delete=True
    )
    nothing = StoreCapabilities(put=False, complete=False, copy=False, delete=False)
    for meddle, expected in (
        (unconditional, nothing),
        (unimplemented, nothing),
        (always(obeys_copy, "CopyObject"), StoreCapabilities()),
        (
            always(unconditional, "DeleteObject", "CopyObject"),
            StoreCapabilities(copy=False, delete=False),
        ),
        (
            always(unconditional, "CompleteMultipartUpload"),
            StoreCapabilities(complete=False, copy=False),
        ),
        (always(creates_only, "PutObject"), nothing),
    ):
        with Meddler(bucket.server.endpoint, meddle) as meddler:
            assert await probed(bucket, meddler.endpoint) == expected
    assert bucket.keys() == []


@awaited
async def test_a_probe_without_a_bucket_or_a_permission_says_so(bucket: Bucket) -> None:
    """What cannot be found out is not taken for a store without conditions."""

    for code, status, kind in (
        ("AccessDenied", 403, PermissionRefused),
        ("NoSuchBucket", 404, Unavailable),
    ):
        refuse = functools.partial(refused, answer=error(status, code))
        for name in ("PutObject", "CopyObject"):
            with (
                Meddler(bucket.server.endpoint, always(refuse, name)) as meddler,
                pytest.raises(kind),
            ):
                await probed(bucket, meddler.endpoint)
    assert bucket.keys() == []


CONDITIONAL = (
    "PutObject",
    "CopyObject",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "DeleteObject",
)
PAGE = Answer(
    200, {"content-type": "text/html"}, b"<html>Welcome! Please accept our terms.<br></html>"
)


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize(
    "answer",
    [
        error(400, "InvalidRequest"),
        error(400, ""),
        error(405, "MethodNotAllowed"),
        error(409, "OperationAborted"),
        PAGE,
    ],
    ids=["400", "400 of nobody", "405", "409", "a portal's page"],
)
@awaited
async def test_an_answer_that_is_not_about_the_condition_says_nothing_about_the_store(
    bucket: Bucket, name: str, answer: Answer
) -> None:
    """What the probe finds out is believed for as long as the state lasts."""
    if answer is PAGE and name == "DeleteObject":
        # A success of DELETE has no recognizable mark; the other five come first.
        return
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
async def test_a_condition_that_is_not_implemented_may_be_told_under_any_status(
    bucket: Bucket,
) -> None:
    def unknown(asked: Asked, forward: Forward) -> Answer | None:
        answer = unimplemented(asked, forward)
        return (
            error(400, "NotImplemented") if answer is not None and answer.status == 501 else answer
        )

    with Meddler(bucket.server.endpoint, unknown) as meddler:
        assert await probed(bucket, meddler.endpoint) == StoreCapabilities(
            put=False, complete=False, copy=False, delete=False
        )


@awaited
async def test_a_probe_needs_no_permission_to_delete(bucket: Bucket) -> None:
    """A push without deletions still works.

    The trial objects stay, under names that every pull ignores.
    """

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
