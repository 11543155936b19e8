"""Progress of a thread: its CPU time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from syncloud.local.progress import Progress


class Worker:
    """A thread that works or waits as the test orders."""

    def __init__(self) -> None:
        self.now = 100.0
        self.progress = Progress(clock=lambda: self.now)
        self._orders = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._ended = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Worker:
        self._thread.start()
        self._done.acquire()
        self._settle()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def work(self) -> None:
        self._orders.release()
        self._done.acquire()
        self._settle()

    def end(self) -> None:
        """Return once the kernel has ended the thread, which may be later than Python's `join`."""
        self._ended = True
        self._orders.release()
        self._thread.join()
        place = Path(f"/proc/self/task/{self._thread.native_id}")
        while place.exists():
            time.sleep(0.001)

    def _run(self) -> None:
        self.progress.begin()
        while not self._ended:
            end = time.thread_time_ns() + 5_000_000
            while time.thread_time_ns() < end:
                pass
            self._done.release()
            self._orders.acquire()

    def _settle(self) -> None:
        """The thread needs some CPU time for the way to its wait, and a turn on a busy machine."""
        place = Path(f"/proc/self/task/{self._thread.native_id}")
        quiet = 0
        while quiet < 3:
            before = (place / "schedstat").read_text()
            time.sleep(0.02)
            waits = (place / "stat").read_text().rpartition(")")[2].split()[0] == "S"
            quiet = quiet + 1 if waits and (place / "schedstat").read_text() == before else 0


def test_a_thread_that_works_moves_at_the_time_of_the_poll() -> None:
    with Worker() as worker:
        worker.now = 101.0
        assert worker.progress.moved_at() == 101.0
        worker.work()
        worker.now = 105.0
        assert worker.progress.moved_at() == 105.0


def test_a_thread_that_waits_has_not_moved_since() -> None:
    with Worker() as worker:
        worker.now = 101.0
        worker.progress.moved_at()
        for worker.now in (102.0, 200.0):
            assert worker.progress.moved_at() == 101.0


def test_the_work_of_another_thread_is_no_progress() -> None:
    with Worker() as worker:
        worker.now = 101.0
        worker.progress.moved_at()
        end = time.thread_time_ns() + 20_000_000
        while time.thread_time_ns() < end:
            pass
        worker.now = 102.0
        assert worker.progress.moved_at() == 101.0


def test_a_thread_that_has_ended_moves_no_more() -> None:
    with Worker() as worker:
        worker.now = 101.0
        worker.progress.moved_at()
        worker.end()
        worker.now = 102.0
        assert worker.progress.moved_at() == 101.0


def test_before_its_begin_progress_is_as_old_as_itself() -> None:
    now = 100.0
    progress = Progress(clock=lambda: now)
    now = 200.0
    assert progress.moved_at() == 100.0
