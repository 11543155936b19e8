"""Messages of a hostile sender to the queue.

Each record is at most one check of one path, and no flood stops a change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.faults import slow
from tests.support.meddler import Meddler, always
from tests.support.notifications import bridged, left, native, put, send, silence, sns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.emulator import Bucket
    from tests.support.meddler import Asked
    from tests.support.processes import Process

HUGE = 17 * 1024 * 1024
"""Bytes: more than any answer may have that no part was asked of."""


@pytest.fixture
def meddler(bucket: Bucket) -> Iterator[Meddler]:
    with Meddler(bucket.server.endpoint, lambda asked, forward: forward(asked)) as made:
        yield made


@pytest.fixture
def follow(
    bucket: Bucket, meddler: Meddler, tmp_path: Path, syncloud: Start
) -> Callable[..., Process]:
    """A pull that hears only what a test sends, after its first listing."""

    def start(*more: str) -> Process:
        silence(bucket)
        (tmp_path / "root").mkdir()
        places = ["--directory", str(tmp_path / "root"), "--state-dir", str(tmp_path / "state")]
        where = [
            "--bucket",
            bucket.name,
            "--prefix",
            "p",
            "--queue-url",
            bucket.queue_url,
            "--log-format",
            "json",
        ]
        process = syncloud("pull", *places, *where, *more, endpoint=meddler.endpoint)
        process.wait_event("reconcile.finished")
        process.wait_event("service.ready")
        return process

    return start


def is_listing(asked: Asked) -> bool:
    """One that goes on beyond a first key."""
    return asked.name == "ListObjectsV2" and parse_qs(urlsplit(asked.target).query).get(
        "max-keys"
    ) != ["1"]


def looks(asked: list[Asked]) -> int:
    return sum(one.name in ("HeadObject", "GetObject") for one in asked)


def proofs(asked: list[Asked]) -> int:
    return sum(one.name == "ListObjectsV2" for one in asked)


@pytest.mark.parametrize("envelope", [lambda message: message, sns])
@pytest.mark.parametrize("event", ["ObjectCreated:Put", "ObjectRemoved:Delete"])
def test_a_forged_message_costs_one_look_at_one_path(
    bucket: Bucket,
    meddler: Meddler,
    follow: Callable[..., Process],
    envelope: Callable[[Any], Any],
    event: str,
) -> None:
    for number in range(30):
        bucket.put(f"p/dir/sub/{number}", b"x")
    bucket.put("p/file", b"x")
    process = follow()
    process.wait_for(
        lambda: len(process.events("pull.written")) == 31
    )  # what the first listing has found
    before = len(meddler.asked)
    keys = [
        "missing",
        "dir",
        "dir/",
        "dir/sub",
        "dir/sub/",
        "dir/su",
        "d",
        "file/",
        "file/below",
        "dir/sub/1",
        "dir/sub/2/",
    ]
    refused = ["../x", "a//b", "/", "/etc/x", ".", "n" * 256, "dir//", "./x"]
    for key in keys + refused:
        send(bucket, envelope(native(bucket, f"p/{key}", event=event, size=3, eTag="e" * 32)))
    send(bucket, envelope(bridged(bucket, "p/missing")), native(bucket, "p/", "p", "other/x"))
    send(bucket, put(bucket, "p/real", b"real"))
    process.wait_event("pull.written", path="real", timeout=60)
    process.wait_for(lambda: left(bucket)[0] == 0)
    asked = meddler.asked[before:]
    assert not [one.target for one in asked if is_listing(one)]
    # A promise that proves wrong (412) is a GET and a HEAD; a 404 counts only with a LIST of one
    # key, which many share.
    assert looks(asked) <= 2 * (len(keys) + 1) + 2
    assert proofs(asked) <= len(keys) + 1


def test_a_flood_of_forged_records_lists_nothing_and_lets_real_changes_through(
    bucket: Bucket, meddler: Meddler, follow: Callable[..., Process]
) -> None:
    process = follow()
    before, lines = len(meddler.asked), len(process.stderr.splitlines())
    flood = [
        native(bucket, *(f"p/no/{message}/{number}" for number in range(10)))
        for message in range(200)
    ]
    send(bucket, *flood[:100], put(bucket, "p/real", b"real"), *flood[100:])
    process.wait_event("pull.written", path="real", timeout=60)
    process.wait_for(lambda: left(bucket) == (0, 0), timeout=60)
    asked = meddler.asked[before:]
    assert not [one.target for one in asked if is_listing(one)]
    assert looks(asked) <= 2_000 + 1, "a record is one look"
    assert proofs(asked) < 1_000, "looks at the same time share their proof"
    assert len(process.stderr.splitlines()) - lines < 10, "of what is not there nobody is told"


def test_while_a_flood_lasts_a_listing_finds_what_no_event_tells(
    bucket: Bucket, meddler: Meddler, follow: Callable[..., Process]
) -> None:
    meddler.meddle = always(slow(0.2), "HeadObject")
    process = follow("--reconcile-interval", "2s")
    send(
        bucket,
        *(
            native(bucket, *(f"p/no/{message}/{number}" for number in range(20)))
            for message in range(450)
        ),
    )
    process.wait_for(lambda: any(one.name == "HeadObject" for one in meddler.asked))
    bucket.put("p/untold", b"x")
    process.wait_event("pull.written", path="untold", timeout=60)
    assert left(bucket) != (0, 0), "it waits for no more than a bounded number of paths"


def test_a_promise_that_leads_to_no_answer_is_not_believed_again(
    bucket: Bucket, follow: Callable[..., Process], tmp_path: Path
) -> None:
    """The true ETag of a huge object, and a small size: what is asked for as small is cut off."""
    process = follow()
    body = b"h" * HUGE
    answer = bucket.put("p/huge", body)
    send(
        bucket,
        native(
            bucket, "p/huge", size=3, eTag=answer["ETag"].strip('"'), versionId=answer["VersionId"]
        ),
    )
    process.wait_event("pull.written", path="huge", timeout=30)
    assert (tmp_path / "root" / "huge").read_bytes() == body


def test_many_odd_messages_are_few_lines_and_stay_for_the_dead_letter_queue(
    bucket: Bucket, follow: Callable[..., Process]
) -> None:
    process = follow()
    nested: Any = "x"
    for _ in range(12):
        nested = {"Message": nested}
    for number in range(40):
        send(
            bucket,
            f"no json {number}",
            nested,
            native(bucket, "p/" + f"{number}" + "k" * 2_000),
            "[" * 1_000,
        )
    send(bucket, put(bucket, "p/real", b"real"))
    process.wait_event("pull.written", path="real", timeout=60)
    process.wait_for(lambda: left(bucket) == (0, 160), timeout=60)
    lines = process.events("queue.poison")
    assert len(lines) <= 22
    assert max(len(str(line)) for line in lines) < 1_000
    assert process.stop() == 143
    assert sum(line.get("count", 1) for line in process.events("queue.poison")) == 160
