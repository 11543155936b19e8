"""Progress of a thread, as the kernel sees it: the CPU time that the thread has used.

A thread that waits for a frozen disk uses none. A thread that walks a tree, checks a database or arms a watch uses some for
every answer, also inside sqlite and watchdog, which report nothing meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable


class Progress:
    """Of the thread that calls `begin()`; any thread may ask. `clock` is in seconds, monotonic.

    Growth is seen by whoever asks, so it has to be asked for again and again.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cpu: int | None = None
        self._used = 0
        self._moved_at = clock()

    def begin(self) -> None:
        """From now on the calling thread is the one that is looked at."""
        self._cpu = time.pthread_getcpuclockid(threading.get_ident())

    def moved_at(self) -> float:
        """When the thread was last seen to have used CPU time, by the clock; where it has used none, when this was made."""
        if self._cpu is not None:
            with contextlib.suppress(OSError):  # the thread has ended
                before, self._used = self._used, time.clock_gettime_ns(self._cpu)
                if self._used > before:
                    self._moved_at = self._clock()
        return self._moved_at
