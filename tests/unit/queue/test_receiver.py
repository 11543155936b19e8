"""Polls: one batch begun with before the next, none while held, and a listing after a gap."""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.core.model import Hint
from syncloud.queue import receiver
from syncloud.queue.client import BATCH_MESSAGES
from syncloud.queue.held import HELD_MAX_MESSAGES
from tests.support.meddler import Meddler, always
from tests.support.messages import short_polls
from tests.support.notifications import left, native, send
from tests.support.opcodes import opcodes
from tests.support.queues import (
    Hints,
    Scripted,
    acknowledge,
    listening,
    received,
    scripted,
    unstarted,
    until,
)

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.meddler import Answer, Asked, Forward
    from tests.support.recorder import Recorder


def test_what_a_poll_has_brought_is_begun_with_before_the_next_one_is_asked_for(
    bucket: Bucket,
) -> None:
    """Python's lock stays with its thread throughout, as in the short time of a poll's start."""
    begun: list[Hint] = []
    in_time: list[bool] = []
    inbox: queue.SimpleQueue[Hint | None] = queue.SimpleQueue()

    class Handed(Hints):
        def deliver(self, hint: Hint) -> None:
            super().deliver(hint)
            inbox.put(hint)

    def begin() -> None:
        while (hint := inbox.get()) is not None:
            begun.append(hint)

    interval = sys.getswitchinterval()
    beginner = threading.Thread(target=begin)
    with listening(bucket, hints=Handed()) as there:

        def asks(**_: Any) -> None:
            delivered = len(there.hints.all())
            if delivered > len(in_time):
                in_time.append(len(begun) == delivered)

        there.source._receiver._client._sqs.meta.events.register(
            "provide-client-params.sqs.ReceiveMessage", asks
        )
        sys.setswitchinterval(1.0)
        try:
            beginner.start()
            for number in range(10):
                send(bucket, native(bucket, f"p/{number}"))
                there.hints.wait(number + 1)
                until(lambda: len(in_time) == len(there.hints.all()))
        finally:
            sys.setswitchinterval(interval)
            inbox.put(None)
            beginner.join()
    assert sum(in_time) > 5


def test_what_is_held_is_bounded_and_told_when_nothing_of_it_is_settled(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its limit of 120,000 SQS is silent, and a long poll just brings no message.

    The receiver never holds so many.
    """
    send(bucket, *(native(bucket, f"p/{number}") for number in range(HELD_MAX_MESSAGES + 100)))
    monkeypatch.setattr(receiver, "STILL_TIMEOUT_S", 2.0)
    with listening(bucket) as there:
        until(lambda: len(there.hints.all()) >= HELD_MAX_MESSAGES, timeout=60)
        time.sleep(1)
        held = len(there.hints.all())
        assert HELD_MAX_MESSAGES <= held < HELD_MAX_MESSAGES + BATCH_MESSAGES
        assert left(bucket) == (HELD_MAX_MESSAGES + 100 - held, held)
        assert there.source.trouble() is None
        until(lambda: "no message is received" in (there.source.trouble() or ""))
        acknowledge(there.hints.all())
        acknowledge(there.hints.wait(HELD_MAX_MESSAGES + 100)[held:])
        assert there.source.trouble() is None
        until(lambda: left(bucket) == (0, 0), timeout=60)


def test_what_a_poll_gets_after_the_end_is_given_back_at_once(bucket: Bucket) -> None:
    """A poll cannot be interrupted, and a reload continues in this process.

    The next source must not wait for the poll.
    """
    polls: list[str] = []

    def noted(asked: Asked, forward: Forward) -> Answer:
        polls.append(asked.name)
        return forward(asked)

    with Meddler(bucket.server.endpoint, always(noted, "ReceiveMessage")) as meddler:
        with listening(bucket, meddler.endpoint):
            until(lambda: len(polls) >= 2)  # the first one is short
            time.sleep(0.5)
        send(bucket, native(bucket, "p/file"))
        until(lambda: "ChangeMessageVisibilityBatch" in meddler.names())
    with listening(bucket) as other:
        other.hints.wait(1, timeout=10)


@pytest.mark.parametrize(
    "broken", [{"Body": None}, {"Body": b"\xff"}, {"Body": 7}, {"ReceiptHandle": None}], ids=repr
)
def test_whatever_one_message_does_the_nine_others_of_its_batch_are_followed_at_once(
    broken: dict[str, Any],
) -> None:
    batch = [received(number) for number in range(9)]
    odd = {name: value for name, value in (received(99) | broken).items() if value is not None}
    sqs = Scripted([*batch[:4], odd, *batch[4:]])
    with scripted(sqs) as there:
        hints = there.hints.wait(9)
        assert [hint.path for hint in hints] == [f"{number}" for number in range(9)]
        acknowledge(hints)
        until(lambda: sum(len(handles) for name, handles in sqs.asked if name == "delete") == 9)
        assert there.source.trouble() is None
        assert there.source.stalled() is None
        assert not there.source._held


def test_a_message_costs_the_same_however_many_keys_the_hour_has_brought() -> None:
    hints: list[Hint] = []
    source = unstarted(Scripted())
    source._follower.deliver = hints.append

    def handle(first: int, count: int) -> None:
        for number in range(first, first + count):
            source._receiver.take(received(number), 0.0)
            source._deleter._forget(source._held._messages[f"m{number}"])
            hints.clear()

    few = opcodes(lambda: handle(0, 100))
    handle(100, 60_000)
    many = opcodes(lambda: handle(60_100, 100))
    assert many < few * 1.2, (few, many)


def test_a_queue_that_is_deleted_during_a_poll_is_noticed(bucket: Bucket) -> None:
    sqs = bucket.server.client("sqs")
    with (
        Meddler(bucket.server.endpoint, short_polls) as meddler,
        listening(bucket, meddler.endpoint) as there,
    ):
        until(there.source._receiver.answered.is_set)
        assert there.source.trouble() is None
        sqs.delete_queue(QueueUrl=bucket.queue_url)
        until(there.source.trouble)
        sqs.create_queue(QueueName=bucket.queue_url.rpartition("/")[2])
        until(lambda: any(hint.subtree for hint in there.hints.all()))


def test_after_a_long_time_without_a_poll_everything_is_listed(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held back, stopped or suspended for longer than the queue keeps a message."""
    monkeypatch.setattr(receiver, "GAP_S", 4.0)
    holding = threading.Event()
    with (
        Meddler(bucket.server.endpoint, short_polls) as meddler,
        listening(bucket, meddler.endpoint, hold=holding.is_set) as there,
    ):
        until(lambda: meddler.names().count("ReceiveMessage") >= 3)
        assert there.hints.all() == []
        holding.set()
        time.sleep(5.5)
        assert there.hints.all() == []
        holding.clear()
        (hint,) = there.hints.wait(1)
        assert (hint.path, hint.subtree) == ("", True)
        time.sleep(1.5)
        assert len(there.hints.all()) == 1


def test_nothing_is_received_while_held(bucket: Bucket, recorder: Recorder) -> None:
    send(bucket, native(bucket, "p/a"))
    holding = threading.Event()
    holding.set()
    with listening(bucket, recorder.endpoint, hold=holding.is_set) as there:
        time.sleep(1)
        assert recorder.requests() == []
        assert left(bucket) == (1, 0)  # no receive was counted against it
        holding.clear()
        there.hints.wait(1)


def test_a_queue_that_is_not_asked_does_not_answer_again(bucket: Bucket) -> None:
    holding = threading.Event()
    with listening(bucket, "http://127.0.0.1:9", hold=holding.is_set) as there:
        until(there.source.trouble)
        holding.set()
        time.sleep(3)  # the pause after a failure is over by then
        assert there.source.trouble()


def test_an_idle_queue_costs_long_polls_only(bucket: Bucket, recorder: Recorder) -> None:
    with listening(bucket, recorder.endpoint):
        time.sleep(3)
        # A short one, that proves the queue, and the long one.
        assert recorder.counts() == {("sqs", "ReceiveMessage"): 2}
