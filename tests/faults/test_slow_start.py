"""Faults of a start.

A slow disk, a hanging disk, a state that is checked for damage, and a stop in the middle of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Base
from syncloud.state.store import Pair
from tests.support.late_disk import LateDisk
from tests.support.states import opened_state
from tests.support.systemd import Systemd
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.processes import Process

PATIENCE = 4.0
"""Seconds of the TimeoutStartSec= that is played here, where the units have 90."""
ROLES = pytest.mark.parametrize("role", ["push", "pull"])


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(tmp_path) as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LateDisk]:
    made = LateDisk(tmp_path / "disk")
    yield made
    made.heal()


class Starts:
    """Daemons that systemd starts on the slow disk."""

    def __init__(self, rig: Rig, systemd: Systemd, disk: LateDisk) -> None:
        self._rig, self._systemd, self._env = rig, systemd, systemd.environment | disk.environment

    def __call__(self, role: str, *more: str) -> Process:
        self._systemd.begun = time.monotonic()
        return (self._rig.push if role == "push" else self._rig.pull)(
            *more, ready=False, env=self._env
        )


@pytest.fixture
def start(rig: Rig, systemd: Systemd, disk: LateDisk) -> Starts:
    return Starts(rig, systemd, disk)


def _plant(rig: Rig, role: str, *, folders: int, files: int = 0) -> None:
    """A tree of so many folders in the directory of `role`, with a file each at most."""
    root = rig.out if role == "push" else rig.into
    for number in range(folders):
        (root / f"tree/{number // 10}/folder{number}").mkdir(parents=True)
        if number < files:
            (root / f"tree/{number // 10}/folder{number}/file").write_bytes(b"1")


def _ready_after(systemd: Systemd) -> float:
    """Seconds until READY=1. All is heard when it is said."""
    wait_until(lambda: "READY=1" in systemd.words(), timeout=60, every=0.05)
    return next(at for at, word in systemd.said() if word == "READY=1") - systemd.begun


def _stands_still(systemd: Systemd) -> bool:
    """Whether no more time is asked for, for long enough to say so."""
    before = systemd.requests()
    time.sleep(PATIENCE)
    return systemd.requests() == before


def _stopped(process: Process, systemd: Systemd, *, timeout: float) -> int:
    """The exit code after SIGTERM.

    All messages are read meanwhile, because the kernel keeps few unread ones.
    """
    process.signal(signal.SIGTERM)
    wait_until(lambda: systemd.said() and not process.running, timeout=timeout)
    return process.wait()


# Progress is evidence


@pytest.mark.slow
@ROLES
def test_a_start_on_a_slow_disk_has_the_time_that_it_needs(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts, role: str
) -> None:
    """A push arms its watch, a pull looks for what a crash has left."""
    _plant(rig, role, folders=100)
    disk.slow("opendir", "/tree", 0.15)
    process = start(role)
    assert _ready_after(systemd) > 14, "too fast to prove anything"
    assert not systemd.gives_up(PATIENCE)
    assert process.stop() == 143


@pytest.mark.slow
def test_names_that_come_slowly_are_progress_too(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    """One flat directory, and a start that ends with the first listing."""
    for number in range(400):
        rig.write(f"flat/{number}", b"1")
    assert rig.push("--once").wait() == 0
    disk.slow("statat", "/flat", 0.03)
    start("push", "--ready", "synced")
    assert _ready_after(systemd) > 10, "too fast to prove anything"
    assert not systemd.gives_up(PATIENCE)


@ROLES
@pytest.mark.parametrize("ready", ["started", "synced"])
def test_a_start_that_stands_still_asks_for_no_more_time(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts, role: str, ready: str
) -> None:
    _plant(rig, role, folders=3, files=3)
    disk.hang("opendir", "/folder1")
    process = start(role, "--ready", ready)
    wait_until(lambda: _stands_still(systemd), timeout=30)
    assert "READY=1" not in systemd.words()
    assert not process.events("watchdog.withheld"), "that is for what has been ready"
    disk.heal()
    process.wait_event("service.ready")
    assert process.stop() == 143


def test_a_first_listing_that_stands_still_asks_for_no_more_time(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    """The watch is armed.

    `ready = synced` waits for the listing, which meets a directory that never answers.
    """
    _plant(rig, "push", folders=3, files=3)
    disk.hang("statat", "/folder1")
    process = start("push", "--ready", "synced")
    wait_until(lambda: _stands_still(systemd), timeout=30)
    assert process.events("service.started")
    assert "READY=1" not in systemd.words()
    disk.heal()
    process.wait_event("service.ready")


# The state


def _crashed_state(rig: Rig, *, rows: int = 0) -> Path:
    """The state of a killed push, with so many rows of files that are not there any more."""
    pair = Pair("push", str(rig.out), rig.bucket.name, "")
    memory = opened_state(rig.push_state, pair)
    tag = ("1", "2", "3", "4")
    memory.record(
        [
            Base(f"{number:06}{'x' * 80}", tag, ("e", "", ""), 1, 1, 0o644, 1)
            for number in range(rows)
        ],
        [],
    )
    memory.close()
    file = rig.push_state / "state.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('open', '1')")
    return file


@pytest.mark.slow
def test_a_state_that_is_read_for_damage_has_the_time_that_it_needs(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    _crashed_state(rig, rows=10_000)
    disk.slow("pread", "/state.sqlite", 0.02)
    process = start("push")
    assert _ready_after(systemd) > 8, "too fast to prove anything"
    assert not systemd.gives_up(PATIENCE)
    assert not process.events("state.rebuilt")
    assert process.stop() == 143


def test_damage_is_found_however_slow_the_disk_is(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    file = _crashed_state(rig, rows=3_000)
    with file.open("r+b") as damaged:
        damaged.seek(40 * 4096)
        damaged.write(os.urandom(4096))
    disk.slow("pread", "/state.sqlite", 0.02)
    process = start("push")
    _ready_after(systemd)
    assert process.events("state.rebuilt")
    assert not systemd.gives_up(PATIENCE)


# A stop during a start


def _state_hangs(rig: Rig, disk: LateDisk) -> None:
    _crashed_state(rig, rows=1_000)
    disk.hang("pread", "/state.sqlite")


def _walk_hangs(rig: Rig, disk: LateDisk) -> None:
    for role in ("push", "pull"):
        _plant(rig, role, folders=3)
    disk.hang("opendir", "/folder1")


def _root_hangs(rig: Rig, disk: LateDisk) -> None:
    """A start asks the descriptor which directory it is, not the path."""
    disk.hang("fstat", str(rig.place / "out"))
    disk.hang("fstat", str(rig.place / "in"))


@pytest.mark.parametrize(
    ("role", "prepare"),
    [
        pytest.param("push", _state_hangs, id="check of the state"),
        pytest.param("push", _walk_hangs, id="arming"),
        pytest.param("pull", _walk_hangs, id="leftovers"),
        pytest.param("push", _root_hangs, id="look for the root"),
    ],
)
def test_a_stop_during_a_start_that_hangs_is_soon_and_in_order(
    rig: Rig,
    systemd: Systemd,
    disk: LateDisk,
    start: Starts,
    role: str,
    prepare: Callable[[Rig, LateDisk], None],
) -> None:
    prepare(rig, disk)
    process = start(role)
    wait_until(lambda: systemd.count("WATCHDOG=1") >= 2, timeout=30)
    time.sleep(1)
    assert _stopped(process, systemd, timeout=15) == 143
    assert systemd.words()[-1] == "STOPPING=1"
    assert "Traceback" not in process.stderr


def test_a_stop_while_the_disk_has_gone_is_soon_and_in_order(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    process = start("push")
    process.wait_event("service.ready")
    disk.hang("stat", str(rig.out))
    time.sleep(3)
    assert _stopped(process, systemd, timeout=40) == 143
    assert systemd.words()[-1] == "STOPPING=1"
    assert "Traceback" not in process.stderr


def test_a_stop_during_a_slow_start_leaves_a_state_that_the_next_one_can_use(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    rig.write("file", b"1")
    assert rig.push("--once").wait() == 0
    _plant(rig, "push", folders=100)
    disk.slow("opendir", "/tree", 0.3)
    process = start("push")
    wait_until(lambda: systemd.requests() >= 3, timeout=30)
    assert _stopped(process, systemd, timeout=15) == 143
    disk.heal()
    again = rig.push()
    assert not again.events("state.rebuilt")
    assert again.stop() == 143


# The watchdog


def _no_ping(systemd: Systemd) -> bool:
    before = systemd.count("WATCHDOG=1")
    time.sleep(4)
    return systemd.count("WATCHDOG=1") == before


def test_a_call_to_the_disk_that_never_returns_ends_the_ping(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    process = start("push")
    process.wait_event("service.ready")
    disk.hang("fstat", "/held-up")
    rig.write("held-up", b"1")
    time.sleep(2)
    assert not _no_ping(systemd), "a call may take its time"
    disk.step(200)
    wait_until(lambda: _no_ping(systemd), timeout=30)
    assert process.events("watchdog.withheld")
    disk.heal()
    rig.until_pushed({"held-up": b"1"})
    assert not _no_ping(systemd)


def test_a_look_at_the_directory_that_never_returns_ends_the_ping(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    """No file changes and no work waits. The check with each pulse is the only call to the disk."""
    process = start("push")
    process.wait_event("service.ready")
    disk.hang("stat", str(rig.out))
    wait_until(lambda: _no_ping(systemd), timeout=30)
    withheld = process.events("watchdog.withheld")
    assert "the disk does not answer" in str(withheld)
    disk.heal()
    rig.write("later", b"1")
    rig.until_pushed({"later": b"1"})
    assert not _no_ping(systemd)


def test_a_watch_that_does_not_get_on_ends_the_ping(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    rig.write("deep/below/file", b"1")
    process = start("push")
    process.wait_event("push.uploaded")
    time.sleep(3)
    disk.hang("opendir", "/below")
    (rig.out / "other").mkdir()
    wait_until(lambda: disk.holds, timeout=30)
    time.sleep(3)  # the pulses see what the thread has spent before it hangs
    disk.step(1000)
    wait_until(lambda: _no_ping(systemd), timeout=30)
    assert process.events("watchdog.withheld")


def test_a_reload_whose_new_start_hangs_ends_the_ping(
    rig: Rig, systemd: Systemd, disk: LateDisk, start: Starts
) -> None:
    config = rig.place / "push.conf"
    config.write_text("min-interval = 1s\n")
    _plant(rig, "push", folders=3)
    process = start("push", "--config", str(config))
    process.wait_event("service.ready")
    time.sleep(3)
    disk.hang("opendir", "/folder1")
    config.write_text("min-interval = 2s\n")
    process.signal(signal.SIGHUP)
    process.wait_event("reload.accepted")
    wait_until(lambda: _stands_still(systemd), timeout=30)
    disk.step(200)
    wait_until(lambda: _no_ping(systemd), timeout=30)
    assert "has not moved" in process.wait_event("watchdog.withheld")["reason"]
