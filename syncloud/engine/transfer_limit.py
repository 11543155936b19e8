"""Admission control: bounds the works under way by number and by bytes held in memory."""

from __future__ import annotations

from ..core.model import SMALL_BYTES, Entry, Side
from ..core.work_queue import Work

BATCH_DELAY_S = 0.01
"""Seconds that a free place may wait for other free places while most places are taken.

Waiting pays, because a turn of the loop costs about the same for one path as for many.
"""
MAX_BUFFERED_BYTES = 64 * SMALL_BYTES
"""Bytes of small files from the look to the end of the transfer.

A larger file travels in parts, bounded by `core.budget`.
"""
MAX_WAITING = 4096
"""Large files that take no place: most of them wait for the turn of a part, and hold no memory."""


class TransferLimit:
    """Places for `transfers` works.

    A work weighs `SMALL_BYTES` until a report or a look reveals the size.
    """

    def __init__(self, transfers: int) -> None:
        self._transfers = transfers
        self._weights: dict[str, int] = {}
        self._large: set[str] = set()
        self._promised = 0

    @property
    def places(self) -> int:
        """Number of works without bytes in memory that may begin."""
        return self._transfers - len(self._weights) + min(len(self._large), MAX_WAITING)

    @property
    def available(self) -> int:
        """Number of works that may begin, whatever their sizes turn out to be."""
        return max(0, min(self.places, (MAX_BUFFERED_BYTES - self._promised) // SMALL_BYTES))

    @property
    def nearly_full(self) -> bool:
        """Whether more than three quarters of the places are taken."""
        return 3 * self.available < len(self._weights) - len(self._large)

    def acquire(self, work: Work) -> None:
        self._weights[work.path] = 0
        if isinstance(work.reported, Entry) and not work.deleting:
            self.resize(work.path, work.reported)
        else:
            self._weigh(work.path, 0 if work.deleting else SMALL_BYTES)

    def resize(self, path: str, side: Side) -> None:
        """Weigh `path` by its observed size; a large file weighs nothing."""
        if path not in self._weights:
            return
        size = side.size if isinstance(side, Entry) else 0
        if size > SMALL_BYTES:
            self._large.add(path)
        else:
            self._large.discard(path)
        self._weigh(path, 0 if size > SMALL_BYTES else size)

    def _weigh(self, path: str, weight: int) -> None:
        self._promised += weight - self._weights[path]
        self._weights[path] = weight

    def release(self, work: Work) -> None:
        self._promised -= self._weights.pop(work.path)
        self._large.discard(work.path)
