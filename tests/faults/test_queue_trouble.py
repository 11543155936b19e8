"""Faults of the queue itself: deleted, shared by mistake, or refusing a host with a wrong clock."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.meddler import Answer, error
from tests.support.messages import short_polls
from tests.support.notifications import deleted_queue, left, silence
from tests.support.systemd import Systemd
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.meddler import Asked, Forward
    from tests.support.processes import Process


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(tmp_path) as made:
        yield made


def listening(rig: Rig, systemd: Systemd) -> Process:
    """A pull whose first listing, of an empty bucket, is over."""
    pull = rig.pull("--delete", env=systemd.environment)
    pull.wait_event("reconcile.finished")
    return pull


def until_quiet(rig: Rig) -> None:
    """Until everything that was told is settled, so that only what comes now is at work."""
    wait_until(lambda: left(rig.bucket) == (0, 0), timeout=60)


# Polled by the dead


def test_what_the_poll_of_a_dead_daemon_takes_is_found_soon_after_a_restart(
    rig: Rig, systemd: Systemd
) -> None:
    """The server answers a poll whose client has gone.

    The messages stay hidden for the visibility timeout (two minutes).
    """
    pull = listening(rig, systemd)
    rig.bucket.put("before", b"1")
    rig.until_pulled({"before": b"1"})
    until_quiet(rig)
    time.sleep(1)  # the next long poll is under way
    pull.kill()
    listening(rig, systemd)
    wanted = {"before": b"1"}
    for number in range(5):
        wanted[f"{number}"] = b"2"
        rig.bucket.put(f"{number}", b"2")
        time.sleep(0.3)
    rig.until_pulled(wanted, timeout=70)


# Deleted


def test_a_deleted_queue_is_told_asked_for_seldom_and_made_up_for_when_it_is_back(
    rig: Rig, systemd: Systemd
) -> None:
    rig.meddler.meddle = short_polls
    pull = listening(rig, systemd)
    rig.bucket.put("before", b"1")
    rig.until_pulled({"before": b"1"})
    until_quiet(rig)
    with deleted_queue(rig.bucket):
        told = pull.wait_event("queue.unreachable")
        assert (told["level"], "NonExistentQueue" in told["error_code"]) == ("warning", True)
        rig.bucket.put("missed", b"2")
        rig.bucket.delete("before")
        wait_until(lambda: "degraded: use the queue http" in systemd.status(), timeout=30)
        asked, pinged = len(rig.meddler.asked), systemd.count("WATCHDOG=1")
        time.sleep(4)
        assert len(rig.meddler.asked) - asked <= 5
        assert systemd.count("WATCHDOG=1") > pinged
        assert rig.pulled().keys() == {"before"}
    pull.wait_event("queue.reachable")
    rig.until_pulled({"missed": b"2"})
    rig.bucket.put("after", b"3")
    rig.until_pulled({"missed": b"2", "after": b"3"})
    wait_until(lambda: systemd.status().startswith("following"), timeout=30)
    assert len(pull.events("queue.unreachable")) == 1


def test_what_is_in_work_when_its_queue_is_deleted_is_finished_and_its_old_receipt_troubles_nobody(
    rig: Rig,
) -> None:
    gate = threading.Event()

    def slow(asked: Asked, forward: Forward) -> Answer:
        assert asked.name != "GetObject" or gate.wait(60)
        return short_polls(asked, forward)

    rig.meddler.meddle = slow
    pull = rig.pull()
    pull.wait_event("reconcile.finished")
    rig.bucket.put("a", b"1")
    wait_until(lambda: "GetObject" in rig.meddler.names(), timeout=30)
    with deleted_queue(rig.bucket):
        pull.wait_event("queue.unreachable")
        gate.set()
        rig.until_pulled({"a": b"1"})
    pull.wait_event("queue.reachable")
    rig.bucket.put("b", b"2")
    rig.until_pulled({"a": b"1", "b": b"2"})
    until_quiet(rig)
    assert len(pull.events("pull.written")) == 2
    asked = rig.meddler.names().count("DeleteMessageBatch")
    time.sleep(3)
    assert rig.meddler.names().count("DeleteMessageBatch") == asked


# A clock that is a day off

SKEWED = {
    "s3": error(403, "RequestTimeTooSkewed"),
    "sqs": Answer(
        403,
        {"content-type": "application/x-amz-json-1.0"},
        b'{"__type": "com.amazon.coral.service#InvalidSignatureException",'
        b' "message": "Signature expired: 20261124T000000Z is now earlier than 20261125T000000Z"}',
    ),
}
"""What AWS answers to a signature of yesterday, each service in its own words."""


@pytest.mark.parametrize("service", ["s3", "sqs"])
def test_a_wrong_clock_is_named_and_deletes_nothing(
    rig: Rig, systemd: Systemd, service: str
) -> None:
    skewed = threading.Event()

    def meddle(asked: Asked, forward: Forward) -> Answer:
        refused = skewed.is_set() and ("x-amz-target" in asked.headers) == (service == "sqs")
        return SKEWED[service] if refused else short_polls(asked, forward)

    rig.meddler.meddle = meddle
    pull = listening(rig, systemd)
    rig.bucket.put("a", b"1")
    rig.bucket.put("b", b"1")
    rig.until_pulled({"a": b"1", "b": b"1"})
    until_quiet(rig)
    skewed.set()
    rig.bucket.put("c", b"1")
    told = pull.wait_event("outage.started" if service == "s3" else "queue.unreachable")
    assert "clock" in told["hint"]
    rig.bucket.delete("a")
    rig.bucket.put("b", b"2")
    wait_until(lambda: "degraded" in systemd.status(), timeout=30)
    time.sleep(2)
    held = {path: file[0] for path, file in rig.pulled().items()}
    assert (held["a"], held["b"]) == (b"1", b"1")
    skewed.clear()
    rig.until_pulled({"b": b"2", "c": b"1"})
    wait_until(lambda: systemd.status().startswith("following"), timeout=60)


# Shared


def test_two_hosts_that_share_a_queue_are_told_and_converge_all_the_same(rig: Rig) -> None:
    """Each event reaches one of them only; the other one finds by listing what it was not told."""
    rig.meddler.meddle = short_polls
    other = replace(rig, place=rig.place / "other")
    pulls = [host.pull("--delete", "--reconcile-interval", "3s") for host in (rig, other)]
    for pull in pulls:
        pull.wait_event("reconcile.finished")
    content: dict[str, bytes] = {}

    def told() -> bool:
        """One more, until each of them has missed some: who gets which is a matter of luck."""
        key = f"{len(content)}"
        content[key] = b"content of " + key.encode()
        rig.bucket.put(key, content[key])
        return all(pull.events("queue.missed") for pull in pulls)

    wait_until(told, timeout=90)
    for key in list(content)[::3]:
        rig.bucket.delete(key)
        del content[key]
    for host in (rig, other):
        host.until_pulled(content)
    for pull in pulls:
        told_of = pull.events("queue.missed")[0]
        assert "a queue of its own" in told_of["hint"]
        assert pull.stop() == 143
    page = rig.start("status", "--state-dir", str(rig.pull_state))
    page.wait()
    assert "a queue of its own" in page.stdout


def test_of_a_queue_that_tells_everything_nobody_complains(rig: Rig) -> None:
    """However much a listing finds at the start, and restores later."""
    for number in range(5):
        rig.bucket.put(str(number), b"1")
    silence(rig.bucket)
    pull = rig.pull("--delete", "--reconcile-interval", "2s")
    rig.until_pulled({str(number): b"1" for number in range(5)})
    (rig.into / "0").unlink()
    rig.until_pulled({str(number): b"1" for number in range(5)})
    before = len(pull.events("reconcile.finished"))
    wait_until(lambda: len(pull.events("reconcile.finished")) >= before + 2, timeout=60)
    assert not pull.events("queue.missed")
