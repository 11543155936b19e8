"""How much may be under way at a time: in number, and in bytes that are held in memory."""

from __future__ import annotations

from .hints import Work
from .model import SMALL, Entry

BREATH = 0.01
"""Seconds that a free place may wait for others while most are taken: a turn costs about the same for one path as for many."""
BODIES = 64 * SMALL
"""Bytes of small files, from the look to the end of the transfer. A larger one is carried in parts (settle.LARGE)."""


class Room:
    """For `transfers` works. One of which nobody has said how large it is counts as the largest of the small ones."""

    def __init__(self, transfers: int) -> None:
        self._transfers = transfers
        self._weights: dict[str, int] = {}
        self._promised = 0

    @property
    def places(self) -> int:
        """Works that may begin which hold no bytes."""
        return self._transfers - len(self._weights)

    @property
    def free(self) -> int:
        """Works that may begin, however large they turn out to be."""
        return max(0, min(self.places, (BODIES - self._promised) // SMALL))

    @property
    def scarce(self) -> bool:
        """Whether more than three quarters are taken."""
        return 3 * self.free < len(self._weights)

    def enter(self, work: Work) -> None:
        weight = _weight(work)
        self._weights[work.path] = weight
        self._promised += weight

    def leave(self, work: Work) -> None:
        self._promised -= self._weights.pop(work.path)


def _weight(work: Work) -> int:
    if work.deleting:
        return 0
    return min(work.nominated.size, SMALL) if isinstance(work.nominated, Entry) else SMALL
