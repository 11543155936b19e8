"""watchdog's observer, its ends mended: one thread less, a walk of any depth that no link leads astray, what it says of an
overflow, what is left open.

Owner of watchdog's observers; for its versions 6 and 7.
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

from . import syscalls

LONGEST = 4095
"""Bytes of a path below the descriptor that the kernel takes: PATH_MAX, without the zero at its end."""


def place(fd: int) -> str:
    """The name under which the directory open as `fd` is watched. It leads there whatever has the directory's path now."""
    return f"{_DESCRIPTORS}{fd}"


_DESCRIPTORS = "/proc/self/fd/"


def _opened(path: AnyStr, flags: int) -> int:
    """A descriptor of `path`, which is a `place` or below one: no symbolic link is followed there. Raises OSError."""
    number, below = _parted(path)
    return syscalls.open_beneath(int(number), below or ".", flags | os.O_DIRECTORY)


def _parted(path: AnyStr) -> tuple[str, str]:
    """The descriptor's number and what is below it."""
    number, _, below = os.fsdecode(path).removeprefix(_DESCRIPTORS).partition("/")
    return number, below


def walk(top: AnyStr, *_: object, **__: object) -> Iterator[tuple[AnyStr, list[AnyStr], list[AnyStr]]]:
    """As os.walk from the top down, without following links, also those that take the place of a directory meanwhile.

    That one recurses before Python 3.12, and ends with the depth of somebody's tree; and it names directories whose paths the
    kernel does not take, at the first of which watchdog 6 gives up. No key is as long.
    """
    stack = [top]
    while stack:
        at = stack.pop()
        try:
            items = _listed(at)
        except OSError:
            continue
        below = [name for name, is_directory in items if is_directory and _fits(at, name)]
        yield at, below, [name for name, is_directory in items if not is_directory]
        stack += [os.path.join(at, name) for name in below]


def _fits(at: AnyStr, name: AnyStr) -> bool:
    _, below = _parted(os.path.join(at, name))
    return len(os.fsencode(below)) <= LONGEST


def _listed(at: AnyStr) -> list[tuple[AnyStr, bool]]:
    """What is in a directory, and whether it is a directory itself."""
    fd = _opened(at, os.O_RDONLY)
    try:
        with os.scandir(fd) as listing:
            form = _FORMS[type(at)]
            return [(form(item.name), item.is_dir(follow_symlinks=False)) for item in listing]
    finally:
        os.close(fd)


_FORMS: Mapping[type, Callable[[str], Any]] = {bytes: os.fsencode, str: str}
"""Of the names below a path, which are like the path itself."""


def _add_watch(queue: int, path: bytes, mask: int) -> int:
    """As inotify_add_watch(2), which looks up a path, and follows the links that somebody has put on the way meanwhile."""
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
"""IN_DONT_FOLLOW, since the name of a descriptor is a link itself."""
_by_path = inotify_c.inotify_add_watch
_os = types.ModuleType("os")
vars(_os).update(vars(os), walk=walk)
for _module in (inotify, inotify_c, wd):
    vars(_module)["os"] = _os
vars(inotify_c)["inotify_add_watch"] = _add_watch


class Observer(InotifyObserver):
    """Its own thread has no part in events: to hand each over to it is as dear as the rest of watchdog's work, and as slow."""

    def __init__(self, handler: wd.FileSystemEventHandler) -> None:
        self._handler = handler
        self._straight = _Straight(handler)
        super().__init__()

    @property
    def event_queue(self) -> EventQueue:
        return self._straight

    def watch(self, root: str, wanted: list[type[wd.FileSystemEvent]]) -> None:
        """The `place` and everything below it, from now on. Raises OSError, RuntimeError; then nothing of it is left."""
        # watchdog 7 warns, with a text of its own each time, of a directory that it has met twice: its walk and the event.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        try:
            self.schedule(self._handler, root, recursive=True, event_filter=wanted)
            self.start()
        except BaseException as error:
            self.stop()
            _close_forgotten(error)
            raise

    def heard_as(self) -> dict[int, str]:
        """The path below the root under which the events of each watch are told; none where the version is not known."""
        return {
            watch: os.fsdecode(path)[len(emitter.watch.path) + 1 :]
            for emitter in self.emitters
            for watch, path in _paths(emitter).items()
        }

    def end(self) -> None:
        """Stop, within 5 s: a thread of watchdog's that died with a lock in its hands would never end, and is left alone."""
        ending = threading.Thread(target=self._end, name="watch-end", daemon=True)
        ending.start()
        ending.join(timeout=5)

    def _end(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.stop()
            self.join(timeout=5)


class _Straight(EventQueue):
    """What is put here has been handled; only the order to end waits for the observer's thread."""

    def __init__(self, handler: wd.FileSystemEventHandler) -> None:
        super().__init__()
        self._handler = handler

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if item is EventDispatcher.stop_event:
            super().put(item, block, timeout)
        else:
            self._handler.dispatch(item[0])


class OverflowHandler(logging.Handler):
    """Newer watchdogs say in their log that the kernel's queue overflowed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = False

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self.seen = True


def _paths(emitter: EventEmitter) -> dict[int, bytes]:
    """A copy of what watchdog calls its watches: the one thread that writes there goes on."""
    group = getattr(emitter, "_inotify", None)  # that of watchdog 7; 6 has a buffer around it
    for owner, field in ((group, "_active_callbacks_by_watch"), (getattr(group, "_inotify", None), "_path_for_wd")):
        if paths := getattr(owner, field, None):
            return dict(paths)
    return {}


def _close_forgotten(error: BaseException) -> None:
    """watchdog 6 leaves the descriptors of an Inotify open that it could not make, and with them the watches it was granted."""
    made = {id(held): held for frame, _ in traceback.walk_tb(error.__traceback__) if (held := frame.f_locals.get("self"))}
    for one in made.values():
        if type(one).__name__ == "Inotify" and hasattr(one, "_kill_w"):
            for fd in (one._inotify_fd, one._kill_r, one._kill_w):
                os.close(fd)
