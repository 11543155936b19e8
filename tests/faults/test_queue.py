"""Faults of the queue's events: doubled, late, lost, out of order, of any shape.

Such faults cost time, never data.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.meddler import Answer, always
from tests.support.messages import disordered, receiving, unsuccessful
from tests.support.notifications import bridged, left, native, put, send, silence, sns
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.rig import Rig
    from tests.support.emulator import Bucket
    from tests.support.meddler import Asked, Forward
    from tests.support.processes import Process

    Wrap = Callable[[Bucket, str], object]


def following(rig: Rig, *more: str) -> Process:
    """A pull that hears only what a test sends, after its first listing."""
    silence(rig.bucket)
    pull = rig.pull(*more)
    pull.wait_event("reconcile.finished")
    return pull


def until_acknowledged(rig: Rig, *, timeout: float = 60) -> None:
    wait_until(lambda: left(rig.bucket) == (0, 0), timeout=timeout)


def holding(rig: Rig) -> dict[str, bytes]:
    return {path: file[0] for path, file in rig.pulled().items()}


# Doubled


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_an_event_that_comes_three_times_is_one_download(rig: Rig, at_once: bool) -> None:
    pull = following(rig)
    event = put(rig.bucket, "a", b"1", sequencer="01")
    for events in [[event] * 3] if at_once else [[event]] * 3:
        send(rig.bucket, *events)
        rig.until_pulled({"a": b"1"})
        until_acknowledged(rig)
    assert rig.meddler.names().count("GetObject") == 1
    assert len(pull.events("pull.written")) == 1


class Slow:
    """Answers to GET and HEAD of an object that take a while.

    The class counts the most requests for one key at a time.
    """

    def __init__(self, seconds: float) -> None:
        self.most = 0
        self._seconds = seconds
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, asked: Asked, forward: Forward) -> Answer:
        with self._lock:
            self._now[asked.target] += 1
            self.most = max(self.most, self._now[asked.target])
        time.sleep(self._seconds)
        answer = forward(asked)
        with self._lock:
            self._now[asked.target] -= 1
        return answer


def test_messages_about_a_path_in_work_wait_for_their_turn_and_lead_to_one_write(rig: Rig) -> None:
    pull, slow = following(rig), Slow(1.0)
    rig.meddler.meddle = always(slow, "GetObject", "HeadObject")
    event = put(rig.bucket, "a", b"1")
    send(rig.bucket, event, event)
    wait_until(lambda: "GetObject" in rig.meddler.names(), timeout=30)
    send(rig.bucket, event, event)
    until_acknowledged(rig)
    rig.until_pulled({"a": b"1"})
    assert slow.most == 1
    assert len(pull.events("pull.written")) == 1


# Out of order, and about the past: the bucket decides


@pytest.mark.parametrize(
    "sequencers", [("00AF", "00B", "00B01"), ("", "", "")], ids=["sequencers", "none"]
)
def test_events_in_any_order_end_in_what_the_bucket_holds(
    rig: Rig, sequencers: tuple[str, str, str]
) -> None:
    """Two histories in all their orders, each event handled before the next one comes."""
    following(rig, "--delete")
    signal_handler = list(itertools.permutations(range(3)))
    keys = [f"{end}/{number}" for end in ("there", "gone") for number in range(len(signal_handler))]
    told = {key: _history(rig.bucket, key, *sequencers) for key in keys}
    for turn in range(3):
        send(
            rig.bucket,
            *(events[signal_handler[int(key[-1])][turn]] for key, events in told.items()),
        )
        until_acknowledged(rig)
    rig.until_pulled({key: b"second" for key in keys if key.startswith("there")})


def _history(bucket: Bucket, key: str, one: str, two: str, three: str) -> list[object]:
    """Three events of a key, in their true order; `one` to `three` are their sequencers."""
    first = put(bucket, key, b"first", sequencer=one)
    removal = "ObjectRemoved:DeleteMarkerCreated"
    if key.startswith("gone"):
        second = put(bucket, key, b"second", sequencer=two)
        bucket.delete(key)
        return [first, second, native(bucket, key, event=removal, sequencer=three)]
    bucket.delete(key)
    return [
        first,
        native(bucket, key, event=removal, sequencer=two),
        put(bucket, key, b"second", sequencer=three),
    ]


REMOVALS: dict[str, Wrap] = {
    "delete": lambda bucket, key: native(bucket, key, event="ObjectRemoved:Delete", versionId="v1"),
    "marker": lambda bucket, key: native(
        bucket, key, event="ObjectRemoved:DeleteMarkerCreated", versionId="v1"
    ),
    "expired": lambda bucket, key: native(bucket, key, event="LifecycleExpiration:Delete"),
    "expired-marker": lambda bucket, key: native(
        bucket, key, event="LifecycleExpiration:DeleteMarkerCreated"
    ),
    "bridge": lambda bucket, key: bridged(bucket, key, "Object Deleted"),
}
"""What says of a key that something was deleted: a version, an old marker, or the object itself."""


@pytest.mark.parametrize("delete", [True, False], ids=["--delete", "without"])
def test_a_removal_event_deletes_only_what_the_bucket_no_longer_has(rig: Rig, delete: bool) -> None:
    """The deletion of a noncurrent version is told in the same words as that of the object."""
    kept, gone = [f"kept/{kind}" for kind in REMOVALS], [f"gone/{kind}" for kind in REMOVALS]
    for key in kept + gone:
        rig.bucket.put(key, b"old")
        rig.bucket.put(key, key.encode())
    pull = following(rig, *(["--delete"] if delete else []))
    rig.until_pulled({key: key.encode() for key in kept + gone})
    before = {key: (rig.into / key).stat() for key in kept}
    for key in gone:
        rig.bucket.delete(key)
    send(
        rig.bucket,
        *(
            wrap(rig.bucket, f"{place}/{kind}")
            for place in ("kept", "gone")
            for kind, wrap in REMOVALS.items()
        ),
    )
    until_acknowledged(rig)
    assert holding(rig) == {key: key.encode() for key in (kept if delete else kept + gone)}
    assert {key: (rig.into / key).stat() for key in kept} == before
    assert len(pull.events("pull.deleted")) == (len(gone) if delete else 0)


def test_an_undeletion_that_is_told_as_a_deletion_restores_the_file(rig: Rig) -> None:
    rig.bucket.put("a", b"1", mtime="1700000000.5")
    following(rig, "--delete")
    rig.until_pulled({"a": b"1"})
    before = rig.pulled()
    marker = rig.bucket.server.client("s3").delete_object(Bucket=rig.bucket.name, Key="a")[
        "VersionId"
    ]
    send(
        rig.bucket,
        native(
            rig.bucket,
            "a",
            event="ObjectRemoved:DeleteMarkerCreated",
            versionId=marker,
            sequencer="01",
        ),
    )
    rig.until_pulled({})
    rig.bucket.server.client("s3").delete_object(Bucket=rig.bucket.name, Key="a", VersionId=marker)
    send(
        rig.bucket,
        native(rig.bucket, "a", event="ObjectRemoved:Delete", versionId=marker, sequencer="02"),
    )
    rig.until_pulled({"a": b"1"})
    until_acknowledged(rig)
    assert rig.pulled() == before


def test_messages_from_long_ago_bring_no_old_state_back(rig: Rig) -> None:
    """Messages as a redrive of the dead-letter queue sends them.

    Their ids are new, and the daemon has never seen one of them.
    """
    bucket = rig.bucket
    old = [put(bucket, "a", b"old", sequencer="01"), put(bucket, "b", b"old", sequencer="02")]
    old += [native(bucket, "a", event="ObjectRemoved:Delete", sequencer="03")]
    bucket.put("a", b"new")
    bucket.delete("b")
    pull = following(rig, "--delete")
    rig.until_pulled({"a": b"new"})
    before = rig.pulled()
    send(bucket, *old)
    until_acknowledged(rig)
    assert rig.pulled() == before
    assert len(pull.events("pull.written")) == 1


# Lost


def test_what_no_event_tells_is_found_by_the_next_listing(rig: Rig) -> None:
    rig.bucket.put("deleted", b"1")
    rig.bucket.put("changed", b"1")
    pull = following(rig, "--delete", "--reconcile-interval", "3s")
    rig.until_pulled({"deleted": b"1", "changed": b"1"})
    rig.bucket.delete("deleted")
    rig.bucket.put("changed", b"2")
    rig.bucket.put("new", b"3")
    before = len(pull.events("reconcile.finished"))
    rig.until_pulled({"changed": b"2", "new": b"3"})
    # One listing may have been under way, and another one may have followed before this line.
    assert 1 <= len(pull.events("reconcile.finished")) - before <= 3
    assert pull.wait_event("queue.missed")["count"] == 3


def test_a_queue_that_loses_doubles_delays_and_reorders_changes_nothing_in_the_end(
    rig: Rig,
) -> None:
    rig.meddler.meddle = disordered("all of it", lost=0.2, doubled=0.2, late=0.3)
    pull = rig.pull("--delete", "--reconcile-interval", "5s")
    push = rig.push("--delete")
    for turn in range(5):
        for number in range(12):
            rig.write(f"{number % 3}/{number}", f"{turn} {number}".encode())
        for number in range(turn, 12, 5):
            (rig.out / f"{number % 3}/{number}").unlink()
        time.sleep(0.7)
    rig.until_equal()
    until_acknowledged(rig)
    assert not pull.events("conflict.kept")
    assert not push.events("conflict.kept")


def test_what_the_queue_forgot_while_the_host_was_off_is_found_at_the_start(rig: Rig) -> None:
    for key in ("changed", "deleted", "same"):
        rig.bucket.put(key, b"1")
    pull = rig.pull("--delete")
    rig.until_pulled({"changed": b"1", "deleted": b"1", "same": b"1"})
    assert pull.stop() == 143
    rig.bucket.put("changed", b"2")
    rig.bucket.put("new", b"3")
    rig.bucket.delete("deleted")
    silence(rig.bucket)  # the retention is over
    again = rig.pull("--delete", "--ready", "synced")
    # Nothing blocks: with `ready = synced` this is done before the service reports READY=1.
    assert holding(rig) == {"changed": b"2", "new": b"3", "same": b"1"}
    assert len(again.events("pull.written")) == 2


# Of any shape


SHAPES: dict[str, Wrap] = {
    "s3": native,
    "sns": lambda bucket, key: sns(native(bucket, key)),
    "bridge": bridged,
    "sns-bridge": lambda bucket, key: sns(bridged(bucket, key)),
}
ODD = ("red flower.txt", "a+b", "a%2Bb", "a%25b%", "\u00fc\u65e5.txt", "line\nfeed")


def test_every_shape_in_one_queue_names_every_key_exactly(rig: Rig) -> None:
    following(rig)
    keys = [(wrap, f"{shape}/{name}") for shape, wrap in SHAPES.items() for name in ODD]
    for _, key in keys:
        rig.bucket.put(key, key.encode())
    send(rig.bucket, *(wrap(rig.bucket, key) for wrap, key in keys))
    rig.until_pulled({key: key.encode() for _, key in keys})
    until_acknowledged(rig)


def test_what_is_no_notification_ends_in_the_dead_letter_queue_and_stops_nobody(rig: Rig) -> None:
    with_dead_letters(rig.bucket, receives=2)
    rig.meddler.meddle = receiving(VisibilityTimeout=1)
    pull = following(rig)
    poison = [
        "no json",
        "[]",
        '{"Records": null}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {}}]}',
    ]
    send(rig.bucket, *poison, put(rig.bucket, "a", b"1"))
    rig.until_pulled({"a": b"1"})
    until_acknowledged(rig)
    pull.wait_event("queue.poison")
    assert sorted(dead_letters(rig.bucket)) == sorted(poison)
    wait_until(lambda: _status(rig, "--json").count('"poisoned": 4,'), timeout=60, every=1)
    assert "odd messages    4 since the start" in _status(rig)
    send(rig.bucket, put(rig.bucket, "b", b"2"))
    rig.until_pulled({"a": b"1", "b": b"2"})


def _status(rig: Rig, *more: str) -> str:
    asked = rig.start("status", "--state-dir", str(rig.pull_state), *more)
    asked.wait()
    return asked.stdout


LONG = "k/" * 550 + "xy"
FORGED: dict[str, dict[str, object]] = {
    "etag with a line break": {"eTag": "x\r\nx-amz-evil: 1"},
    "etag with a line feed": {"eTag": "x\ny"},
    "etag with a NUL": {"eTag": "x\0y"},
    "etag with half a character": {"eTag": "\ud800"},
    "etag of 200 kB": {"eTag": "e" * 200_000},
    "etag that is a number": {"eTag": 7},
    "version with a line break": {"versionId": "v\r\nx-amz-evil: 1"},
    "version with half a character": {"versionId": "\udfff"},
    "sequencer with a NUL": {"sequencer": "00\0"},
    "sequencer that is a list": {"sequencer": ["00"]},
    "size below zero": {"size": -1},
    "size beyond any": {"size": 10**30},
    "size of 5,000 digits": {"size": 10**4_000},
    "size that is none": {"size": float("nan")},
    "key of 1,102 bytes": {"key": LONG},
    "key of 200 kB": {"key": "k" * 200_000},
    "key with half a character": {"key": "\ud800"},
    "key that is no UTF-8": {"key": "%FF"},
    "key that is nothing": {"key": ""},
}


def forged(
    bucket: Bucket, number: int, thing: dict[str, object], event: str = "ObjectCreated:Put"
) -> dict[str, object]:
    """A record about the object `there` with this number, but for what it says of it."""
    there = {"key": f"there{number}", "size": 1, "eTag": "e", "sequencer": "00AA"} | thing
    return {
        "eventVersion": "2.1",
        "eventName": event,
        "s3": {"bucket": {"name": bucket.name}, "object": there},
    }


@pytest.mark.parametrize("event", ["ObjectCreated:Put", "ObjectRemoved:Delete"])
def test_a_forged_message_of_any_kind_is_left_by_name_and_stops_nobody(
    rig: Rig, event: str
) -> None:
    with_dead_letters(rig.bucket, receives=2)
    rig.meddler.meddle = receiving(VisibilityTimeout=1)
    there = {f"there{number}": b"1" for number in range(len(FORGED))}
    for key, body in there.items():
        rig.bucket.put(key, body)
    pull = following(rig, "--transfers", "2")
    rig.until_pulled(there)
    asked = len(rig.meddler.asked)
    for number, thing in enumerate(FORGED.values()):
        send(rig.bucket, *[{"Records": [forged(rig.bucket, number, thing, event)]}] * 2)
    send(rig.bucket, put(rig.bucket, "a", b"1"))
    rig.until_pulled(there | {"a": b"1"}, timeout=20)
    until_acknowledged(rig)
    named = [told["message"] for told in pull.events("queue.poison")]
    assert sum("'there" in message for message in named) >= 8
    assert sum("more messages" in message for message in named) == 1, (
        "of the other ones the log says how many"
    )
    assert not [
        name for name in ("outage.started", "internal.error", "path.failed") if pull.events(name)
    ]
    about = [one for one in rig.meddler.asked[asked:] if one.name in ("GetObject", "HeadObject")]
    assert [(one.name, one.target.partition("?")[0].rpartition("/")[2]) for one in about] == [
        ("GetObject", "a")
    ]
    assert not [one for one in rig.meddler.asked if "x-amz-evil" in one.headers]
    assert len(all_dead_letters(rig.bucket)) == 2 * len(FORGED)


def test_good_records_beside_odd_ones_are_followed_once_and_their_message_is_left(rig: Rig) -> None:
    """The kind of the odd record does not matter.

    The message is delivered again until the dead-letter queue takes it, and costs nothing.
    """
    with_dead_letters(rig.bucket, receives=3)
    rig.meddler.meddle = receiving(VisibilityTimeout=1)
    pull = following(rig)
    wanted: dict[str, bytes] = {}
    for number, thing in enumerate(FORGED.values()):
        good = [
            put(rig.bucket, f"{number}{side}", b"1")["Records"][0] for side in ("before", "after")
        ]
        wanted |= {f"{number}{side}": b"1" for side in ("before", "after")}
        send(rig.bucket, {"Records": [good[0], forged(rig.bucket, number, thing), good[1]]})
    rig.until_pulled(wanted, timeout=30)
    until_acknowledged(rig)
    assert len(all_dead_letters(rig.bucket)) == len(FORGED)
    asked = Counter(rig.meddler.names())
    assert (asked["GetObject"], asked["HeadObject"], asked["DeleteMessageBatch"]) == (
        len(wanted),
        0,
        0,
    )
    assert len(pull.events("pull.written")) == len(wanted)


def all_dead_letters(bucket: Bucket) -> list[str]:
    """Those that are visible; each batch is hidden from the next one."""
    found: list[str] = []
    while batch := dead_letters(bucket):
        found += batch
    return found


def with_dead_letters(bucket: Bucket, *, receives: int) -> None:
    """What was received so often goes to a queue of its own."""
    sqs = bucket.server.client("sqs")
    url = sqs.create_queue(QueueName=f"{bucket.name}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "{receives}"}}'
    sqs.set_queue_attributes(QueueUrl=bucket.queue_url, Attributes={"RedrivePolicy": policy})


def dead_letters(bucket: Bucket) -> list[str]:
    sqs = bucket.server.client("sqs")
    answer = sqs.receive_message(QueueUrl=f"{bucket.queue_url}-dead", MaxNumberOfMessages=10)
    return [message["Body"] for message in answer.get("Messages", ())]


def test_a_new_major_version_leads_to_a_listing_and_is_acknowledged_after_it(rig: Rig) -> None:
    pull = following(rig)
    listing = threading.Event()
    rig.meddler.meddle = always(
        lambda asked, forward: forward(asked) if listing.wait(60) else None, "ListObjectsV2"
    )
    event = put(rig.bucket, "a", b"1", version="3.0")
    send(rig.bucket, event)
    told = pull.wait_event("queue.version")
    assert (told["level"], "3.0" in told["message"]) == ("error", True)
    time.sleep(1)
    assert left(rig.bucket) == (0, 1)
    assert rig.pulled() == {}
    listing.set()
    rig.until_pulled({"a": b"1"})
    until_acknowledged(rig)


def test_messages_of_a_new_major_version_list_once_an_hour(rig: Rig) -> None:
    """Messages in any order, also about another bucket, which cause no listing.

    All messages are acknowledged, and logged once.
    """
    pull = following(rig)
    listed = rig.meddler.names().count("ListObjectsV2")
    elsewhere = {
        "eventVersion": "3.0",
        "eventName": "x",
        "s3": {"bucket": {"name": "somebody-elses"}},
    }
    for _ in range(5):
        send(rig.bucket, {"Records": [elsewhere]})
        until_acknowledged(rig)
    assert rig.meddler.names().count("ListObjectsV2") == listed
    for number in range(15):
        send(rig.bucket, put(rig.bucket, str(number), b"1", version=f"3.{number}"))
        until_acknowledged(rig)
    time.sleep(1)
    assert rig.meddler.names().count("ListObjectsV2") == listed + 1
    assert len(pull.events("queue.version")) == 1
    assert rig.pulled().keys() == {"0"}
    pull.stop()
    rig.pull()
    rig.until_pulled({str(number): b"1" for number in range(15)})


def test_a_stream_of_a_new_major_version_is_no_queue_of_listings(rig: Rig) -> None:
    """Whatever comes while a listing waits is answered by that one."""
    pull = following(rig)
    listing = threading.Event()
    rig.meddler.meddle = always(
        lambda asked, forward: forward(asked) if listing.wait(60) else None, "ListObjectsV2"
    )
    for number in range(20):
        send(rig.bucket, put(rig.bucket, str(number), b"1", version="3.0"))
        wait_until(lambda: left(rig.bucket)[0] == 0, timeout=30, every=0.05)
    listing.set()
    rig.until_pulled({str(number): b"1" for number in range(20)})
    until_acknowledged(rig)
    assert (
        len(pull.events("reconcile.finished")) <= 4
    )  # the first of all, one under way, one that waits


# In part


def test_of_a_batch_only_what_failed_comes_again(rig: Rig) -> None:
    pull = following(rig)
    damaged = threading.Event()
    damaged.set()

    def damage(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        if damaged.is_set() and asked.target.partition("?")[0].endswith("/bad"):
            return Answer(answer.status, answer.headers, bytes(len(answer.body)))
        return answer

    rig.meddler.meddle = always(damage, "GetObject")
    wanted = {f"good{number}": b"1" for number in range(9)} | {"bad": b"2"}
    for path, content in wanted.items():
        rig.write(path, content)
    assert rig.push("--once").wait() == 0
    rig.bucket.receive_all()
    send(rig.bucket, *(native(rig.bucket, key) for key in wanted))
    pull.wait_event("path.failed", path="bad")
    wait_until(lambda: left(rig.bucket) == (0, 1), timeout=30)
    assert holding(rig) == {key: content for key, content in wanted.items() if key != "bad"}
    damaged.clear()
    rig.until_pulled(wanted)
    until_acknowledged(rig)
    assert len(pull.events("pull.written")) == 10


@pytest.mark.parametrize("sender", [True, False], ids=["the sender's fault", "the server's fault"])
def test_what_cannot_be_deleted_from_the_queue_comes_again_and_costs_no_request_of_s3(
    rig: Rig, sender: bool
) -> None:
    refused = unsuccessful("ReceiptHandleIsInvalid" if sender else "InternalError", sender=sender)
    refusing = always(refused, "DeleteMessageBatch")
    seen_again = receiving(VisibilityTimeout=1)
    rig.meddler.meddle = lambda asked, forward: refusing(
        asked, lambda same: seen_again(same, forward)
    )
    pull = following(rig)
    send(rig.bucket, put(rig.bucket, "a", b"1"))
    rig.until_pulled({"a": b"1"})
    wait_until(lambda: rig.meddler.names().count("DeleteMessageBatch") >= 3, timeout=60)
    asked = Counter(rig.meddler.names())
    assert (asked["GetObject"], asked["HeadObject"]) == (1, 0)
    assert len(pull.events("pull.written")) == 1
    rig.meddler.meddle = seen_again
    until_acknowledged(rig)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {"content-type": "text/html"}, b"<html>login</html>"),
        Answer(200, {"content-type": "application/x-amz-json-1.0"}, b"{}"),
        Answer(200, {"content-type": "application/x-amz-json-1.0"}, b'{"__type": "InternalError"}'),
    ],
    ids=["a page", "nothing", "an error within a 200"],
)
def test_what_answers_polls_at_once_and_is_no_queue_is_asked_seldom_and_told(
    rig: Rig, answer: Answer
) -> None:
    """A captive portal, a broken proxy: pull would be deaf, and ask hundreds of times a second."""
    pull = rig.pull()
    rig.meddler.meddle = lambda asked, forward: (
        answer if asked.name == "ReceiveMessage" else forward(asked)
    )
    wait_until(
        lambda: sum(asked.name == "ReceiveMessage" for asked in rig.meddler.asked) > 5, timeout=60
    )
    before = len(rig.meddler.asked)
    time.sleep(15)
    assert len(rig.meddler.asked) - before < 40
    wait_until(lambda: "answers at once" in _page(rig), timeout=60)
    rig.meddler.meddle = lambda asked, forward: forward(asked)
    rig.bucket.put("after", b"1")
    rig.until_pulled({"after": b"1"})
    assert pull.running


def _page(rig: Rig) -> str:
    status = rig.start("status", "--state-dir", str(rig.pull_state))
    status.wait()
    return status.stdout
