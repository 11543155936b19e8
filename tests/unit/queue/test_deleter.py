"""Settled messages are deleted in batches, again where that failed, and before the end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.meddler import Meddler, always, drop, once
from tests.support.messages import unsuccessful
from tests.support.notifications import left, native, send
from tests.support.queues import Scripted, acknowledge, listening, received, scripted, until

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.recorder import Recorder


def test_many_messages_share_their_requests(bucket: Bucket, recorder: Recorder) -> None:
    for number in range(40):
        send(bucket, native(bucket, f"p/{number}"))
    with listening(bucket, recorder.endpoint) as there:
        acknowledge(there.hints.wait(40))
        until(lambda: left(bucket) == (0, 0))
    assert recorder.counts()["sqs", "ReceiveMessage"] <= 6
    assert recorder.counts()["sqs", "DeleteMessageBatch"] <= 8


def test_who_has_nothing_to_delete_sleeps_until_there_is_something_and_ends_at_once(
    bucket: Bucket,
) -> None:
    with listening(bucket) as there:
        there.source._receiver.answered.wait(15)
        (thread,) = [thread for thread in there.source._threads if thread.name == "queue-delete"]
        before = switches(thread)
        time.sleep(1)
        assert switches(thread) - before <= 2
        send(bucket, native(bucket, "p/one"))
        acknowledge(there.hints.wait(1))
        until(lambda: left(bucket) == (0, 0))
        started = time.monotonic()
    assert time.monotonic() - started < 3
    assert not thread.is_alive()


def test_what_was_settled_before_the_end_is_deleted_in_it(bucket: Bucket) -> None:
    send(bucket, *(native(bucket, f"p/{number}") for number in range(5)))
    with listening(bucket) as there:
        hints = there.hints.wait(5)
        acknowledge(hints)
    assert left(bucket) == (0, 0)


def switches(thread: threading.Thread) -> int:
    """How often a thread of this process has gone to sleep."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return next(
        int(line.split()[1])
        for line in status.splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def test_what_a_batch_failed_to_delete_is_deleted_again(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/a"))
    send(bucket, native(bucket, "p/b"))
    with (
        Meddler(bucket.server.endpoint, once(unsuccessful(), "DeleteMessageBatch")) as meddler,
        listening(bucket, meddler.endpoint) as there,
    ):
        acknowledge(there.hints.wait(2))
        until(lambda: left(bucket) == (0, 0))
        assert meddler.names().count("DeleteMessageBatch") >= 2


def test_a_batch_that_keeps_failing_is_no_busy_loop(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/a"))
    with (
        Meddler(bucket.server.endpoint, always(unsuccessful(), "DeleteMessageBatch")) as meddler,
        listening(bucket, meddler.endpoint) as there,
    ):
        acknowledge(there.hints.wait(1))
        time.sleep(3)
        assert 2 <= meddler.names().count("DeleteMessageBatch") <= 6
        meddler.meddle = lambda asked, forward: forward(asked)
        until(lambda: left(bucket) == (0, 0), timeout=40)


def test_a_handle_that_is_over_is_not_tried_again(bucket: Bucket) -> None:
    """SQS calls the fault ours, and the message returns with a new handle.

    No second look follows if nothing has changed.
    """

    expired = unsuccessful("ReceiptHandleIsInvalid", sender=True)
    send(bucket, native(bucket, "p/a"))
    with (
        Meddler(bucket.server.endpoint, once(expired, "DeleteMessageBatch")) as meddler,
        listening(bucket, meddler.endpoint, visibility=2) as there,
    ):
        acknowledge(there.hints.wait(1))
        hints = there.hints.wait(2)
        assert meddler.names().count("DeleteMessageBatch") == 1
        assert there.source.trouble() is None
        acknowledge(hints[1:])
        until(lambda: left(bucket) == (0, 0))


def test_a_lost_answer_to_a_delete_does_no_harm(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/a"))
    with (
        Meddler(bucket.server.endpoint, once(drop, "DeleteMessageBatch")) as meddler,
        listening(bucket, meddler.endpoint) as there,
    ):
        acknowledge(there.hints.wait(1))
        until(lambda: left(bucket) == (0, 0))
        assert there.source.trouble() is None


def test_a_message_that_cannot_be_deleted_holds_back_no_other() -> None:
    """One in each batch: the nine others are gone before the pauses begin."""
    sqs = Scripted(
        *([received(number) for number in range(start, start + 10)] for start in range(0, 200, 10))
    )
    failing = range(3, 200, 10)
    sqs.failing = {f"h{number}" for number in failing}
    with scripted(sqs) as there:
        acknowledge(there.hints.wait(200))
        until(lambda: all(sqs.times("delete", f"h{number}") for number in range(200)))
        assert not any(
            sqs.times("delete", f"h{number}") > 1 for number in range(200) if number not in failing
        )
        until(lambda: there.source.trouble())
        before = sqs.times("delete", "h3")
        time.sleep(1)
        assert sqs.times("delete", "h3") <= before + 2, "alone it is tried more and more slowly"
