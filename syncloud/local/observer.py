"""Adapter around watchdog's inotify observer, for watchdog 6 and 7; patches its weak points.

It dispatches without a second thread, walks trees of any depth without following links, detects
overflows, and closes leaked descriptors. Only this module imports `watchdog.observers`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, AnyStr

from watchdog import events as wd
from watchdog.observers import inotify, inotify_c
from watchdog.observers.api import EventDispatcher, EventEmitter, EventQueue
from watchdog.observers.inotify import InotifyObserver

from ..core import names
from . import syscalls


def place(fd: int) -> str:
    """The path for a watch of the directory open as `fd`; stays valid after a rename."""
    return f"{_DESCRIPTORS}{fd}"


_DESCRIPTORS = "/proc/self/fd/"


def _opened(path: AnyStr, flags: int) -> int:
    """A descriptor of `path`, at or below a `place`; follows no link there. Raises OSError."""
    if not os.fsdecode(path).startswith(_DESCRIPTORS):  # another user of watchdog in this process
        return os.open(path, flags | os.O_DIRECTORY)
    number, below = _parted(path)
    return syscalls.open_beneath(int(number), below or ".", flags | os.O_DIRECTORY)


def _parted(path: AnyStr) -> tuple[str, str]:
    """The number of the descriptor in `path`, and the path below the descriptor."""
    number, _, below = os.fsdecode(path).removeprefix(_DESCRIPTORS).partition("/")
    return number, below


def walk(
    top: AnyStr, *_: object, **__: object
) -> Iterator[tuple[AnyStr, list[AnyStr], list[AnyStr]]]:
    """Replacement of os.walk, top-down; never follows a link, even one that replaces a directory.

    Before Python 3.12, os.walk recurses and fails in a deep tree. This walk skips the
    directories that `can_hold_keys` refuses.
    """
    stack = [top]
    while stack:
        at = stack.pop()
        try:
            items = _listed(at)
        except OSError:
            continue
        folders = (name for name, is_directory in items if is_directory)
        below = [name for name in folders if can_hold_keys(_parted(os.path.join(at, name))[1])]
        yield at, below, [name for name, is_directory in items if not is_directory]
        stack += [os.path.join(at, name) for name in below]


def can_hold_keys(directory: str) -> bool:
    """Whether files below `directory` can have keys. Other directories are not watched.

    Each open walks the whole path, so an endless depth would cost its square, and watchdog 6 ends
    at the first path above PATH_MAX.
    """
    return not names.too_long_for_a_key("", directory + "/n")


def _listed(at: AnyStr) -> list[tuple[AnyStr, bool]]:
    """The names in a directory, each with True for a directory. Raises OSError."""
    fd = _opened(at, os.O_RDONLY)
    try:
        with os.scandir(fd) as listing:
            form = _FORMS[type(at)]
            return [(form(item.name), item.is_dir(follow_symlinks=False)) for item in listing]
    finally:
        os.close(fd)


_FORMS: Mapping[type, Callable[[str], Any]] = {bytes: os.fsencode, str: str}
"""Conversion of a name to the type of its parent path."""


def _add_watch(queue: int, path: bytes, mask: int) -> int:
    """inotify_add_watch(2) below a descriptor, because the original follows links on the way.

    On an error, returns -1 and sets errno.
    """
    if not can_hold_keys(_parted(path)[1]):
        ctypes.set_errno(errno.ENAMETOOLONG)
        return -1
    try:
        fd = _opened(path, os.O_PATH)
    except OSError as error:
        ctypes.set_errno(error.errno or errno.EIO)
        return -1
    try:
        return int(_by_path(queue, os.fsencode(place(fd)), mask & ~_DONT_FOLLOW))
    finally:
        number = ctypes.get_errno()
        os.close(fd)
        ctypes.set_errno(number)


_DONT_FOLLOW = 0x0200_0000
"""IN_DONT_FOLLOW is removed, because the /proc name of a descriptor is itself a link."""
_by_path = inotify_c.inotify_add_watch
_os = types.ModuleType("os")
vars(_os).update(vars(os), walk=walk)
for _module in (inotify, inotify_c, wd):
    vars(_module)["os"] = _os
vars(inotify_c)["inotify_add_watch"] = _add_watch


class Observer(InotifyObserver):
    """Calls the handler on the emitter's thread: a second thread would double an event's cost."""

    def __init__(self, handler: wd.FileSystemEventHandler) -> None:
        self._handler = handler
        self._straight = _Straight(handler)
        super().__init__()

    @property
    def event_queue(self) -> EventQueue:
        return self._straight

    def watch(self, root: str, wanted: list[type[wd.FileSystemEvent]]) -> None:
        """Watch the tree at `root`, a `place`. Raises OSError, RuntimeError; leaks nothing then."""
        # watchdog 7 warns of each directory found by both walk and event, in a new text each time.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        try:
            self.schedule(self._handler, root, recursive=True, event_filter=wanted)
            self.start()
        except BaseException as error:
            self.stop()
            _close_forgotten(error)
            raise

    def heard_as(self) -> dict[int, str]:
        """The path in the events of each watch, relative to the root.

        Empty if the version of watchdog is unknown.
        """
        return {
            watch: os.fsdecode(path)[len(emitter.watch.path) + 1 :]
            for emitter in self.emitters
            for watch, path in _paths(emitter).items()
        }

    def end(self) -> None:
        """Stop, with a limit of 5 s.

        A watchdog thread that died with a lock held would block the join forever. After the limit,
        the join is abandoned.
        """
        ending = threading.Thread(target=self._end, name="watch-end", daemon=True)
        ending.start()
        ending.join(timeout=5)

    def _end(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.stop()
            self.join(timeout=5)


class _Straight(EventQueue):
    """Queue that dispatches each event at once; only the stop event is queued for the observer."""

    def __init__(self, handler: wd.FileSystemEventHandler) -> None:
        super().__init__()
        self._handler = handler

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if item is EventDispatcher.stop_event:
            super().put(item, block, timeout)
        else:
            self._handler.dispatch(item[0])


class OverflowHandler(logging.Handler):
    """Log handler that detects a queue overflow: recent watchdog versions only log a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = False

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self.seen = True


def _paths(emitter: EventEmitter) -> dict[int, bytes]:
    """A copy of watchdog's paths by watch, because the emitter's thread modifies the original."""
    group = getattr(emitter, "_inotify", None)  # of watchdog 7; in watchdog 6, a buffer around it
    for owner, field in (
        (group, "_active_callbacks_by_watch"),
        (getattr(group, "_inotify", None), "_path_for_wd"),
    ):
        if paths := getattr(owner, field, None):
            return dict(paths)
    return {}


def _close_forgotten(error: BaseException) -> None:
    """Close the descriptors, and so the watches, of an `Inotify` with a failed constructor.

    watchdog 6 leaks such an object; the frames of the traceback still refer to it.
    """
    made = {
        id(held): held
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if (held := frame.f_locals.get("self"))
    }
    for one in made.values():
        if type(one).__name__ == "Inotify" and hasattr(one, "_kill_w"):
            for fd in (one._inotify_fd, one._kill_r, one._kill_w):
                os.close(fd)
