"""A reference-counted file descriptor for threads: the last user closes it.

A cancelled task does not stop its thread, and open(2) returns the lowest free number. So after an
early close, a late pwrite(2) of the thread would land in another file. A call that never returns
keeps its number.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator


class Descriptor:
    """Empty until `take()`. `finish` gets the number after the last use, and must close it.

    For any thread.
    """

    def __init__(self, finish: Callable[[int], None] = os.close) -> None:
        self._finish = finish
        self._fd = -1
        self._users = 0
        self._closed = False
        self._lock = threading.Lock()

    def take(self, fd: int) -> None:
        """Own `fd` from now on. After a `close()`, `finish` gets `fd` at once."""
        with self._lock:
            self._fd = fd
            closed = self._closed
        if closed:
            self._finish(fd)

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """The number, valid inside the block.

        Raises OSError (EBADF) before `take()` and after `close()`.
        """
        with self._lock:
            if self._closed or self._fd < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._users += 1
        try:
            yield self._fd
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._closed and not self._users
        if last:
            self._finish(self._fd)

    def close(self) -> None:
        """Refuse new users. `finish` runs now, or after the last current user."""
        with self._lock:
            unused = not self._closed and not self._users and self._fd >= 0
            self._closed = True
        if unused:
            self._finish(self._fd)
