"""A pull from a faulty store: broken bodies, objects that change, a bucket that lies."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import SMALL_BYTES
from tests.support.faults import (
    STORE,
    before,
    bucket_gone,
    corrupted,
    empty_listing,
    expired,
    in_turn,
    knows_whole_objects,
    refuse,
    shortened,
    skewed,
    slow_down,
    truncated,
)
from tests.support.meddler import always
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from tests.faults.rig import Rig
    from tests.support.meddler import Answer, Asked, Forward, Meddle
    from tests.support.processes import Process

SIZES = pytest.mark.parametrize("size", [2000, SMALL_BYTES + 5], ids=["small", "large"])


def _both(rig: Rig, content: bytes) -> tuple[Process, Process]:
    """A push and a pull that follows it, both with `a` on both sides."""
    push, pull = rig.push("--min-interval", "0"), rig.pull()
    rig.write("a", content)
    rig.until_pulled({"a": content})
    return push, pull


def _failures(pull: Process) -> int:
    return len(pull.events("path.failed") + pull.events("outage.started"))


# Bodies


@SIZES
@pytest.mark.parametrize("broken", [truncated, shortened, corrupted])
def test_a_body_that_is_not_the_objects_never_gets_its_name(
    rig: Rig, broken: Meddle, size: int
) -> None:
    push, pull = _both(rig, b"first")
    content = os.urandom(size)
    rig.meddler.meddle = before(always(broken, "GetObject"), knows_whole_objects())
    rig.write("a", content)
    push.wait_event("push.uploaded", path="a", size=size)
    wait_until(lambda: _failures(pull), timeout=60)
    assert {path: file[0] for path, file in rig.pulled().items()} == {"a": b"first"}, (
        "no half file, no temporary one"
    )
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    rig.until_pulled({"a": content})


# Objects that change


@SIZES
def test_an_object_that_is_replaced_between_its_event_and_its_bytes(rig: Rig, size: int) -> None:
    _, pull = _both(rig, b"first")
    between, newest = os.urandom(size), os.urandom(size)

    def replaced(asked: Asked, forward: Forward) -> Answer:
        rig.bucket.put("a", newest)
        return forward(asked)

    # Of a large object the second part is asked for when the first is there.
    rig.meddler.meddle = in_turn(
        [replaced] if size <= SMALL_BYTES else [_passed, replaced], "GetObject"
    )
    rig.bucket.put("a", between)
    rig.until_pulled({"a": newest})
    pull.wait_event("pull.written", path="a", size=size)  # it is told after it can be read
    assert not pull.events("conflict.kept")
    assert [event["size"] for event in pull.events("pull.written", path="a")] == [5, size], (
        "no mix in between"
    )
    assert not pull.events("path.failed")


def test_a_store_that_ignores_if_match_mixes_no_two_objects(rig: Rig) -> None:
    """Neither version has a checksum of the whole that could tell."""
    between, newest = b"between" * (SMALL_BYTES // 6), b"newest!" * (SMALL_BYTES // 6)
    _, pull = _both(rig, b"first")

    def ignoring(asked: Asked, forward: Forward) -> Answer:
        kept = {
            name: value
            for name, value in asked.headers.items()
            if name not in ("if-match", "x-amz-checksum-mode")
        }
        answer = forward(replace(asked, headers=kept))
        return replace(
            answer,
            headers={
                name: value for name, value in answer.headers.items() if "checksum" not in name
            },
        )

    def replaced(asked: Asked, forward: Forward) -> Answer:
        rig.bucket.put("a", newest)
        return ignoring(asked, forward)

    of_parts = in_turn([ignoring, replaced, *[ignoring] * 50], "GetObject")
    rig.meddler.meddle = before(always(ignoring, "HeadObject"), of_parts)
    rig.bucket.put("a", between)
    rig.until_pulled({"a": newest})
    pull.wait_event("pull.written", path="a", size=len(newest))
    assert [event["size"] for event in pull.events("pull.written", path="a")] == [5, len(newest)], (
        "no mix in between"
    )
    assert not pull.events("conflict.kept")


def _passed(asked: Asked, forward: Forward) -> Answer:
    return forward(asked)


def test_the_same_bytes_under_another_etag_are_not_written_again(rig: Rig) -> None:
    """A re-encryption by copy, or a tool that uploads in parts, changes the ETag alone."""
    content = os.urandom(6 * 2**20)
    _, pull = _both(rig, content)
    written, s3 = (rig.into / "a").stat().st_ino, rig.bucket.server.client("s3")
    place = {"Bucket": rig.bucket.name, "Key": "a"}
    metadata = rig.bucket.head("a")["Metadata"]
    upload = s3.create_multipart_upload(**place, Metadata=metadata)["UploadId"]
    parts = []
    for number, offset in enumerate((0, 5 * 2**20), 1):
        body = content[offset : offset + 5 * 2**20]
        answer = s3.upload_part(**place, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})
    assert rig.bucket.head("a")["ETag"].endswith('-2"')
    wait_until(lambda: _is_drained(rig), timeout=60)
    asked = rig.meddler.names().count("GetObject")
    pull.signal(signal.SIGHUP)
    wait_until(lambda: len(pull.events("reconcile.finished")) >= 2, timeout=60)
    time.sleep(1)
    assert rig.meddler.names().count("GetObject") == asked, "it is not asked for again and again"
    assert (rig.into / "a").stat().st_ino == written
    assert not pull.events("conflict.kept")


def _is_drained(rig: Rig) -> bool:
    """Whether the queue is empty: everything that was told is settled."""
    return rig.bucket.messages() == 0


def test_metadata_of_others_may_be_long_and_odd(rig: Rig) -> None:
    rig.bucket.put(
        "a", b"x", mtime="=?UTF-8?Q?gestern?=", mode="rwx", note="=?UTF-8?B?w7w=?=" + "n" * 1900
    )
    rig.pull()
    rig.until_pulled({"a": b"x"})


# A bucket that is not to be believed


@pytest.mark.parametrize(
    "said",
    [
        bucket_gone,
        refuse(403, "AccessDenied"),
        refuse(403, "KMS.DisabledException"),
        expired,
        skewed,
        slow_down,
    ],
    ids=["gone", "denied", "KMS", "expired", "skewed", "busy"],
)
def test_what_a_store_refuses_to_tell_is_not_deleted(rig: Rig, said: Meddle) -> None:
    rig.bucket.put("a", b"deleted later")
    rig.bucket.put("b", b"there all the time")
    pull = rig.pull("--delete")
    rig.until_pulled({"a": b"deleted later", "b": b"there all the time"})
    rig.meddler.meddle = always(said, *STORE)
    rig.bucket.delete("a")
    rig.bucket.server.client("sqs").send_message(
        QueueUrl=rig.bucket.queue_url, MessageBody=_removal(rig.bucket.name, "b")
    )
    pull.signal(signal.SIGHUP)
    pull.wait_event("outage.started", timeout=60)
    time.sleep(2)
    assert rig.pulled().keys() == {"a", "b"}
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    rig.until_pulled({"b": b"there all the time"}, timeout=90)
    pull.wait_event("outage.ended", timeout=60)


def _removal(bucket: str, key: str) -> str:
    """A notification that `key` was removed, which proves nothing."""
    about = {"bucket": {"name": bucket}, "object": {"key": key, "sequencer": "01"}}
    record = {
        "eventName": "ObjectRemoved:Delete",
        "eventSource": "aws:s3",
        "eventVersion": "2.1",
        "s3": about,
    }
    return json.dumps({"Records": [record]})


def test_an_empty_listing_deletes_nothing(rig: Rig) -> None:
    """It only nominates: each object is asked for by itself."""
    content = {f"{number}": b"x" for number in range(5)}
    for key, body in content.items():
        rig.bucket.put(key, body)
    pull = rig.pull("--delete")
    rig.until_pulled(content)
    rig.meddler.meddle = always(empty_listing, "ListObjectsV2")
    begun = len(rig.meddler.asked)
    pull.signal(signal.SIGHUP)
    wait_until(lambda: rig.meddler.names()[begun:].count("HeadObject") >= 5, timeout=60)
    time.sleep(1)
    assert {path: file[0] for path, file in rig.pulled().items()} == content
    assert not pull.events("pull.deleted")


def test_a_bucket_that_suddenly_seems_empty_meets_the_brake(rig: Rig) -> None:
    """Whatever is asked, nothing is there, and no error says so."""
    content = {f"{number:03}": b"%d" % number for number in range(130)}
    for key, body in content.items():
        rig.bucket.put(key, body)
    pull = rig.pull("--delete")
    rig.until_pulled(content)
    rig.meddler.meddle = before(
        always(empty_listing, "ListObjectsV2"),
        always(refuse(404, "NoSuchKey"), "HeadObject", "GetObject"),
    )
    pull.signal(signal.SIGHUP)
    held = pull.wait_event("guard.held", timeout=90)
    assert "--allow-deletes" in held["hint"]
    time.sleep(1)
    assert len(rig.pulled()) >= 30
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    pull.signal(signal.SIGHUP)
    rig.until_pulled(content)
