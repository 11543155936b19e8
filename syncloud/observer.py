"""watchdog's observer, its ends mended: one thread less, a walk of any depth, what it says of an overflow, what is left open.

Owner of watchdog's observers; for its versions 6 and 7.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import traceback
import types
import warnings
from collections.abc import Iterator
from typing import Any, AnyStr

from watchdog import events as wd
from watchdog.observers import inotify, inotify_c
from watchdog.observers.api import EventDispatcher, EventQueue
from watchdog.observers.inotify import InotifyObserver

LONGEST = 4095
"""Bytes of a path that the kernel takes: PATH_MAX, without the zero at its end."""


def walk(top: AnyStr, *_: object, **__: object) -> Iterator[tuple[AnyStr, list[AnyStr], list[AnyStr]]]:
    """As os.walk from the top down, without following links.

    That one recurses before Python 3.12, and ends with the depth of somebody's tree; and it names directories whose paths the
    kernel does not take, at the first of which watchdog 6 gives up.
    """
    stack = [top]
    while stack:
        at = stack.pop()
        try:
            with os.scandir(at) as listing:
                items = [(item.name, _is_directory(item), item.is_symlink()) for item in listing]
        except OSError:
            continue
        paths = {name: os.path.join(at, name) for name, is_directory, _ in items if is_directory}
        paths = {name: path for name, path in paths.items() if len(os.fsencode(path)) <= LONGEST}
        yield at, list(paths), [name for name, is_directory, _ in items if not is_directory]
        links = {name for name, _, is_link in items if is_link}
        stack += [path for name, path in paths.items() if name not in links]


def _is_directory(item: os.DirEntry[Any]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link to nowhere that can be seen
        return False


_os = types.ModuleType("os")
vars(_os).update(vars(os), walk=walk)
for _module in (inotify, inotify_c, wd):
    vars(_module)["os"] = _os


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
        """`root` and everything below it, from now on. Raises OSError, RuntimeError; then nothing of it is left."""
        # watchdog 7 warns, with a text of its own each time, of a directory that it has met twice: its walk and the event.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        try:
            self.schedule(self._handler, root, recursive=True, event_filter=wanted)
            self.start()
        except BaseException as error:
            self.stop()
            _close_forgotten(error)
            raise

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


def _close_forgotten(error: BaseException) -> None:
    """watchdog 6 leaves the descriptors of an Inotify open that it could not make, and with them the watches it was granted."""
    made = {id(held): held for frame, _ in traceback.walk_tb(error.__traceback__) if (held := frame.f_locals.get("self"))}
    for one in made.values():
        if type(one).__name__ == "Inotify" and hasattr(one, "_kill_w"):
            for fd in (one._inotify_fd, one._kill_r, one._kill_w):
                os.close(fd)
