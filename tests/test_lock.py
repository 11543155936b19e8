"""The lock of a state directory: who looks takes nothing, who starts is not kept out by a look."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import BusyError
from syncloud.state import lock

if TYPE_CHECKING:
    from pathlib import Path


def taken(directory: Path) -> int:
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return lock.take(directory, at)
    finally:
        os.close(at)


def test_one_holds_it_and_everybody_sees_that(tmp_path: Path) -> None:
    held = taken(tmp_path)
    assert lock.in_use(tmp_path)
    with pytest.raises(BusyError, match="another syncloud uses the state"):
        taken(tmp_path)
    os.close(held)
    assert not lock.in_use(tmp_path)


def test_where_there_is_no_lock_nobody_holds_it(tmp_path: Path) -> None:
    assert not lock.in_use(tmp_path)
    assert not lock.in_use(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_looks_without_end_keep_no_start_out(tmp_path: Path) -> None:
    os.close(taken(tmp_path))
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            lock.in_use(tmp_path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(2_000):
            os.close(taken(tmp_path))
    finally:
        over.set()
        looker.join()


def test_a_look_of_an_older_program_is_waited_for(tmp_path: Path) -> None:
    """It took the lock for a moment to see whether it could."""
    os.close(taken(tmp_path))
    older = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(older, fcntl.LOCK_EX)
    threading.Timer(0.3, os.close, [older]).start()
    os.close(taken(tmp_path))


def test_an_older_daemon_keeps_a_start_out(tmp_path: Path) -> None:
    """It holds the one lock alone: flock(2)."""
    os.close(taken(tmp_path))
    older = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(older, fcntl.LOCK_EX)
    begun = time.monotonic()
    with pytest.raises(BusyError):
        taken(tmp_path)
    assert time.monotonic() - begun > lock.WAIT_S / 2
    os.close(older)


def test_an_older_start_is_kept_out(tmp_path: Path) -> None:
    held = taken(tmp_path)
    older = os.open(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(older)
    os.close(held)
