"""An open file that threads use: its number becomes free only after the last of them has returned.

A cancelled task does not stop the thread that works for it, and open(2) hands out the lowest free number. A descriptor that is
closed under such a thread therefore makes its late pwrite(2) land in another file. Here the last user closes; a call that never
returns keeps its number.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator


class Descriptor:
    """Empty until `take()`. `finish` gets the number once nobody can use it any more, and must close it. For any thread."""

    def __init__(self, finish: Callable[[int], None] = os.close) -> None:
        self._finish = finish
        self._fd = -1
        self._users = 0
        self._closed = False
        self._lock = threading.Lock()

    def take(self, fd: int) -> None:
        """Own `fd` from now on. Where the owner has given up meanwhile, it is finished at once."""
        with self._lock:
            self._fd = fd
            closed = self._closed
        if closed:
            self._finish(fd)

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """The number, which belongs to this file within. Raises OSError (EBADF) before `take()` and after `close()`."""
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
        """Nobody begins to use it any more. It is finished now, or by the last call that still uses it."""
        with self._lock:
            unused = not self._closed and not self._users and self._fd >= 0
            self._closed = True
        if unused:
            self._finish(self._fd)
