"""Held messages stay invisible, and each failed extension is made again in time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import Unavailable
from syncloud.queue.message import Message
from syncloud.queue.sqs import QueueSource
from tests.support.meddler import Meddler, always, once
from tests.support.messages import unsuccessful
from tests.support.notifications import left, native, send
from tests.support.queues import Counted, Scripted, acknowledge, listening, unstarted, until

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.recorder import Recorder


def test_what_is_in_work_stays_invisible(bucket: Bucket, recorder: Recorder) -> None:
    send(bucket, native(bucket, "p/slow"))
    with listening(bucket, recorder.endpoint, visibility=2) as there:
        (hint,) = there.hints.wait(1)
        time.sleep(5)
        assert len(there.hints.all()) == 1
        assert left(bucket) == (0, 1)
        assert 2 <= recorder.counts()["sqs", "ChangeMessageVisibilityBatch"] <= 8
        acknowledge([hint])
        until(lambda: left(bucket) == (0, 0))
        recorder.reset()
        time.sleep(2)
        assert recorder.counts()["sqs", "ChangeMessageVisibilityBatch"] == 0


def test_a_message_that_sqs_hides_no_longer_comes_again_without_a_second_look(
    bucket: Bucket,
) -> None:
    """Twelve hours after the receipt SQS refuses.

    The work goes on, and the newest handle deletes the message.
    """
    send(bucket, native(bucket, "p/slow"))
    refusing = always(
        unsuccessful("InvalidParameterValue", sender=True), "ChangeMessageVisibilityBatch"
    )
    counted = Counted(refusing)
    with (
        Meddler(bucket.server.endpoint, counted) as meddler,
        listening(bucket, meddler.endpoint, visibility=2) as there,
    ):
        (hint,) = there.hints.wait(1)
        until(lambda: counted.received >= 3)
        assert len(there.hints.all()) == 1
        assert there.source.trouble() is None
        assert meddler.names().count("ChangeMessageVisibilityBatch") <= 2 * counted.received
        acknowledge([hint])
        until(lambda: left(bucket) == (0, 0))


def test_an_extension_that_failed_is_made_in_time(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/slow"))
    counted = Counted(once(unsuccessful(), "ChangeMessageVisibilityBatch"))
    with (
        Meddler(bucket.server.endpoint, counted) as meddler,
        listening(bucket, meddler.endpoint, visibility=8) as there,
    ):
        (hint,) = there.hints.wait(1)
        until(lambda: meddler.names().count("ChangeMessageVisibilityBatch") >= 3, timeout=30)
        assert counted.received == 1
        assert there.source.trouble() is None
        acknowledge([hint])
        until(lambda: left(bucket) == (0, 0))


def test_what_is_in_work_stays_invisible_although_nothing_can_be_deleted(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/slow"), native(bucket, "p/done"))
    counted = Counted(always(lambda asked, forward: None, "DeleteMessageBatch"))
    with (
        Meddler(bucket.server.endpoint, counted) as meddler,
        listening(bucket, meddler.endpoint, visibility=4) as there,
    ):
        acknowledge(there.hints.wait(2)[1:])
        until(there.source.trouble, timeout=30)
        time.sleep(6)
        assert counted.received == 2
        assert left(bucket) == (0, 2)


def late(source: QueueSource, count: int) -> list[Message]:
    """Messages in work, half of whose visibility is over."""
    made = [Message(source._deleter, f"m{number}", f"h{number}") for number in range(count)]
    for message in made:
        source._held.add(message)
    return made


def test_an_extension_that_failed_is_made_at_the_next_turn_and_those_beside_it_in_this_one() -> (
    None
):
    sqs = Scripted()
    source = unstarted(sqs, visibility=8)
    late(source, 25)
    sqs.failing = {"h3"}
    with pytest.raises(Unavailable, match="1 messages"):
        source._extender.extend()
    assert [sqs.times("extend", f"h{number}") for number in range(25)] == [1] * 25
    sqs.failing.clear()
    assert source._extender.extend()
    assert [sqs.times("extend", f"h{number}") for number in range(25)] == [1, 1, 1, 2] + [1] * 21
    assert not source._extender.extend()
