"""WatchSource over real inotify (watchdog 6 and 7): all changes are hinted, losses are noticed."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from watchdog.observers.api import BaseObserver, EventDispatcher

from syncloud.core.model import Hint, HintKind
from syncloud.local.root import Root
from syncloud.local.watcher import TICK_INTERVAL_S, WatchSource
from tests.support.trees import wait_until
from tests.support.watch import EVERYTHING, OVER, Watched, Watcher, heard, limited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.listener import Listener


@pytest.fixture
def watched(root: Path) -> Iterator[Watched]:
    (root / "full/x/y").mkdir(parents=True)
    (root / "full/x/y/f").write_text("x")
    (root / "old").write_text("x")
    made = Watched(root)
    yield made
    assert made.source.trouble() is None
    made.stop()


# What happens to files


def test_a_written_file_is_closed(watched: Watched, root: Path) -> None:
    with open(root / "f", "w") as file:
        watched.hear("f", HintKind.WRITING)
        file.write("x")
        file.flush()
        time.sleep(0.1)
        assert all(hint.kind is HintKind.WRITING for hint in watched.hints)
    watched.hear("f", HintKind.WRITTEN)
    assert watched.hints[-1] == Hint("f", HintKind.WRITTEN)


def test_reading_is_not_an_event(watched: Watched, root: Path) -> None:
    (root / "old").read_text()
    list(root.rglob("*"))
    time.sleep(0.3)
    assert watched.hints == []


def test_changes_of_a_file_are_heard(watched: Watched, root: Path, outside: Path) -> None:
    (outside / "in").write_text("x")
    changes: dict[str, Callable[[], object]] = {
        "old": lambda: os.utime(root / "old", ns=(1, 1)),
        "linked": lambda: os.link(root / "old", root / "linked"),
        "in": lambda: (outside / "in").rename(root / "in"),
        "full/x/y/f": lambda: (root / "full/x/y/f").chmod(0o600),
        "renamed": lambda: (root / "in").rename(root / "renamed"),
        "linked ": lambda: (root / "linked").unlink(),
        "renamed ": lambda: (root / "renamed").rename(outside / "renamed"),
    }
    for path, change in changes.items():
        watched.hints.clear()
        change()
        watched.hear(path.strip())


def test_a_replaced_file_is_closed_under_both_names(watched: Watched, root: Path) -> None:
    (root / "new").write_text("x")
    (root / "new").rename(root / "old")
    watched.hear("old", HintKind.WRITTEN)
    watched.hear("new", HintKind.WRITTEN)


def test_a_name_may_be_any_bytes(watched: Watched, root: Path) -> None:
    with open(os.fsencode(root) + b"/\xff", "w"):
        pass
    watched.hear("\udcff", HintKind.WRITTEN)


# What happens to directories


def test_directories_that_are_filled_at_once_are_looked_at(watched: Watched, root: Path) -> None:
    for number in range(20):
        (root / f"n{number}/b/c").mkdir(parents=True)
        (root / f"n{number}/b/c/f").write_text("x")
        (root / f"n{number}/g").write_text("x")
    watched.until(
        lambda: (
            {Hint(f"n{number}", HintKind.WRITING, subtree=True) for number in range(20)}
            <= set(watched.hints)
        )
    )
    watched.hear_edits(*(f"n{number}/b/c/f" for number in range(20)), "n0/b/new")


def test_a_directory_that_was_moved_in_is_watched(
    watched: Watched, root: Path, outside: Path
) -> None:
    (outside / "d/sub").mkdir(parents=True)
    (outside / "d/sub/f").write_text("x")
    (outside / "d").rename(root / "in")
    watched.until(lambda: Hint("in", HintKind.WRITING, subtree=True) in watched.hints)
    watched.hear_edits("in/sub/f", "in/new")


@pytest.mark.parametrize("pause", [0.0, OVER], ids=["at once", "later"])
def test_a_directory_that_was_moved_out_and_came_back_is_heard_under_its_new_name(
    watched: Watched, root: Path, outside: Path, pause: float
) -> None:
    watched.settle()
    (root / "full").rename(outside / "full")
    time.sleep(pause)
    if pause:
        watched.until(lambda: Hint("full", HintKind.WRITING, subtree=True) in watched.hints)
        watched.settle()
        (outside / "full/x/y/f").write_text("not ours any more")
        time.sleep(0.3)
        assert watched.hints == []
    (outside / "full").rename(root / "back")
    watched.until(lambda: any(hint.path in ("back", "") and hint.subtree for hint in watched.hints))
    while not heard(watched, "back/x/y/f"):  # on a busy machine the watches are looked at later
        time.sleep(OVER)
    watched.hear_edits("back/x/y/f", "back/x/new")


def test_a_directory_that_comes_back_amid_ceaseless_edits_is_heard_under_its_new_name(
    root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first check of the watches that meets a directory may follow its return."""
    monkeypatch.setattr("syncloud.local.watcher.BURST_TIMEOUT_S", 5.0)
    watched = Watched(root)
    done = threading.Event()

    def edit() -> None:
        while not done.wait(0.02):
            (root / "ceaseless").write_text("edited")

    thread = threading.Thread(target=edit)
    try:
        watched.settle()
        thread.start()
        (root / "full/x/y").mkdir(parents=True)
        watched.hear("full/x/y")
        (root / "full").rename(root / "moved")
        watched.hear("moved")
        (root / "moved").rename(outside / "moved")
        (outside / "moved").rename(root / "back")
        watched.until(lambda: heard(watched, "back/x/y/f"), seconds=30)
    finally:
        done.set()
        thread.join()
        watched.stop()


@pytest.mark.parametrize("change", ["rename", "make"])
def test_a_tree_that_never_rests_is_not_watched_anew(
    root: Path, logged: Listener, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Every check meets a directory that has just come, gone or moved.

    Such a directory is no fault, and no reason to start again.
    """
    monkeypatch.setattr("syncloud.local.watcher.BURST_TIMEOUT_S", 1.0)
    for number in range(50):
        (root / f"{number}").mkdir()
    watched = Watched(root)
    try:
        watched.settle()
        end = time.monotonic() + 6
        for turn in itertools.count():
            at = root / f"{turn % 50}"
            if change == "rename":
                at.rename(root / "other")
                (root / "other").rename(at)
            else:
                at.rmdir()
                at.mkdir()
            time.sleep(0.005)
            if time.monotonic() > end:
                break
        watched.hear_edits("7/f")
    finally:
        watched.stop()
    assert "watch.rearmed" not in logged.events, logged.messages


def test_a_directory_that_is_renamed_twice_is_heard_under_its_last_name(
    watched: Watched, root: Path
) -> None:
    (root / "full").rename(root / "two")
    (root / "two").rename(root / "three")
    for path in ("full", "two", "three"):
        watched.until(lambda path=path: Hint(path, HintKind.WRITING, subtree=True) in watched.hints)  # type: ignore[misc]
    watched.hear_edits("three/x/y/f", "three/new")


def test_a_removed_tree_is_looked_at(watched: Watched, root: Path) -> None:
    shutil.rmtree(root / "full")
    watched.until(lambda: Hint("full", HintKind.WRITING, subtree=True) in watched.hints)
    (root / "full").mkdir()
    watched.hear_edits("full/again")


# What watchdog loses


def test_a_burst_ends_in_a_look_at_everything(root: Path) -> None:
    watched = Watched(root, burst_limit=50)
    try:
        for number in range(10):
            (root / f"few{number}").write_text("x")
        watched.hear("few9", HintKind.WRITTEN)
        watched.settle()
        time.sleep(3.0)  # events are counted anew
        assert EVERYTHING not in watched.hints
        for number in range(100):
            (root / f"many{number}").write_text("x")
        watched.until(lambda: EVERYTHING in watched.hints)
        assert watched.hints[-1] == EVERYTHING, "once it is quiet"
        assert watched.hints.count(EVERYTHING) == 1
    finally:
        watched.stop()


def test_an_overflow_of_the_kernels_queue_ends_in_a_look_at_everything(root: Path) -> None:
    (root / "d").mkdir()
    with Watcher(root) as watcher:
        after = watcher.until("armed")
        watcher.process.send_signal(signal.SIGSTOP)
        for number in range(7_000):
            os.close(os.open(root / "d" / str(number), os.O_WRONLY | os.O_CREAT))  # created, closed
            os.utime(root / "d" / str(number))
        (root / "late/sub").mkdir(parents=True)
        (root / "late/sub/f").write_text("x")
        watcher.process.send_signal(signal.SIGCONT)
        after = watcher.until("hint '' True", after=after)
        time.sleep(2 * OVER)
        (root / "late/sub/f").write_text("heard")
        (root / "d/1").write_text("heard")
        watcher.until("hint 'late/sub/f' False", after=after)
        watcher.until("hint 'd/1' False", after=after)
        assert watcher.close() == 0


@limited
def test_directories_beyond_the_limit_are_told_and_polled(root: Path) -> None:
    """watchdog 6 loses its reader to a KeyError here, 7 leaves them out without a word."""
    with Watcher(root, limit=5) as watcher:
        after = watcher.until("armed")
        for number in range(6):
            (root / f"d{number}/deep/er").mkdir(parents=True)
            (root / f"d{number}/deep/er/f").write_text("x")
        after = watcher.until("trouble", after=watcher.until("trouble None"))
        assert "trouble None" not in watcher.lines[after - 1 :]
        for _ in range(2):
            after = watcher.until("hint '' True", after=after)
        assert "trouble None" not in watcher.lines[after:]
        watcher.say("1000")
        after = watcher.until("trouble None", after=after)
        (root / "d5/deep/er/f").write_text("heard")
        watcher.until("hint 'd5/deep/er/f' False", after=after)
        assert watcher.close() == 0


@limited
def test_directories_beyond_the_limit_at_the_start_are_never_fine(root: Path) -> None:
    """watchdog 6 refuses to start, 7 starts with a part."""
    for number in range(10):
        (root / f"d{number}").mkdir()
    with Watcher(root, limit=5) as watcher:
        end = time.monotonic() + 15
        while not any(
            "cannot be watched" in line or line.startswith("start: ") for line in watcher.lines
        ):
            assert time.monotonic() < end, watcher.lines
            time.sleep(0.05)


@limited
@pytest.mark.parametrize("setting", ["max_inotify_watches", "max_inotify_instances"])
def test_a_tree_of_which_nothing_can_be_watched_is_polled_until_it_can(
    root: Path, setting: str
) -> None:
    (root / "d").mkdir()
    with Watcher(root, limit=0, setting=setting) as watcher:
        after = watcher.until("armed")
        told = watcher.lines[watcher.until("trouble 2 directories cannot be watched") - 1]
        assert told.endswith(f"raise fs.inotify.{setting.replace('inotify', 'user')}")
        descriptors = []
        for _ in range(3):
            for _ in range(2):
                after = watcher.until("hint '' True", after=after)
            watcher.say("descriptors")
            after = watcher.until("descriptors", after=after)
            descriptors.append(watcher.lines[after - 1])
        assert len(set(descriptors)) == 1, f"what was refused is left open: {descriptors}"
        watcher.say("1000")
        after = watcher.until("trouble None", after=after)
        (root / "d/f").write_text("heard")
        watcher.until("hint 'd/f' False", after=after)
        assert watcher.close() == 0


@limited
def test_a_watch_that_is_refused_anew_is_not_tried_again_at_once(root: Path) -> None:
    """Each try is followed by a look at everything: it would keep the disk busy."""
    with Watcher(root, limit=1000, poll=60.0) as watcher:
        after = max(watcher.until("trouble None"), watcher.until("armed"))
        watcher.say("0")
        after = watcher.until("limited 0", after=after)
        (root / "new").mkdir()
        watcher.until("trouble 2 directories cannot be watched", after=after)
        time.sleep(20 * TICK_INTERVAL_S)
        assert len([line for line in watcher.lines[after:] if line == "hint '' True"]) < 5


def test_an_ended_thread_of_watchdog_is_noticed(root: Path) -> None:
    """As after any error inside it: what is heard again is looked at first."""
    watched = Watched(root)
    try:
        watched.settle()  # the first look at the watches, which would notice it too, is over
        observer = watched.source._observer
        assert observer is not None
        for emitter in list(observer.emitters):
            emitter.stop()
        watched.until(lambda: EVERYTHING in watched.hints)
        watched.hear_edits("f")
        assert watched.source.trouble() is None
    finally:
        watched.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "kinds", [("InotifyFD", "InotifyBuffer"), ("InotifyEmitter",), ("Observer",)]
)
def test_a_thread_of_watchdog_that_dies_is_replaced(root: Path, kinds: tuple[str, ...]) -> None:
    """By an exception where it stands, whichever of the three it is."""
    watched = Watched(root)
    try:
        (thread,) = [thread for thread in watched.source._threads if type(thread).__name__ in kinds]
        raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
        )
        assert raised == 1
        (root / "wakes it").write_text("x")
        if isinstance(thread, EventDispatcher):
            thread.event_queue.put(EventDispatcher.stop_event)  # events do not wake it
        watched.until(lambda: not thread.is_alive())
        (root / "unheard").write_text("x")
        watched.until(lambda: EVERYTHING in watched.hints)
        watched.hear_edits("f")
        assert watched.source.trouble() is None
        assert watched.source.stalled() is None
    finally:
        watched.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_in_who_is_told_ends_in_a_look_at_everything(root: Path) -> None:
    """It ends the thread that told: watchdog catches nothing."""
    hints: list[Hint] = []

    def deliver(hint: Hint) -> None:
        if hint.path == "bad":
            raise ValueError("of a bug")
        hints.append(hint)

    place = Root(root)
    source = WatchSource(place)
    source.start(deliver)
    try:
        (root / "bad").write_text("x")
        wait_until(lambda: EVERYTHING in hints, timeout=30)
        (root / "good").write_text("x")
        wait_until(lambda: Hint("good", HintKind.WRITTEN) in hints, timeout=30)
        assert source.stalled() is None
    finally:
        source.stop()
        place.close()


def test_another_root_under_the_name_is_not_watched_and_the_one_that_comes_back_is(
    root: Path,
) -> None:
    """Whoever can exchange it is not followed: the daemon ends, and finds out what is there now."""
    (root / "d").mkdir()
    watched = Watched(root)
    try:
        root.rename(root.parent / "away")
        watched.until(watched.source.trouble)
        assert "cannot be seen" in str(watched.source.trouble())
        root.mkdir()
        watched.until(lambda: "is another directory now" in str(watched.source.trouble()))
        watched.hints.clear()
        (root / "f").write_text("not ours")
        time.sleep(0.3)
        assert all(hint == EVERYTHING for hint in watched.hints)
        shutil.rmtree(root)
        (root.parent / "away").rename(root)
        watched.until(lambda: watched.source.trouble() is None)
        watched.hear_edits("f", "d/f")
    finally:
        watched.stop()


# Manners


def state(root: Path) -> list[tuple[str, int, int]]:
    return [
        (str(path), path.stat().st_mtime_ns, path.stat().st_ctime_ns)
        for path in sorted([root, *root.rglob("*")])
    ]


def test_nothing_is_written_into_the_tree(root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/f").write_text("x")
    before = state(root)
    watched = Watched(root)
    time.sleep(OVER)
    watched.stop()
    assert state(root) == before


# Where nothing can be watched


def test_where_watching_fails_for_whatever_reason_all_is_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(BaseObserver, "schedule", _refuse)
        watched = Watched(tmp_path, poll=0.5)
        try:
            assert "cannot be watched" in str(watched.source.trouble())
            watched.until(lambda: EVERYTHING in watched.hints)
            patched.undo()
            watched.until(lambda: watched.source.trouble() is None)
            watched.hear_edits("f")
        finally:
            watched.stop()


def test_without_a_root_there_is_no_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Root(root)
    descriptors = len(os.listdir("/proc/self/fd"))
    source = WatchSource(place)
    root.rmdir()
    with monkeypatch.context() as patched:
        patched.setattr(BaseObserver, "schedule", _refuse)
        with pytest.raises(FileNotFoundError):
            source.start(lambda hint: None)
    assert len(os.listdir("/proc/self/fd")) == descriptors, (
        "who waits for a root tries again and again"
    )
    source.stop()
    place.close()


def _refuse(*_: object, **__: object) -> None:
    """As watchdog 6 does where a directory goes while it walks."""
    raise FileNotFoundError(errno.ENOENT, "No such file or directory")
