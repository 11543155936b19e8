"""The detector of lost events: changes that a listing finds although an event was due."""

from __future__ import annotations

from .. import log
from ..core.interfaces import HintSource
from ..engine.loop import Engine
from ..errors import SyncloudError

_HINT = (
    "each host that pulls needs a queue of its own with every event of the prefix: "
    "check whether hosts share the queue, and whether the bucket sends every event"
)


class MissedEvents:
    """The detector for one source of hints; `queue` is the queue's address, for the log."""

    def __init__(self, hints: HintSource, engine: Engine, queue: str) -> None:
        self._hints = hints
        self._stats = engine.stats
        self._queue = queue
        self._gaps: int | None = -1

    def catch_up(self) -> None:
        """Reset the detector, because the start, or a gap in the queue, is fully settled.

        The listing covers that period; from then on every change needs an event.
        """
        if self._gaps != self._hints.gaps:
            self._gaps = self._hints.gaps
            self._stats.changes_without_event.clear()

    def judge(self) -> None:
        """Report lost events just before the next listing; an event still missing by then counts as
        lost.
        """
        count = len(self._stats.changes_without_event)
        if count and self._gaps is not None and self._gaps == self._hints.gaps:
            self._stats.changes_without_event.clear()
            self._report(count)

    def _report(self, count: int) -> None:
        changes = f"{count} changes were" if count > 1 else "a change was"
        lost = SyncloudError(f"{changes} found by listing alone: no event came", hint=_HINT)
        self._stats.fail(lost)
        log.warning("queue.missed", "%s", lost, error=lost, queue=self._queue, count=count)
