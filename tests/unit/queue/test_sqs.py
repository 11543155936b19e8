"""QueueSource against the emulated SQS: envelopes, acknowledgement, visibility, poison, outages."""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.aws.session import Aws
from syncloud.core import names
from syncloud.core.model import Absent, Entry, Hint
from syncloud.errors import Unavailable
from syncloud.queue import receiver, sqs
from syncloud.queue.client import BATCH_MESSAGES
from syncloud.queue.held import HELD_MAX_MESSAGES
from syncloud.queue.message import Message
from syncloud.queue.sqs import QueueSource
from tests.support.meddler import Meddler, always, drop, once
from tests.support.messages import receiving, short_polls, unsuccessful
from tests.support.notifications import (
    bridged,
    destination,
    lambda_of_sns,
    lambda_of_sqs,
    left,
    native,
    record,
    send,
    sns,
)
from tests.support.opcodes import opcodes

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.listener import Listener
    from tests.support.meddler import Answer, Asked, Forward, Meddle
    from tests.support.recorder import Recorder

PREFIX = "p/"


@pytest.fixture
def bucket(bucket: Bucket) -> Bucket:
    """With an empty queue: S3's test event has been taken out."""
    assert [body.get("Event") for body in bucket.receive_all(quiet=0.1)] == ["s3:TestEvent"]
    return bucket


class Hints:
    """What a source delivered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hints: list[Hint] = []

    def deliver(self, hint: Hint) -> None:
        with self._lock:
            self._hints.append(hint)

    def all(self) -> list[Hint]:
        with self._lock:
            return list(self._hints)

    def wait(self, count: int, *, timeout: float = 15) -> list[Hint]:
        until(lambda: len(self.all()) >= count, timeout=timeout)
        return self.all()


def until(condition: Callable[[], object], *, timeout: float = 15) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.02)


def acknowledge(hints: list[Hint]) -> None:
    for hint in hints:
        if hint.receipt is not None:
            hint.receipt.acknowledge()


@dataclass(frozen=True, slots=True)
class Listening:
    source: QueueSource
    hints: Hints


@contextlib.contextmanager
def listening(
    bucket: Bucket,
    endpoint: str = "",
    *,
    hints: Hints | None = None,
    hold: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Iterator[Listening]:
    """A started QueueSource for PREFIX of the bucket."""
    aws = Aws(region="us-east-1", endpoint_url=endpoint or bucket.server.endpoint)
    sqs = aws.client("sqs")
    source = QueueSource(sqs, queue_url=bucket.queue_url, bucket=bucket.name, prefix=PREFIX, hold=hold, **options)
    hints = hints or Hints()
    source.start(hints.deliver)
    try:
        yield Listening(source, hints)
    finally:
        source.stop()
        aws.close()


# Envelopes

KEY = "p/sub dir/a+b%20c=\u00fc\u65e5 1.txt"
PATH = "sub dir/a+b%20c=\u00fc\u65e5 1.txt"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda bucket: native(bucket, KEY, size=3, eTag="e1", versionId="v1"),
        lambda bucket: sns(native(bucket, KEY, size=3, eTag="e1", versionId="v1")),
        lambda bucket: bridged(bucket, KEY),
        lambda bucket: sns(bridged(bucket, KEY)),
        lambda bucket: lambda_of_sqs(native(bucket, KEY, size=3, eTag="e1", versionId="v1")),
        lambda bucket: lambda_of_sqs(sns(native(bucket, KEY, size=3, eTag="e1", versionId="v1"))),
        lambda bucket: lambda_of_sns(native(bucket, KEY, size=3, eTag="e1", versionId="v1")),
        lambda bucket: destination(native(bucket, KEY, size=3, eTag="e1", versionId="v1")),
        lambda bucket: record(bucket, KEY, size=3, eTag="e1", versionId="v1"),  # a Lambda that forwards single records
        lambda bucket: native(bucket, KEY, version="2.99", size=3, eTag="e1", versionId="v1", novelty={"x": 1}),
    ],
    ids=["s3", "sns", "bridge", "sns-bridge", "lambda-sqs", "lambda-sqs-sns", "lambda-sns", "destination", "record", "minor"],
)
def test_every_envelope_names_the_same_path(bucket: Bucket, wrap: Callable[[Bucket], object]) -> None:
    send(bucket, wrap(bucket))
    with listening(bucket) as there:
        (hint,) = there.hints.wait(1)
        assert (hint.path, hint.subtree) == (PATH, False)
        assert hint.reported == Entry(PATH, ("e1", "v1", ""), 3, 0, 0)
        acknowledge([hint])
        until(lambda: left(bucket) == (0, 0))
        assert there.source.trouble() is None


@pytest.mark.parametrize("event", ["ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:Delete"])
def test_a_removal_is_a_question(bucket: Bucket, event: str) -> None:
    send(bucket, native(bucket, KEY, event=event, sequencer="1"))
    send(bucket, bridged(bucket, "p/other", "Object Deleted"))
    with listening(bucket) as there:
        hints = there.hints.wait(2)
        assert {hint.reported for hint in hints} == {Absent(PATH), Absent("other")}


def test_real_notifications_of_the_store(bucket: Bucket) -> None:
    """What the emulator itself sends, as S3 does."""
    # It does not encode the key, as S3 does: one that is the same either way.
    answer = bucket.put("p/sub/a_b-c.txt", b"abc")
    bucket.delete("p/sub/a_b-c.txt")
    with listening(bucket) as there:
        hints = there.hints.wait(2)
        assert {hint.path for hint in hints} == {"sub/a_b-c.txt"}
        reported = [hint.reported for hint in hints]
        assert Absent("sub/a_b-c.txt") in reported
        (entry,) = [side for side in reported if isinstance(side, Entry)]
        assert (entry.tag[0], entry.size) == (answer["ETag"].strip('"'), 3)
        acknowledge(hints)
        until(lambda: left(bucket) == (0, 0))


def test_what_is_not_ours_is_taken_out_of_the_queue_and_ignored(bucket: Bucket) -> None:
    elsewhere = record(bucket, "p/a")
    elsewhere["s3"]["bucket"]["name"] = "another-bucket"
    send(bucket, {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket.name})
    send(bucket, {"Records": [elsewhere]})
    send(bucket, native(bucket, "other/a", "p", "p/", "px/a", f"p/{names.hidden('probe', names.new_nonce())}"))
    for event in ("ObjectTagging:Put", "ObjectAcl:Put", "LifecycleTransition", "SomethingOfTheFuture:Done"):
        send(bucket, native(bucket, "p/a", event=event))
    with listening(bucket) as there:
        until(lambda: left(bucket) == (0, 0))
        assert there.hints.all() == []
        assert there.source.ignored == 10
        assert there.source.poisoned == 0


def test_of_another_bucket_nothing_counts_in_whatever_form_it_comes(bucket: Bucket) -> None:
    """Neither a look nor a listing nor a place in the dead-letter queue: other teams' messages are their own affair."""
    elsewhere = replace(bucket, name="another-bucket")
    odd: list[dict[str, object]] = [{"eTag": "x\ny"}, {"size": -1}, {"sequencer": "no"}, {"versionId": 7}]
    forms: list[object] = [native(elsewhere, "p/a", version=version) for version in ("2.1", "3.0", "1", "two")]
    forms += [native(elsewhere, "p/a", **thing) for thing in odd] + [native(elsewhere, "p/" + "k" * 5_000)]
    forms += [native(elsewhere, "p/a", event="a\nb"), native(elsewhere, "p/a", event="ObjectRemoved:Delete")]
    forms += [bridged(elsewhere, "p/a"), bridged(elsewhere, "p/a", etag="x\ny"), bridged(elsewhere, "p/a", "\n")]
    forms += [{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": elsewhere.name}]
    send(bucket, *forms, *map(sns, forms), *map(lambda_of_sns, forms), *map(lambda_of_sqs, map(sns, forms)))
    with listening(bucket) as there:
        until(lambda: left(bucket) == (0, 0))
        assert there.hints.all() == []
        assert (there.source.poisoned, there.source.gaps) == (0, 0)


def test_a_new_major_version_lists_everything(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/a", version="3.0"))
    with listening(bucket) as there:
        (hint,) = there.hints.wait(1)
        assert (hint.path, hint.subtree) == ("", True)
        time.sleep(0.5)
        assert left(bucket) == (0, 1)  # until the listing is done
        acknowledge([hint])
        until(lambda: left(bucket) == (0, 0))


# Acknowledgement


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


def test_many_messages_share_their_requests(bucket: Bucket, recorder: Recorder) -> None:
    for number in range(40):
        send(bucket, native(bucket, f"p/{number}"))
    with listening(bucket, recorder.endpoint) as there:
        acknowledge(there.hints.wait(40))
        until(lambda: left(bucket) == (0, 0))
    assert recorder.counts()["sqs", "ReceiveMessage"] <= 6
    assert recorder.counts()["sqs", "DeleteMessageBatch"] <= 8


def test_what_a_poll_has_brought_is_begun_with_before_the_next_one_is_asked_for(bucket: Bucket) -> None:
    """Where the lock of Python is not taken away from who has it, as in the moment that it takes to ask."""
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

        there.source._receiver._client._sqs.meta.events.register("provide-client-params.sqs.ReceiveMessage", asks)
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


def test_who_has_nothing_to_delete_sleeps_until_there_is_something_and_ends_at_once(bucket: Bucket) -> None:
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
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))


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


def test_a_message_that_sqs_hides_no_longer_comes_again_without_a_second_look(bucket: Bucket) -> None:
    """Twelve hours after its receipt SQS refuses; whoever works on it goes on, and the newest handle deletes it."""
    send(bucket, native(bucket, "p/slow"))
    refusing = always(unsuccessful("InvalidParameterValue", sender=True), "ChangeMessageVisibilityBatch")
    counted = Counted(refusing)
    with Meddler(bucket.server.endpoint, counted) as meddler, listening(bucket, meddler.endpoint, visibility=2) as there:
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
    with Meddler(bucket.server.endpoint, counted) as meddler, listening(bucket, meddler.endpoint, visibility=8) as there:
        (hint,) = there.hints.wait(1)
        until(lambda: meddler.names().count("ChangeMessageVisibilityBatch") >= 3, timeout=30)
        assert counted.received == 1
        assert there.source.trouble() is None
        acknowledge([hint])
        until(lambda: left(bucket) == (0, 0))


def test_what_is_in_work_stays_invisible_although_nothing_can_be_deleted(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/slow"), native(bucket, "p/done"))
    counted = Counted(always(lambda asked, forward: None, "DeleteMessageBatch"))
    with Meddler(bucket.server.endpoint, counted) as meddler, listening(bucket, meddler.endpoint, visibility=4) as there:
        acknowledge(there.hints.wait(2)[1:])
        until(there.source.trouble, timeout=30)
        time.sleep(6)
        assert counted.received == 2
        assert left(bucket) == (0, 2)


class Counted:
    """A meddle, and how many messages came through it."""

    def __init__(self, meddle: Meddle) -> None:
        self.received = 0
        self._meddle = meddle

    def __call__(self, asked: Asked, forward: Forward) -> Answer | None:
        answer = self._meddle(asked, forward)
        if asked.name == "ReceiveMessage" and answer is not None:
            self.received += len(json.loads(answer.body).get("Messages", ()))
        return answer


def test_what_is_held_is_bounded_and_told_when_nothing_of_it_is_settled(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS says nothing at its limit of 120,000: a long poll just brings no message. So many are never held."""
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


def test_what_was_not_settled_comes_back(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/a"))
    with listening(bucket, visibility=2) as there:
        there.hints.wait(1)
    until(lambda: left(bucket) == (1, 0))
    with listening(bucket) as there:
        (hint,) = there.hints.wait(1)
        assert hint.path == "a"


def test_what_a_poll_gets_after_the_end_is_given_back_at_once(bucket: Bucket) -> None:
    """A poll cannot be interrupted, and a reload goes on in the same process: the next source must not wait for it."""
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


def test_a_second_delivery_of_a_held_message_is_no_second_hint(bucket: Bucket) -> None:
    """SQS may deliver twice, whatever the visibility says: the newest handle is the one that deletes."""
    send(bucket, native(bucket, "p/a"))

    with (
        Meddler(bucket.server.endpoint, receiving(VisibilityTimeout=1)) as meddler,
        listening(bucket, meddler.endpoint) as there,
    ):
        (hint,) = there.hints.wait(1)
        until(lambda: _received(bucket, meddler) >= 2)
        assert len(there.hints.all()) == 1
        meddler.meddle = lambda asked, forward: forward(asked)
        acknowledge([hint])
        until(lambda: left(bucket) == (0, 0))


def _received(bucket: Bucket, meddler: Meddler) -> int:
    return meddler.names().count("ReceiveMessage") - 1


def test_an_event_that_is_older_than_one_handled_is_dropped(bucket: Bucket) -> None:
    """Within the hour; `test_after_an_hour_every_event_of_a_key_leads_to_a_look_again` lets time pass."""
    with listening(bucket) as there:
        wanted = 0
        for number, sequencer in enumerate(("00B0", "00B00", "00A", "00C")):
            send(bucket, native(bucket, "p/a", sequencer=sequencer, size=number, eTag="e"))
            # The second is equal to the first (right-padded): a duplicate is looked at again, which costs nothing.
            if sequencer != "00A":
                wanted += 1
                acknowledge(there.hints.wait(wanted)[-1:])
            until(lambda: left(bucket) == (0, 0))
        sizes = [hint.reported.size for hint in there.hints.all() if isinstance(hint.reported, Entry)]
        assert sizes == [0, 1, 3]
        assert there.source.ignored == 1


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
    """SQS calls it our fault; the message comes once more, with a new handle, and costs no second look if nothing changed."""

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


# Poison

POISON = [
    "", " ", "no json", "{", "[]", "{}", "null", "1", '"text"', '{"Records": []}', '{"Records": [{}]}', '{"Records": 7}',
    "[" * 50_000,
    '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {}}]}',
    '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "%ff"}}}]}',
    '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "\\ud800"}}}]}',
    '{"Records": [{"eventName": 5, "s3": {"bucket": {"name": 5}, "object": {"key": ["a"]}}}]}',
    '{"source": "aws.s3", "detail": 5}', '{"Message": "{\\"Message\\": \\"x\\"}"}',
]  # fmt: skip


def test_poison_stays_in_the_queue_and_the_rest_goes_on(bucket: Bucket) -> None:
    # SQS takes no empty message, and what is about another bucket is no poison.
    bodies = [body.replace('"b"', f'"{bucket.name}"') for body in POISON if body.strip()]
    for body in bodies:
        send(bucket, body)
    send(bucket, native(bucket, "p/good"))
    with listening(bucket, visibility=30) as there:
        (hint,) = there.hints.wait(1)
        assert hint.path == "good"
        acknowledge([hint])
        until(lambda: there.source.poisoned == len(bodies))
        until(lambda: left(bucket) == (0, len(bodies)))
        assert there.source.trouble() is None


ODD = [{"eventName": "ObjectCreated:Put", "s3": {}}, {"eventVersion": "two"}, None]


@pytest.mark.parametrize("odd", ODD)
def test_the_good_records_of_a_message_are_followed_once_and_it_is_left_for_the_odd_one(bucket: Bucket, odd: object) -> None:
    """It is delivered again until the dead-letter queue takes it, and costs nothing but that."""
    send(bucket, {"Records": [record(bucket, "p/a"), odd, record(bucket, "p/b"), record(bucket, "other/c")]})
    counted = Counted(receiving(VisibilityTimeout=1, WaitTimeSeconds=1))
    with Meddler(bucket.server.endpoint, counted) as meddler, listening(bucket, meddler.endpoint, visibility=60) as there:
        hints = there.hints.wait(2)
        assert [hint.path for hint in hints] == ["a", "b"]
        until(lambda: counted.received >= 2)
        assert len(there.hints.all()) == 2, "it is in work"
        acknowledge(hints)
        again = counted.received + 2
        until(lambda: counted.received >= again)
        assert len(there.hints.all()) == 2
        assert there.source.poisoned == 1
        assert there.source.trouble() is None
        assert "DeleteMessageBatch" not in meddler.names()
    until(lambda: left(bucket) == (1, 0))


def test_a_message_with_an_odd_record_is_kept_invisible_until_the_others_are_settled_and_no_longer(bucket: Bucket) -> None:
    send(bucket, {"Records": [record(bucket, "p/a"), None]})
    counted = Counted(lambda asked, forward: forward(asked))
    with Meddler(bucket.server.endpoint, counted) as meddler, listening(bucket, meddler.endpoint, visibility=4) as there:
        (hint,) = there.hints.wait(1)
        until(lambda: "ChangeMessageVisibilityBatch" in meddler.names())
        assert counted.received == 1
        acknowledge([hint])
        until(lambda: counted.received >= 2)
        asked = meddler.names().count("ChangeMessageVisibilityBatch")
        time.sleep(3)
        assert meddler.names().count("ChangeMessageVisibilityBatch") == asked


# Versions of the future


def test_any_number_of_messages_of_another_version_is_one_listing_and_one_line(bucket: Bucket, logged: Listener) -> None:
    versions = ["3.0", "1.0", "4.7", "99"]
    with listening(bucket) as there:
        send(bucket, *(native(bucket, "p/a", version=versions[number % 4]) for number in range(40)))
        (hint,) = there.hints.wait(1)
        until(lambda: left(bucket) == (0, 1), timeout=30)
        acknowledge([hint])
        until(lambda: left(bucket) == (0, 0))
        assert [(hint.path, hint.subtree) for hint in there.hints.all()] == [("", True)]
    assert logged.events.count("queue.version") == 1


def test_those_that_came_within_the_hour_are_listed_for_after_it(
    bucket: Bucket, logged: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs, "RELIST_INTERVAL_S", 4.0)
    with (
        Meddler(bucket.server.endpoint, short_polls) as meddler,
        listening(bucket, meddler.endpoint) as there,
    ):
        send(bucket, native(bucket, "p/a", version="3.0"))
        acknowledge(there.hints.wait(1))
        send(bucket, *(native(bucket, "p/a", version="3.0") for _ in range(20)))
        until(lambda: left(bucket) == (0, 0))
        assert len(there.hints.all()) == 1
        hints = there.hints.wait(2)
        assert (hints[1].path, hints[1].subtree, hints[1].receipt) == ("", True, None)
        time.sleep(5)
        assert len(there.hints.all()) == 2, "nothing has come since"
    assert [record.__dict__["count"] for record in logged.records if record.__dict__["event"] == "queue.version"] == [1, 20]


def test_the_bucket_of_another_version_is_asked_for_first(bucket: Bucket) -> None:
    elsewhere = {"eventVersion": "3.0", "eventName": "x", "s3": {"bucket": {"name": "somebody-elses"}}}
    nowhere = {"eventVersion": "3.0", "eventName": "x", "s3": {"place": 7}}
    with listening(bucket) as there:
        send(bucket, *({"Records": [elsewhere]} for _ in range(20)))
        until(lambda: there.source.ignored == 20)
        assert there.hints.all() == []
        send(bucket, {"Records": [nowhere]})
        acknowledge(there.hints.wait(1))
        until(lambda: left(bucket) == (0, 0))


# One message is no other's trouble


class Scripted:
    """A queue's client that gives `batches` in turn, and then nothing; what it was asked for is in `asked`."""

    def __init__(self, *batches: list[dict[str, Any]]) -> None:
        self.batches = list(batches)
        self.asked: list[tuple[str, list[str]]] = []
        self.failing: set[str] = set()
        """Handles that the server cannot do anything for."""

    def receive_message(self, **_: Any) -> dict[str, Any]:
        if not self.batches:
            time.sleep(0.02)
            return {}
        return {"Messages": self.batches.pop(0)}

    def delete_message_batch(self, *, Entries: list[dict[str, Any]], **_: Any) -> dict[str, Any]:  # noqa: N803
        return self._answer("delete", Entries)

    def change_message_visibility_batch(self, *, Entries: list[dict[str, Any]], **_: Any) -> dict[str, Any]:  # noqa: N803
        return self._answer("extend", Entries)

    def _answer(self, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.asked.append((name, [entry["ReceiptHandle"] for entry in entries]))
        return {"Failed": [{"Id": entry["Id"]} for entry in entries if entry["ReceiptHandle"] in self.failing]}

    def times(self, name: str, handle: str) -> int:
        return sum(name == what and handle in handles for what, handles in self.asked)


def received(number: int, key: str = "", **more: Any) -> dict[str, Any]:
    thing = {"key": key or f"p/{number}", "sequencer": f"{number:016X}"}
    event = {"eventVersion": "2.1", "eventName": "ObjectRemoved:Delete", "s3": {"bucket": {"name": "b"}, "object": thing}}
    return {"MessageId": f"m{number}", "ReceiptHandle": f"h{number}", "Body": json.dumps({"Records": [event]})} | more


def unstarted(client: Scripted, **options: Any) -> QueueSource:
    return QueueSource(client, queue_url="http://queue", bucket="b", prefix=PREFIX, hold=lambda: False, **options)


@contextlib.contextmanager
def scripted(client: Scripted) -> Iterator[Listening]:
    source = unstarted(client)
    hints = Hints()
    source.start(hints.deliver)
    try:
        yield Listening(source, hints)
    finally:
        source.stop()


@pytest.mark.parametrize("broken", [{"Body": None}, {"Body": b"\xff"}, {"Body": 7}, {"ReceiptHandle": None}], ids=repr)
def test_whatever_one_message_does_the_nine_others_of_its_batch_are_followed_at_once(broken: dict[str, Any]) -> None:
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


def test_a_message_that_cannot_be_deleted_holds_back_no_other() -> None:
    """One in each batch: the nine others are gone before the pauses begin."""
    sqs = Scripted(*([received(number) for number in range(start, start + 10)] for start in range(0, 200, 10)))
    failing = range(3, 200, 10)
    sqs.failing = {f"h{number}" for number in failing}
    with scripted(sqs) as there:
        acknowledge(there.hints.wait(200))
        until(lambda: all(sqs.times("delete", f"h{number}") for number in range(200)))
        assert not any(sqs.times("delete", f"h{number}") > 1 for number in range(200) if number not in failing)
        until(lambda: there.source.trouble())
        before = sqs.times("delete", "h3")
        time.sleep(1)
        assert sqs.times("delete", "h3") <= before + 2, "alone it is tried more and more slowly"


def late(source: QueueSource, count: int) -> list[Message]:
    """Messages in work, half of whose visibility is over."""
    made = [Message(source._deleter, f"m{number}", f"h{number}") for number in range(count)]
    for message in made:
        source._held.add(message)
    return made


def test_an_extension_that_failed_is_made_at_the_next_turn_and_those_beside_it_in_this_one() -> None:
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
            raise [MemoryError(), RecursionError(), KeyError("x"), UnicodeDecodeError("utf-8", b"", 0, 1, "")][number % 4]

    sqs = Raising([])
    with scripted(sqs) as there:
        until(lambda: there.source._receiver.answered.is_set())
        for _ in range(3):
            sqs.batches.append([received(1)])
            until(there.source.trouble)
        assert there.source.stalled() is None


# Work


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


# Trouble


def test_a_queue_that_was_deleted_is_told_and_found_again(bucket: Bucket, recorder: Recorder) -> None:
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


def test_a_queue_that_is_deleted_during_a_poll_is_noticed(bucket: Bucket) -> None:
    sqs = bucket.server.client("sqs")
    with Meddler(bucket.server.endpoint, short_polls) as meddler, listening(bucket, meddler.endpoint) as there:
        until(there.source._receiver.answered.is_set)
        assert there.source.trouble() is None
        sqs.delete_queue(QueueUrl=bucket.queue_url)
        until(there.source.trouble)
        sqs.create_queue(QueueName=bucket.queue_url.rpartition("/")[2])
        until(lambda: any(hint.subtree for hint in there.hints.all()))


def test_after_a_long_time_without_a_poll_everything_is_listed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_unreachable_endpoint_is_told(bucket: Bucket) -> None:
    with listening(bucket, "http://127.0.0.1:9") as there:
        until(there.source.trouble)
        assert there.source._receiver.answered.is_set()


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


def test_it_stops_at_once_and_deletes_what_was_settled(bucket: Bucket) -> None:
    send(bucket, native(bucket, "p/a"))
    with listening(bucket) as there:
        acknowledge(there.hints.wait(1))
        started = time.monotonic()
        there.source.stop()
        assert time.monotonic() - started < 2
    assert left(bucket) == (0, 0)
