"""File watcher on inotify, with a reconciler for lost events: `WatchSource` delivers hints.

Only this module and `observer` import watchdog. watchdog loses events silently: the queue
overflows, a reader thread dies, a directory gets no watch (see gorakhargosh/watchdog#654). So a
monitor thread compares watchdog with the kernel: /proc/self/fdinfo lists every inotify watch by
inode, FIONREAD counts unread bytes.

- A burst of events ends in a full scan.
- Unwatched directories cause a new start of all watches. Directories that still have no watch are
  polled and reported, also the whole tree if the kernel refuses every watch.
- A directory moved out of the tree keeps its watch. In watchdog 6, it keeps its old path too, even
  after a return under another name. So the monitor compares the path of each watch with the tree,
  and starts all watches anew on a difference.
- inotify reports no changes by other hosts on a network file system; the start logs a warning.

The watcher writes nothing into the user's tree and follows no symbolic link there, even one created
during a scan.
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
from .observer import Observer, OverflowHandler, can_hold_keys, place
from .progress import Progress
from .root import Root

TICK_INTERVAL_S = 0.25
"""Seconds between two monitor checks during events; otherwise `timing.IDLE_INTERVAL_S` applies."""
CALM_S = 0.5
"""Seconds without an event that end a burst."""
BURST_TIMEOUT_S = 30.0
"""Seconds after which a burst counts as over, even if events continue."""
WINDOW_S = 3.0
"""Seconds over which events are counted: long enough to deliver the content of a full queue."""
STUCK_TIMEOUT_S = 10.0
"""Seconds of unread bytes in the kernel's queue after which the reader thread counts as dead."""
POLL_INTERVAL_S = 60.0
"""Seconds between two full scans while a part of the tree has no watch."""
REARM_INTERVAL_S = 2.0
"""Seconds between two new starts of dead watches: a permanent error must not occupy the disk."""
MONITOR_TIMEOUT_S = 600.0
"""Seconds without progress after which the monitor itself counts as stalled.

The monitor repairs all other parts, but nothing repairs the monitor. Progress is CPU time, so the
minutes of arming a million directories do not count as a stall.
"""

_LIMITS = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}
"""The setting below fs.inotify that is too low, by errno of a refused watch.

Sources: inotify_add_watch(2), inotify_init(2).
"""
_EVENT_SIZE = 32
"""Bytes of an inotify event with a name of up to 16 bytes: inotify(7)."""

_AT_ONCE = tuple(
    getattr(wd, name)
    for name in ("FileClosedEvent", "FileDeletedEvent", "FileAttribEvent")
    if hasattr(wd, name)  # watchdog 6 reports attribute changes as modifications
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
    """Watcher of the tree below `root`.

    `burst_limit`: more events than this within `WINDOW_S` are a burst (default: a quarter of the
    kernel's queue). `poll`: seconds between two full scans while a part of the tree has no watch.
    """

    def __init__(
        self, root: Root, *, burst_limit: int | None = None, poll: float = POLL_INTERVAL_S
    ) -> None:
        self._root = root
        self._fd = -1
        self._top = ""
        self._deliver: Callable[[Hint], None]
        self._observer: Observer | None = None
        self._descriptors: list[int] = []
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._monitor = threading.Thread(target=self._watch_over, name="watch-monitor", daemon=True)
        self._overflow = OverflowHandler()
        queue = inotify.limit("max_queued_events", 16384)
        self._burst_limit = queue // 4 if burst_limit is None else burst_limit
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
        """watchdog threads that did not end in time and may still use the descriptor `_fd`."""
        self._progress = Progress()

    def start(self, deliver: Callable[[Hint], None]) -> None:
        """Start the watches: afterwards each change causes a hint, or `trouble()` reports polling.

        Raises FileNotFoundError if the root is missing.
        """
        self._deliver = deliver
        logging.getLogger("watchdog").addHandler(self._overflow)
        try:
            self._arm()
        except (OSError, RuntimeError) as error:
            self._require_root(error)
            self._refused(error)  # whatever the error: the tree is polled, the watch retried
        for path, kind in mountinfo.remote(self._fd):
            text = "%s is on %s: only the periodic scan finds changes by other hosts"
            log.warning("watch.remote", text, path, kind, path=path)
        # watchdog 7 does not report unwatched directories: a first check of the watches is due now.
        self._moved_since = time.monotonic()
        self._monitor.start()

    def _require_root(self, error: Exception) -> None:
        if self._root.missing():
            self._close()  # the caller does not call `stop` after a failed start
            path = str(self._root.path)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error

    def stop(self) -> None:
        self._stop.set()
        if self._monitor.ident is not None:
            self._monitor.join(timeout=5)
        self._disarm()
        self._close()
        logging.getLogger("watchdog").removeHandler(self._overflow)

    def _close(self) -> None:
        """Close `_fd`, unless an abandoned thread may use it: the number would be reused."""
        if self._fd >= 0 and not any(thread.is_alive() for thread in self._left):
            os.close(self._fd)
            self._fd = -1

    def trouble(self) -> str | None:
        return self._trouble

    ready = True
    """`start` returns once the watch is armed."""
    gaps = None
    """An overflow of the kernel's queue ends in a listing by itself."""
    poisoned = 0
    overlap_s = 0.0

    def mounts_changed(self) -> None:
        """Called after a mount or unmount below the root: makes a check of the watches due soon."""
        self._moved_since = self._moved_since or time.monotonic()

    def stalled(self) -> str | None:
        """Why the monitor is stalled, or None.

        Only the monitor matters here: it repairs watchdog's threads and reports polling itself.
        """
        if self._monitor.ident is None or self._stop.is_set():
            return None
        if not self._monitor.is_alive():
            return "the watch monitor has ended"
        silent = time.monotonic() - self._progress.moved_at()
        if silent > MONITOR_TIMEOUT_S:
            return f"the watch monitor has made no progress for {silent:.0f} s"
        return None

    def _arm(self) -> None:
        before, others = set(inotify.descriptors()), set(threading.enumerate())
        self._armed_at = time.monotonic()
        if self._fd < 0:
            self._fd = os.dup(self._root.fd)
            self._top = place(self._fd)
        observer = Observer(self)
        observer.watch(self._top, _WANTED)
        self._observer = observer
        new_descriptors = [fd for fd in inotify.descriptors() if fd not in before]
        self._descriptors = new_descriptors or list(inotify.descriptors())
        new = set(threading.enumerate()) - others
        self._threads = [thread for thread in new if isinstance(thread, BaseThread)]
        self._unread_since = None

    def _disarm(self) -> None:
        observer, self._observer, self._descriptors = self._observer, None, []
        if observer is not None:
            observer.end()
        threads, self._threads = [*self._threads, *self._left], []
        self._left = [thread for thread in threads if thread.is_alive()]

    # Events, on watchdog's emitter thread: only enqueue

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
        """A path in an event of watchdog, relative to the root."""
        return os.fsdecode(path)[len(self._top) + 1 :]

    # The monitor

    def _watch_over(self) -> None:
        covered_at, polled_at = time.monotonic(), time.monotonic()
        self._progress.begin()
        while not self._stop.wait(self._interval()):
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

    def _interval(self) -> float:
        is_busy = self._events or self._burst_since or self._moved_since
        return TICK_INTERVAL_S if is_busy else timing.IDLE_INTERVAL_S

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
            log.info("watch.burst", "a burst of events is over: the whole tree is scanned")
            self._cover()
            self._look_everywhere()

    def _is_over(self, since: float | None, now: float) -> bool:
        """Whether activity since `since` has paused for `CALM_S` or exceeded `BURST_TIMEOUT_S`."""
        return since is not None and (
            now - max(since, self._last_event) > CALM_S or now - since > BURST_TIMEOUT_S
        )

    def _look_everywhere(self) -> None:
        self._deliver(Hint("", subtree=True))

    def _dead(self, now: float, unread: int) -> str | None:
        """Why watchdog delivers no events, or None."""
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
            self._report(missing)  # another directory in its place must not be watched
            return
        log.warning("watch.rearmed", "%s: all watches start anew", reason, reason=reason)
        try:
            self._disarm()
            self._arm()  # `_cover` checks for unwatched directories
        except (OSError, RuntimeError) as error:
            self._refused(error)
        self._look_everywhere()

    def _refused(self, error: OSError | RuntimeError) -> None:
        """Report a tree without any watch; it is polled, and each poll retries the watches."""
        limit = _LIMITS.get(error.errno or 0) if isinstance(error, OSError) else None
        if limit is None:
            self._report(f"{self._root.path} cannot be watched: {error}")
        else:
            self._report_unwatched(self._compared().paths, limit)

    def _report_unwatched(self, paths: Collection[str], limit: str = "max_user_watches") -> None:
        example = self._shown(min(paths, default=""))
        trouble = f"{len(paths)} directories cannot be watched, such as {example}"
        self._report(f"{trouble}; raise fs.inotify.{limit}")

    def _report(self, trouble: str | None) -> None:
        """Log a trouble once when it begins, changes or ends."""
        before, self._trouble = self._trouble, trouble
        if trouble is not None and trouble != before:
            log.error("watch.partial", "%s; the tree is polled meanwhile", trouble)
        elif trouble is None and before is not None:
            log.warning("watch.whole", "the whole tree is watched again")

    def _cover(self) -> None:
        """Reconcile the watches with the tree: on a difference, start all anew; report the rest."""
        coverage = self._coverage()
        if self._stop.is_set():
            return  # no watch is left, and the walk may be incomplete
        if not coverage.is_whole:
            self._rearm(self._fault(coverage))
            coverage = self._coverage()
        if self._observer is None:
            return  # `_refused` has reported the reason
        if coverage.missing:
            self._report_unwatched(coverage.paths)
        elif self._trouble is not None and self._dead(time.monotonic(), self._unread()) is None:
            self._report(None)

    def _fault(self, coverage: Coverage) -> str:
        if coverage.missing:
            example = self._shown(min(coverage.paths))
            return f"{len(coverage.missing)} directories are not watched, such as {example}"
        if coverage.astray:
            example = self._shown(min(path for _, path in coverage.astray))
            return f"{len(coverage.astray)} watches have an outdated path, such as {example}"
        return f"{len(coverage.away)} directories were moved away with their watches"

    def _coverage(self) -> Coverage:
        """The faults in two comparisons: watchdog lags a moment behind the kernel."""
        coverage = self._compared()
        if not coverage.is_whole and not self._stop.wait(2 * TICK_INTERVAL_S):
            coverage = coverage.both(self._compared())
        return coverage

    def _compared(self) -> Coverage:
        before = self._watches()
        heard_as = {} if self._observer is None else self._observer.heard_as()
        inodes = dict(self._directories())
        return compare(inodes, before, heard_as, self._watches())

    def _watches(self) -> dict[int, int]:
        return dict(watch for fd in self._descriptors for watch in inotify.watches(fd))

    def _directories(self) -> Iterator[tuple[str, int]]:
        """Path and inode of every readable directory that can hold keys; follows no links."""
        stack = [""]
        while stack and not self._stop.is_set():
            path = stack.pop()
            with contextlib.suppress(OSError), syscalls.directory(self._fd, path) as at:
                yield path, os.fstat(at).st_ino
                with os.scandir(at) as listing:
                    below = [item.name for item in listing if item.is_dir(follow_symlinks=False)]
                inside = (f"{path}/{name}" if path else name for name in below)
                stack += [directory for directory in inside if can_hold_keys(directory)]

    def _shown(self, path: str) -> str:
        """A path below the root, shortened for a message."""
        text = names.spelled(str(self._root.path / path))
        return text if len(text) <= 200 else f"{text[:100]}...{text[-90:]}"
