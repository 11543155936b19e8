"""READY=1: what it says, what other units can build upon, and how long systemd waits for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.late_disk import LateDisk
from tests.support.meddler import Meddler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.emulator import Bucket, Emulator
    from tests.support.meddler import Answer, Asked, Forward
    from tests.system.instance import Instance
    from tests.system.machine import Machine

    Start = Callable[..., Instance]

READER = """
[Unit]
After={unit}
Requires={unit}
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'ls {directory} | wc -l >/run/counted'
"""


def test_a_unit_after_a_synced_instance_sees_the_data(
    machine: Machine, instance: Start, bucket: Bucket
) -> None:
    for number in range(300):
        bucket.put(f"{number}", b"%d" % number)
    pull = instance("pull", ready="synced")
    machine.path("/etc/systemd/system/reader.service").write_text(
        READER.format(unit=pull.unit, directory=pull.settings["directory"])
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "reader.service")
    assert machine.path("/run/counted").read_text().strip() == "300"
    machine.run("rm", "/etc/systemd/system/reader.service", "/run/counted")


def test_a_slow_start_is_waited_for_as_long_as_it_gets_on(
    aws_server: Emulator, instance: Start, bucket: Bucket
) -> None:
    """A start longer than TimeoutStartSec=, which a drop-in makes short.

    The service asks for EXTEND_TIMEOUT_USEC every second.
    """
    for number in range(60):
        bucket.put(f"{number}", b"%d" % number)

    def late(asked: Asked, forward: Forward) -> Answer:
        time.sleep(0.4)
        return forward(asked)

    with Meddler(aws_server.endpoint, late) as slow:
        pull = instance("pull", ready="synced", endpoint_url=slow.endpoint, transfers="2")
        pull.drop_in("[Service]\nTimeoutStartSec=5s\n")
        started = time.monotonic()
        pull.start()
        assert time.monotonic() - started > 6, "too fast to prove anything"
        assert len(list(pull.files.iterdir())) == 60
        pull.stop()


SLOW_DISK = """
[Service]
TimeoutStartSec=5s
Environment=LD_PRELOAD=/opt/slow/slow.so SLOW_DISK_RULES=/opt/slow/rules
"""


@pytest.fixture
def disk(machine: Machine) -> Iterator[LateDisk]:
    """Of the machine: what is loaded before the C library is built here."""
    machine.run("mkdir", "-p", "/opt")
    made = LateDisk(machine.path("/opt/slow"))
    yield made
    made.heal()
    machine.run("rm", "-r", "/opt/slow")


def test_a_slow_walk_is_waited_for_and_one_that_stands_still_is_not(
    machine: Machine, instance: Start, disk: LateDisk
) -> None:
    """Both beyond TimeoutStartSec=.

    A start asks for the unit's own 90 s from its last progress on, whatever a drop-in sets.
    """
    pull = instance("pull")
    folders = [f"{pull.settings['directory']}/tree/folder{number}" for number in range(60)]
    machine.run("install", "-d", "-o", "_syncloud", "-g", "_syncloud", *folders)
    pull.drop_in(SLOW_DISK)
    disk.slow("opendir", "/tree", 0.2)
    started = time.monotonic()
    pull.start()
    assert time.monotonic() - started > 10, "too fast to prove anything"
    pull.stop()
    disk.heal()
    disk.hang("opendir", "/folder1")
    machine.run("systemctl", "start", "--no-block", pull.unit)
    pull.until(lambda: pull.restarts >= 1, timeout=150)
    assert "start operation timed out" in pull.journal.tail()
    disk.heal()
    pull.until(lambda: pull.is_active, timeout=60)
    pull.stop()


def test_without_synced_it_is_ready_before_the_first_listing_is_done(
    aws_server: Emulator, instance: Start
) -> None:
    def no_listing(asked: Asked, forward: Forward) -> Answer:
        if asked.name == "ListObjectsV2":
            time.sleep(20)
        return forward(asked)

    with Meddler(aws_server.endpoint, no_listing) as slow:
        pull = instance("pull", endpoint_url=slow.endpoint)
        started = time.monotonic()
        pull.start()
        assert time.monotonic() - started < 15
        assert pull.is_active
        pull.stop()
