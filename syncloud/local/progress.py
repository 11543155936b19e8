"""Progress: the CPU time of a thread, from the kernel, as evidence that the thread is not stuck.

A thread that waits for a frozen disk uses no CPU time. A thread that walks a tree, checks a
database or arms a watch uses some for every answer. CPU time also covers sqlite and watchdog, which
report no progress themselves.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable


class Progress:
    """Progress of the thread that calls `begin()`; any thread may ask. `clock` returns monotonic
    seconds.

    Growth shows only in a call of `moved_at`, so callers must poll.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cpu: int | None = None
        self._used = 0
        self._moved_at = clock()

    def begin(self) -> None:
        """Watch the calling thread from now on."""
        self._cpu = time.pthread_getcpuclockid(threading.get_ident())

    def moved_at(self) -> float:
        """The time of `clock` at the last poll that saw new CPU time; before any, the time of
        construction.
        """
        if self._cpu is not None:
            with contextlib.suppress(OSError):  # the thread has ended
                before, self._used = self._used, time.clock_gettime_ns(self._cpu)
                if self._used > before:
                    self._moved_at = self._clock()
        return self._moved_at
