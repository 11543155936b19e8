"""Outage state machine with back-off, for the network, the store, credentials and the disk.

An outage is logged at its start, then once a minute, and at its end. The second witness (`witness`)
separates an outage from a failure of one path.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import log
from ..backoff import Backoff
from ..errors import SyncloudError

RETRY = Backoff(first_s=1.0, most_s=30.0, jitter=0.5)
"""Between two probes."""
REPORT_INTERVAL_S = 60.0
"""Seconds between two log lines of one outage."""


class Outage:
    """`error` is the current error, None while all is well; `next_try` the time of the next probe.

    `sibling` is another outage with probably the same cause: an error of the type that the sibling
    has logged is not logged again. With `caller_reports` nothing is logged here, because the error
    is raised and the caller reports it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.sibling: Outage | None = None
        self.caller_reports = False
        self.error: SyncloudError | None = None
        self.next_try = 0.0
        self._since = 0.0
        self._reported_at = 0.0
        self._failures = 0
        self._silent = False

    @classmethod
    def pair(cls, clock: Callable[[], float]) -> tuple[Outage, Outage]:
        """Two outages, each the sibling of the other."""
        one, other = cls(clock), cls(clock)
        one.sibling, other.sibling = other, one
        return one, other

    def record_failure(self, error: SyncloudError) -> None:
        """Record a failure that concerns all paths.

        Stragglers that fail before the next probe is due do not postpone the probe.
        """
        now = self._clock()
        if self.error is None:
            self._since, self._reported_at, self._failures = now, now, 1
            self._silent = self._is_reported_elsewhere(error)
            self._log("outage.started", error)
            self._put_off(now)
        elif now >= self.next_try:
            self._failures += 1
            if now - self._reported_at >= REPORT_INTERVAL_S:
                self._reported_at = now
                self._silent = self._is_reported_elsewhere(error)
                self._log("outage.continues", error)
            self._put_off(now)
        self.error = error

    def _put_off(self, now: float) -> None:
        self.next_try = now + RETRY.delay(self._failures)

    def _is_reported_elsewhere(self, error: SyncloudError) -> bool:
        beside = self.sibling
        return self.caller_reports or (
            beside is not None and type(beside.error) is type(error) and not beside._silent
        )

    def _log(self, event: str, error: SyncloudError) -> None:
        if not self._silent:
            log.warning(event, "degraded: %s", error, error=error)

    def may_probe(self) -> bool:
        return self._clock() >= self.next_try

    def record_success(self, began: float) -> None:
        """End the outage if the successful request `began` after the start of the outage.

        An earlier request proves nothing, because its answer may be older than the outage.
        """
        if self.error is not None and began >= self._since:
            self.end()

    def end(self) -> None:
        """End the outage, and log its duration."""
        if self.error is not None and not self._silent:
            took = self._clock() - self._since
            log.warning(
                "outage.ended", "recovered after %.0f s", took, duration_ms=round(took * 1000)
            )
        self.error = None
        self.next_try = 0.0
