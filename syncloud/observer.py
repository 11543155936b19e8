"""watchdog's observer, its ends mended: one thread less, what it says of an overflow, what it leaves behind.

Owner of watchdog's observers; for its versions 6 and 7.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import traceback
import warnings
from typing import Any

from watchdog import events as wd
from watchdog.observers.api import EventDispatcher, EventQueue
from watchdog.observers.inotify import InotifyObserver


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
