"""From messages to hints: every envelope, other buckets, older events, other versions, poison."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from syncloud.core import names
from syncloud.core.model import Absent, Entry
from syncloud.queue import sqs
from tests.support.meddler import Meddler
from tests.support.messages import receiving, short_polls
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
from tests.support.queues import Counted, acknowledge, listening, until

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.listener import Listener


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
        lambda bucket: record(
            bucket, KEY, size=3, eTag="e1", versionId="v1"
        ),  # a Lambda that forwards single records
        lambda bucket: native(
            bucket, KEY, version="2.99", size=3, eTag="e1", versionId="v1", novelty={"x": 1}
        ),
    ],
    ids=[
        "s3",
        "sns",
        "bridge",
        "sns-bridge",
        "lambda-sqs",
        "lambda-sqs-sns",
        "lambda-sns",
        "destination",
        "record",
        "minor",
    ],
)
def test_every_envelope_names_the_same_path(
    bucket: Bucket, wrap: Callable[[Bucket], object]
) -> None:
    send(bucket, wrap(bucket))
    with listening(bucket) as there:
        (hint,) = there.hints.wait(1)
        assert (hint.path, hint.subtree) == (PATH, False)
        assert hint.reported == Entry(PATH, ("e1", "v1", ""), 3, 0, 0)
        acknowledge([hint])
        until(lambda: left(bucket) == (0, 0))
        assert there.source.trouble() is None


@pytest.mark.parametrize(
    "event",
    ["ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:Delete"],
)
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
    send(
        bucket,
        native(
            bucket, "other/a", "p", "p/", "px/a", f"p/{names.hidden('probe', names.new_nonce())}"
        ),
    )
    for event in (
        "ObjectTagging:Put",
        "ObjectAcl:Put",
        "LifecycleTransition",
        "SomethingOfTheFuture:Done",
    ):
        send(bucket, native(bucket, "p/a", event=event))
    with listening(bucket) as there:
        until(lambda: left(bucket) == (0, 0))
        assert there.hints.all() == []
        assert there.source.ignored == 10
        assert there.source.poisoned == 0


def test_of_another_bucket_nothing_counts_in_whatever_form_it_comes(bucket: Bucket) -> None:
    """Messages about other buckets cause no look, no listing and no dead letter.

    They are other teams' affair.
    """
    elsewhere = replace(bucket, name="another-bucket")
    odd: list[dict[str, object]] = [
        {"eTag": "x\ny"},
        {"size": -1},
        {"sequencer": "no"},
        {"versionId": 7},
    ]
    forms: list[object] = [
        native(elsewhere, "p/a", version=version) for version in ("2.1", "3.0", "1", "two")
    ]
    forms += [native(elsewhere, "p/a", **thing) for thing in odd] + [
        native(elsewhere, "p/" + "k" * 5_000)
    ]
    forms += [
        native(elsewhere, "p/a", event="a\nb"),
        native(elsewhere, "p/a", event="ObjectRemoved:Delete"),
    ]
    forms += [
        bridged(elsewhere, "p/a"),
        bridged(elsewhere, "p/a", etag="x\ny"),
        bridged(elsewhere, "p/a", "\n"),
    ]
    forms += [{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": elsewhere.name}]
    send(
        bucket,
        *forms,
        *map(sns, forms),
        *map(lambda_of_sns, forms),
        *map(lambda_of_sqs, map(sns, forms)),
    )
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


def test_a_second_delivery_of_a_held_message_is_no_second_hint(bucket: Bucket) -> None:
    """SQS may deliver twice, whatever the visibility timeout: the newest handle deletes."""
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
    """The limit is an hour.

    `test_after_an_hour_every_event_of_a_key_leads_to_a_look_again` lets time pass.
    """
    with listening(bucket) as there:
        wanted = 0
        for number, sequencer in enumerate(("00B0", "00B00", "00A", "00C")):
            send(bucket, native(bucket, "p/a", sequencer=sequencer, size=number, eTag="e"))
            # The second equals the first (right-padded): a duplicate leads to a second look, which
            # costs nothing.
            if sequencer != "00A":
                wanted += 1
                acknowledge(there.hints.wait(wanted)[-1:])
            until(lambda: left(bucket) == (0, 0))
        sizes = [
            hint.reported.size for hint in there.hints.all() if isinstance(hint.reported, Entry)
        ]
        assert sizes == [0, 1, 3]
        assert there.source.ignored == 1


POISON = [
    "", " ", "no json", "{", "[]", "{}", "null", "1", '"text"',
    '{"Records": []}', '{"Records": [{}]}', '{"Records": 7}',
    "[" * 50_000,
    '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {}}]}',
    ('{"Records": [{"eventName": "ObjectCreated:Put", '
     '"s3": {"bucket": {"name": "b"}, "object": {"key": "%ff"}}}]}'),
    ('{"Records": [{"eventName": "ObjectCreated:Put", '
     '"s3": {"bucket": {"name": "b"}, "object": {"key": "\\ud800"}}}]}'),
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
def test_the_good_records_of_a_message_are_followed_once_and_it_is_left_for_the_odd_one(
    bucket: Bucket, odd: object
) -> None:
    """It is delivered again until the dead-letter queue takes it, and costs nothing but that."""
    send(
        bucket,
        {"Records": [record(bucket, "p/a"), odd, record(bucket, "p/b"), record(bucket, "other/c")]},
    )
    counted = Counted(receiving(VisibilityTimeout=1, WaitTimeSeconds=1))
    with (
        Meddler(bucket.server.endpoint, counted) as meddler,
        listening(bucket, meddler.endpoint, visibility=60) as there,
    ):
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


def test_a_message_with_an_odd_record_is_kept_invisible_until_the_others_are_settled_and_no_longer(
    bucket: Bucket,
) -> None:
    send(bucket, {"Records": [record(bucket, "p/a"), None]})
    counted = Counted(lambda asked, forward: forward(asked))
    with (
        Meddler(bucket.server.endpoint, counted) as meddler,
        listening(bucket, meddler.endpoint, visibility=4) as there,
    ):
        (hint,) = there.hints.wait(1)
        until(lambda: "ChangeMessageVisibilityBatch" in meddler.names())
        assert counted.received == 1
        acknowledge([hint])
        until(lambda: counted.received >= 2)
        asked = meddler.names().count("ChangeMessageVisibilityBatch")
        time.sleep(3)
        assert meddler.names().count("ChangeMessageVisibilityBatch") == asked


def test_any_number_of_messages_of_another_version_is_one_listing_and_one_line(
    bucket: Bucket, logged: Listener
) -> None:
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
    assert [
        record.__dict__["count"]
        for record in logged.records
        if record.__dict__["event"] == "queue.version"
    ] == [1, 20]


def test_the_bucket_of_another_version_is_asked_for_first(bucket: Bucket) -> None:
    elsewhere = {
        "eventVersion": "3.0",
        "eventName": "x",
        "s3": {"bucket": {"name": "somebody-elses"}},
    }
    nowhere = {"eventVersion": "3.0", "eventName": "x", "s3": {"place": 7}}
    with listening(bucket) as there:
        send(bucket, *({"Records": [elsewhere]} for _ in range(20)))
        until(lambda: there.source.ignored == 20)
        assert there.hints.all() == []
        send(bucket, {"Records": [nowhere]})
        acknowledge(there.hints.wait(1))
        until(lambda: left(bucket) == (0, 0))
