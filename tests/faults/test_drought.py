"""A store that answers and lists, and gives or takes no object.

The fault is reported within seconds, and delays nothing else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import refuse, stall
from tests.support.meddler import always
from tests.support.systemd import Systemd
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.meddler import Answer, Asked, Forward, Meddle

SOON = 25
"""Seconds within which a standstill of all files must be reported.

Three tries of each path would be as many minutes.
"""
NOTHING = "degraded: no file gets through, although the store answers: "
REFUSED = refuse(403, "AccessDenied")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(tmp_path) as made:
        yield made


def passes(asked: Asked, forward: Forward) -> Answer:
    return forward(asked)


def odd_ones(operation: str) -> Meddle:
    """Refuses one operation, and only for keys that begin with `odd`."""

    def chosen(asked: Asked, forward: Forward) -> Answer | None:
        odd = asked.name == operation and "/odd" in asked.target
        return REFUSED(asked, forward) if odd else forward(asked)

    return chosen


@pytest.mark.parametrize("count", [1, 20], ids=["the only one", "many"])
@pytest.mark.parametrize(
    "meddle", [REFUSED, refuse(400, "InvalidRequest"), refuse(500, "InternalError")]
)
def test_a_store_that_lists_and_never_gives_is_told_within_seconds(
    rig: Rig, systemd: Systemd, meddle: Meddle, count: int
) -> None:
    rig.bucket.put("before", b"1")
    rig.bucket.put("gone", b"1")
    pull = rig.pull("--delete", env=systemd.environment)
    rig.until_pulled({"before": b"1", "gone": b"1"})
    rig.meddler.meddle = always(meddle, "GetObject")
    content = {f"{number}": b"2" for number in range(count)}
    for key, body in content.items():
        rig.bucket.put(key, body)
    wait_until(lambda: systemd.status().startswith(NOTHING), timeout=SOON)
    assert pull.events("outage.started")
    wait_until(lambda: "no file gets through" in _page(rig), timeout=40, every=1)
    rig.bucket.delete("gone")
    wait_until(lambda: rig.pulled().keys() == {"before"}, timeout=SOON)
    rig.meddler.meddle = passes
    assert rig.start("resume", "--state-dir", str(rig.pull_state)).wait() == 0
    rig.until_pulled(content | {"before": b"1"})
    wait_until(lambda: systemd.status().startswith("following"), timeout=30)
    assert pull.events("outage.ended")
    assert pull.stop() == 143


def _page(rig: Rig) -> str:
    asked = rig.start("status", "--state-dir", str(rig.pull_state))
    asked.wait()
    return asked.stdout


def test_a_store_that_lists_and_whose_objects_hang_is_told_with_the_first_deadline(
    rig: Rig, systemd: Systemd
) -> None:
    rig.meddler.meddle = always(stall(300), "GetObject")
    for number in range(5):
        rig.bucket.put(f"{number}", b"2")
    rig.pull(env=systemd.environment)
    wait_until(lambda: systemd.status().startswith(NOTHING), timeout=60)


def test_a_store_that_lists_and_takes_nothing_is_told_within_seconds(
    rig: Rig, systemd: Systemd
) -> None:
    push = rig.push("--min-interval", "0", "--delete", env=systemd.environment)
    rig.write("gone", b"1")
    rig.until_pushed({"gone": b"1"})
    rig.meddler.meddle = always(REFUSED, "PutObject")
    content = {f"{number}": b"2" for number in range(4)}
    for path, body in content.items():
        rig.write(path, body)
    wait_until(lambda: systemd.status().startswith(NOTHING), timeout=SOON)
    assert push.events("outage.started", error_code="AccessDenied")
    (rig.out / "gone").unlink()
    wait_until(lambda: rig.bucket.keys() == [], timeout=SOON)
    rig.meddler.meddle = passes
    rig.until_pushed(content, timeout=90)
    wait_until(lambda: systemd.status().startswith("watching"), timeout=30)
    assert push.stop() == 143


def test_odd_objects_beside_good_ones_are_no_outage(rig: Rig, systemd: Systemd) -> None:
    good = {f"{number}": b"1" for number in range(5)}
    for key, body in good.items():
        rig.bucket.put(key, body)
    pull = rig.pull(env=systemd.environment)
    rig.until_pulled(good)
    rig.meddler.meddle = odd_ones("GetObject")
    for number in range(4):
        rig.bucket.put(f"odd{number}", b"2")
    wait_until(lambda: "4 failing" in systemd.status(), timeout=30)
    time.sleep(SOON / 2)
    assert not pull.events("outage.started")
    assert "keep failing" in systemd.status()


def test_odd_files_beside_good_ones_are_no_outage_and_leave_nothing_in_the_bucket(
    rig: Rig, systemd: Systemd
) -> None:
    push = rig.push("--min-interval", "0", env=systemd.environment)
    rig.write("good", b"1")
    rig.until_pushed({"good": b"1"})
    rig.meddler.meddle = odd_ones("PutObject")
    for number in range(4):
        rig.write(f"odd{number}", b"2")
    wait_until(lambda: "4 failing" in systemd.status(), timeout=30)
    time.sleep(SOON / 2)
    assert not push.events("outage.started")
    assert rig.bucket.keys() == ["good"]
    trials = [
        asked
        for asked in rig.meddler.asked
        if asked.name == "PutObject" and ".syncloud-probe-" in asked.target
    ]
    assert len([asked for asked in trials if asked.body == b"1"]) == 1, "one trial a minute"
