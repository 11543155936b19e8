"""The lookout: a thread that makes the blocking checks of a daemon at each pulse."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from ..core import timing
from ..errors import HostUnavailable
from ..state.notes import RESUME, Resume
from .session import Session
from .steps import CalledOff

CHECK_TIMEOUT_S = 10.0
"""Seconds that the checks may take in addition to their interval."""

News = tuple[HostUnavailable | None, Resume | None]
"""A failure of the host, and a note of `syncloud resume`."""


class Lookout:
    """The checks of one session. `wake` is called on the control thread, for news alone."""

    def __init__(
        self, sync: Session, *, wake: Callable[[], None], resting: Callable[[], bool]
    ) -> None:
        self._sync = sync
        self._wake = wake
        self._resting = resting
        self._over = threading.Event()
        self._looked_at: float | None = None
        """Time of the last finished check by the thread; None while the thread does not run."""
        self._news: deque[News] = deque()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """A context in which the thread runs; the task ends with the thread."""
        self._looked_at = time.monotonic()
        task = asyncio.create_task(self._sync.steps.run(self._look_out))
        task.add_done_callback(lambda _: self._wake())
        try:
            yield task
        finally:
            self._over.set()
            with contextlib.suppress(CalledOff):
                await task
            self._looked_at = None

    def _look_out(self) -> None:
        while not self._over.wait(timing.until_next(time.monotonic(), resting=self._resting())):
            news = self._sync.trouble_or_note()
            self._looked_at = time.monotonic()
            if any(news):
                self._news.append(news)
                self._sync.steps.loop.call_soon_threadsafe(self._wake)

    def take(self) -> News:
        """The oldest news, or a pair of None."""
        return self._news.popleft() if self._news else (None, None)

    def put_back(self) -> None:
        """Return an unhandled `syncloud resume` note to the state for the next daemon, unless a
        newer note exists. Blocking.
        """
        left = [note for _, note in self._news if note is not None]
        with contextlib.suppress(HostUnavailable):
            if left and self._sync.state.notes.get(RESUME) is None:
                self._sync.state.notes.set(RESUME, left[-1])

    def stalled(self) -> str | None:
        """The reason if the checks do not return, or None. Thread-safe.

        The checks are a few small calls; a disk that needs longer than an engine turn may take is
        frozen.
        """
        looked_at = self._looked_at
        if looked_at is None:
            return None
        still = time.monotonic() - looked_at - timing.IDLE_INTERVAL_S
        if still < CHECK_TIMEOUT_S:
            return None
        return f"the disk does not answer: directory and state are unknown for {still:.0f} s"
