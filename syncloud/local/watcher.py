"""WatchSource: hints from inotify, by watchdog. Owner of watchdog, with `observer`.

watchdog loses events silently in several ways (an overflowing queue, a reader thread that dies, directories it never came to
watch; see gorakhargosh/watchdog#654). So a monitor beside it looks at what the kernel itself says
(/proc/self/fdinfo lists every inotify watch by inode, FIONREAD the unread bytes): a burst ends in a look at everything, what is
not watched is watched again, and what cannot be watched is polled and said; so is the whole tree, where the kernel refuses any
watch. What other hosts change on a network file system no kernel tells: that is said once. A directory that was moved out of
the tree keeps its watch, and its old path with watchdog 6 even after it came back under another name: what watchdog calls each
watch is compared with where it is, and where they differ all is watched anew. Nothing is written into the user's tree, and no
symbolic link is followed there, however quick who puts it there.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator

from watchdog import events as wd
from watchdog.utils import BaseThread

from .. import log
from ..core import names, timing
from ..core.model import Hint, HintKind
from . import inotify, mountinfo, syscalls
from .coverage import Coverage, compare
from .observer import Observer, OverflowHandler, place
from .progress import Progress
from .root import Root

TICK_INTERVAL_S = 0.25
"""Seconds between two looks of the monitor while events come; while none do, it looks with the pulse."""
CALM_S = 0.5
"""Seconds without an event after which a burst is over."""
BURST_TIMEOUT_S = 30.0
"""Seconds after which it is looked at all the same where events never cease."""
WINDOW_S = 3.0
"""Seconds in which events are counted: what a full queue held has been handed on by then."""
STUCK_TIMEOUT_S = 10.0
"""Seconds that the kernel's queue may have unread bytes before the reader counts as dead."""
POLL_INTERVAL_S = 60.0
"""Seconds between two scans while a part of the tree cannot be watched."""
REARM_INTERVAL_S = 2.0
"""Seconds between two attempts to watch anew, lest an error that comes back at once keeps the disk busy."""
MONITOR_TIMEOUT_S = 600.0
"""Seconds without progress after which the monitor itself counts as frozen: it mends the rest, nobody mends it. To arm a
million directories anew takes minutes, and is progress."""

_LIMITS = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}
"""How the kernel refuses a watch, and which setting below fs.inotify is too low: inotify_add_watch(2), inotify_init(2)."""
_EVENT_SIZE = 32
"""Bytes of an event with a name of up to 16 bytes: inotify(7)."""

_AT_ONCE = tuple(
    getattr(wd, name)
    for name in ("FileClosedEvent", "FileDeletedEvent", "FileAttribEvent")
    if hasattr(wd, name)  # watchdog 6 has no attribute events: it calls them modified
)
_DIRECTORY = (wd.DirCreatedEvent, wd.DirDeletedEvent, wd.DirMovedEvent)
_WANTED: list[type[wd.FileSystemEvent]] = [
    *_AT_ONCE,
    wd.FileCreatedEvent,
    wd.FileModifiedEvent,
    wd.FileMovedEvent,
    *_DIRECTORY,
]


class WatchSource(wd.FileSystemEventHandler):
    """Watch `root` and everything below it.

    `burst_limit`: events within `WINDOW_S` that count as a burst (default: a quarter of the kernel's queue). `poll`: seconds
    between two looks at everything while a part of the tree cannot be watched.
    """

    def __init__(self, root: Root, *, burst_limit: int | None = None, poll: float = POLL_INTERVAL_S) -> None:
        self._root = root
        self._fd = -1
        self._top = ""
        self._deliver: Callable[[Hint], None] = lambda hint: None
        self._observer: Observer | None = None
        self._descriptors: list[int] = []
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._monitor = threading.Thread(target=self._watch_over, name="watch-monitor", daemon=True)
        self._overflow = OverflowHandler()
        self._burst_limit = inotify.limit("max_queued_events", 16384) // 4 if burst_limit is None else burst_limit
        self._poll = poll
        self._events = 0
        self._last_event = 0.0
        self._counted_from = 0.0
        self._burst_since: float | None = None
        self._trouble: str | None = None
        self._unread_since: float | None = None
        self._moved_since: float | None = None
        self._armed_at = 0.0
        self._left: list[threading.Thread] = []
        """Threads of watchdog's that have not ended when they should: they may still use the descriptor."""
        self._progress = Progress()

    def start(self, deliver: Callable[[Hint], None]) -> None:
        """Arm the watch; when this returns, every later change is heard, or `trouble()` says that it is polled.

        Raises OSError where there is no root.
        """
        self._deliver = deliver
        logging.getLogger("watchdog").addHandler(self._overflow)
        try:
            self._arm()
        except (OSError, RuntimeError) as error:
            if self._root.missing():
                self._close()  # who does not start is not stopped
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root.path)) from error
            self._refused(error)  # whatever it met below: it is tried again, and polled until then
        for path, kind in mountinfo.remote(self._fd):
            text = "%s is on %s: what other hosts change there is found by the periodic look only"
            log.warning("watch.remote", text, path, kind, path=path)
        # watchdog 7 says nothing where it could not watch a directory: the first look at the watches follows at once.
        self._moved_since = time.monotonic()
        self._monitor.start()

    def stop(self) -> None:
        self._stop.set()
        if self._monitor.ident is not None:
            self._monitor.join(timeout=5)
        self._disarm()
        self._close()
        logging.getLogger("watchdog").removeHandler(self._overflow)

    def _close(self) -> None:
        """One that a thread left behind may still use stays open: its number is not another file's."""
        if self._fd >= 0 and not any(thread.is_alive() for thread in self._left):
            os.close(self._fd)
            self._fd = -1

    def trouble(self) -> str | None:
        return self._trouble

    ready = True
    """`start` returns when the watch is armed."""
    gaps = None
    """A full queue of the kernel's ends in a look at everything."""
    poisoned = 0
    overlap_s = 0.0

    def mounts_changed(self) -> None:
        """Soon look which directories are watched."""
        self._moved_since = self._moved_since or time.monotonic()

    def stalled(self) -> str | None:
        """watchdog's threads and the kernel's queue are the monitor's care: it watches anew, or says what is polled."""
        if self._monitor.ident is None or self._stop.is_set():
            return None
        if not self._monitor.is_alive():
            return "the watch monitor has ended"
        silent = time.monotonic() - self._progress.moved_at()
        return f"the watch monitor has not moved for {silent:.0f} s" if silent > MONITOR_TIMEOUT_S else None

    def _arm(self) -> None:
        before, others = set(inotify.descriptors()), set(threading.enumerate())
        self._armed_at = time.monotonic()
        if self._fd < 0:
            self._fd = os.dup(self._root.fd)
            self._top = place(self._fd)
        observer = Observer(self)
        observer.watch(self._top, _WANTED)
        self._observer = observer
        self._descriptors = [fd for fd in inotify.descriptors() if fd not in before] or list(inotify.descriptors())
        new = set(threading.enumerate()) - others
        self._threads = [thread for thread in new if isinstance(thread, BaseThread)]
        self._unread_since = None

    def _disarm(self) -> None:
        observer, self._observer, self._descriptors = self._observer, None, []
        if observer is not None:
            observer.end()
        threads, self._threads = [*self._threads, *self._left], []
        self._left = [thread for thread in threads if thread.is_alive()]

    # Events, on the thread of watchdog's that made them: only enqueue

    def dispatch(self, event: wd.FileSystemEvent) -> None:
        """Called by watchdog for every event."""
        self._events += 1
        self._last_event = time.monotonic()
        if isinstance(event, _DIRECTORY):
            self._moved_since = self._moved_since or time.monotonic()
            for path in (event.src_path, event.dest_path):
                self._hint(path, HintKind.WRITING, subtree=True)
        elif isinstance(event, wd.FileMovedEvent):
            for path in (event.src_path, event.dest_path):
                self._hint(path, HintKind.WRITTEN)
        elif isinstance(event, _AT_ONCE):
            self._hint(event.src_path, HintKind.WRITTEN)
        elif isinstance(event, wd.FileCreatedEvent | wd.FileModifiedEvent):
            self._hint(event.src_path, HintKind.WRITING)

    def _hint(self, path: str | bytes, kind: HintKind, *, subtree: bool = False) -> None:
        if not path:
            return
        relative = self._below(path)
        if relative or subtree:
            self._deliver(Hint(relative, kind, subtree=subtree))

    def _below(self, path: str | bytes) -> str:
        """What watchdog calls `path`, relative to the root."""
        return os.fsdecode(path)[len(self._top) + 1 :]

    # The monitor

    def _watch_over(self) -> None:
        covered_at, polled_at = time.monotonic(), time.monotonic()
        self._progress.begin()
        while not self._stop.wait(
            TICK_INTERVAL_S if self._events or self._burst_since or self._moved_since else timing.IDLE_INTERVAL_S
        ):
            now = time.monotonic()
            unread = self._unread()
            self._notice_burst(now, unread)
            if reason := self._dead(now, unread):
                if now - self._armed_at > REARM_INTERVAL_S:
                    self._rearm(reason)
                    self._moved_since = now
            elif self._is_over(self._moved_since, now) or now - covered_at > 3600:
                self._moved_since, covered_at = None, now
                self._cover()
            if self._trouble is not None and now - polled_at > self._poll:
                polled_at = now
                self._cover()
                self._look_everywhere()

    def _unread(self) -> int:
        return sum(map(inotify.unread, self._descriptors))

    def _notice_burst(self, now: float, unread: int) -> None:
        full = unread > self._burst_limit * _EVENT_SIZE
        if self._overflow.seen or full or self._events > self._burst_limit:
            self._overflow.seen, self._events = False, 0
            self._burst_since = self._burst_since or now
        elif now - self._counted_from >= WINDOW_S:
            self._events, self._counted_from = 0, now
        if self._is_over(self._burst_since, now):
            self._burst_since, self._events = None, 0
            log.info("watch.burst", "a burst of events is over: looking at everything")
            self._cover()
            self._look_everywhere()

    def _is_over(self, since: float | None, now: float) -> bool:
        """Whether what began at `since` has calmed down, or has lasted too long to wait for that."""
        return since is not None and (now - max(since, self._last_event) > CALM_S or now - since > BURST_TIMEOUT_S)

    def _look_everywhere(self) -> None:
        self._deliver(Hint("", subtree=True))

    def _dead(self, now: float, unread: int) -> str | None:
        """Why watchdog does not hear any more, or None."""
        if missing := self._root.missing():
            return missing
        for thread in self._threads:
            if not thread.is_alive():
                return f"watchdog's thread {type(thread).__name__} has ended"
        if self._observer is None or (self._descriptors and not unread):
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > STUCK_TIMEOUT_S:
            return "watchdog does not read its events"
        return None

    def _rearm(self, reason: str) -> None:
        if missing := self._root.missing():
            self._tell(missing)  # what is there instead is none of our business
            return
        log.warning("watch.rearmed", "%s: watching anew", reason, reason=reason)
        try:
            self._disarm()
            self._arm()  # whether all of it is watched, `_cover` finds out
        except (OSError, RuntimeError) as error:
            self._refused(error)
        self._look_everywhere()

    def _refused(self, error: OSError | RuntimeError) -> None:
        """Nothing is watched: all of it is polled, and each time it is tried again."""
        limit = _LIMITS.get(error.errno or 0) if isinstance(error, OSError) else None
        if limit is None:
            self._tell(f"{self._root.path} cannot be watched: {error}")
        else:
            self._tell_unwatched(self._compared().paths, limit)

    def _tell_unwatched(self, paths: Collection[str], limit: str = "max_user_watches") -> None:
        example = self._shown(min(paths, default=""))
        self._tell(f"{len(paths)} directories cannot be watched, {example} is one; raise fs.inotify.{limit}")

    def _tell(self, trouble: str | None) -> None:
        """Once, when it begins, changes or ends."""
        before, self._trouble = self._trouble, trouble
        if trouble is not None and trouble != before:
            log.error("watch.partial", "%s; until it can, it is polled", trouble)
        elif trouble is None and before is not None:
            log.warning("watch.whole", "everything is watched again")

    def _cover(self) -> None:
        """Every directory must be among the kernel's watches, under its path, and nothing else; else arm anew, or say so."""
        coverage = self._coverage()
        if self._stop.is_set():
            return  # nothing is armed any more, and the walk may have been broken off
        if not coverage.is_whole:
            self._rearm(self._fault(coverage))
            coverage = self._coverage()
        if self._observer is None:
            return  # it has been told why
        if coverage.missing:
            self._tell_unwatched(coverage.paths)
        elif self._trouble is not None and self._dead(time.monotonic(), self._unread()) is None:
            self._tell(None)

    def _fault(self, coverage: Coverage) -> str:
        if coverage.missing:
            return f"{len(coverage.missing)} directories are not watched, {self._shown(min(coverage.paths))} is one"
        if coverage.astray:
            example = self._shown(min(path for _, path in coverage.astray))
            return f"{len(coverage.astray)} directories are heard under paths of the past, {example} is one"
        return f"{len(coverage.away)} directories were moved away with their watches"

    def _coverage(self) -> Coverage:
        """What two looks agree on: watchdog comes a moment later."""
        coverage = self._compared()
        if not coverage.is_whole and not self._stop.wait(2 * TICK_INTERVAL_S):
            coverage = coverage.both(self._compared())
        return coverage

    def _compared(self) -> Coverage:
        before, heard_as = self._watches(), {} if self._observer is None else self._observer.heard_as()
        inodes = dict(self._directories())
        return compare(inodes, before, heard_as, self._watches())

    def _watches(self) -> dict[int, int]:
        return dict(watch for fd in self._descriptors for watch in inotify.watches(fd))

    def _directories(self) -> Iterator[tuple[str, int]]:
        """Path and inode of every directory that can be read, without following links."""
        stack = [""]
        while stack and not self._stop.is_set():
            path = stack.pop()
            with contextlib.suppress(OSError), syscalls.directory(self._fd, path) as at:
                yield path, os.fstat(at).st_ino
                with os.scandir(at) as listing:
                    below = [item.name for item in listing if item.is_dir(follow_symlinks=False)]
                stack += [f"{path}/{name}" if path else name for name in below]

    def _shown(self, path: str) -> str:
        """A path below the root in a sentence."""
        text = names.spelled(str(self._root.path / path))
        return text if len(text) <= 200 else f"{text[:100]}...{text[-90:]}"
