"""QueueSource against the emulated SQS: settled messages end; outages; dead threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.notifications import left, native, send
from tests.support.queues import Scripted, acknowledge, listening, received, scripted, until

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.recorder import Recorder


def test_a_message_goes_when_all_its_events_are_settled(bucket: Bucket, recorder: Recorder) -> None:
    send(bucket, native(bucket, "p/a", "p/b", "other/c", "p/d"))
    with listening(bucket, recorder.endpoint) as there:
        hints = there.hints.wait(3)
        assert [hint.path for hint in hints] == ["a", "b", "d"]
        acknowledge(hints[:2])
        time.sleep(0.6)
        assert left(bucket) == (0, 1)
        assert recorder.counts()["sqs", "DeleteMessageBatch"] == 0
        acknowledge(hints[2:])
        until(lambda: left(bucket) == (0, 0))
    assert recorder.counts()["sqs", "DeleteMessageBatch"] == 1


def test_what_was_not_settled_comes_back(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/a"))
    with listening(bucket, visibility=2) as there:
        there.hints.wait(1)
    until(lambda: left(bucket) == (1, 0))
    with listening(bucket) as there:
        (hint,) = there.hints.wait(1)
        assert hint.path == "a"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_is_told_to_the_watchdog() -> None:
    class Ending(Scripted):
        def receive_message(self, **_: Any) -> dict[str, Any]:
            raise SystemExit  # a thread ends of it, without a word

    with scripted(Ending()) as there:
        until(there.source.stalled)
        assert "queue-receive" in (there.source.stalled() or "")
    assert there.source.stalled() is None, "it was stopped"


def test_no_thread_ends_of_what_a_client_raises() -> None:
    class Raising(Scripted):
        def receive_message(self, **more: Any) -> dict[str, Any]:
            if (number := len(self.batches)) == 1:
                return super().receive_message(**more)
            raise [
                MemoryError(),
                RecursionError(),
                KeyError("x"),
                UnicodeDecodeError("utf-8", b"", 0, 1, ""),
            ][number % 4]

    sqs = Raising([])
    with scripted(sqs) as there:
        until(lambda: there.source._receiver.answered.is_set())
        for _ in range(3):
            sqs.batches.append([received(1)])
            until(there.source.trouble)
        assert there.source.stalled() is None


def test_a_queue_that_was_deleted_is_told_and_found_again(
    bucket: Bucket, recorder: Recorder
) -> None:
    sqs = bucket.server.client("sqs")
    name = bucket.queue_url.rpartition("/")[2]
    sqs.delete_queue(QueueUrl=bucket.queue_url)
    try:
        with listening(bucket, recorder.endpoint) as there:
            until(there.source.trouble)
            assert bucket.queue_url in str(there.source.trouble())
            assert there.source._receiver.answered.is_set()
            recorder.reset()
            time.sleep(4)
            assert recorder.counts()["sqs", "ReceiveMessage"] <= 4
            assert there.hints.all() == []
            sqs.create_queue(QueueName=name)
            send(bucket, native(bucket, "p/a"))
            hints = there.hints.wait(2, timeout=30)
            # What was lost with the old queue is found by a listing.
            assert {(hint.path, hint.subtree) for hint in hints} == {("", True), ("a", False)}
            until(lambda: there.source.trouble() is None)
    finally:
        sqs.create_queue(QueueName=name)


def test_an_unreachable_endpoint_is_told(bucket: Bucket) -> None:
    with listening(bucket, "http://127.0.0.1:9") as there:
        until(there.source.trouble)
        assert there.source._receiver.answered.is_set()


def test_it_stops_at_once_and_deletes_what_was_settled(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/a"))
    with listening(bucket) as there:
        acknowledge(there.hints.wait(1))
        started = time.monotonic()
        there.source.stop()
        assert time.monotonic() - started < 2
    assert left(bucket) == (0, 0)
