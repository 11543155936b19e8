"""A bounded number of bytes, for all who need some of it in turns: memory for the parts of large files."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

PARTS = 256 * 1024 * 1024
"""Bytes of parts that a tree holds in memory, of all files together."""


class Budget:
    """`total` bytes. Who asks for some gets them in the order of the asking: a file that asks for one part after the other
    takes its turn with all others, however large it is, and whoever has made it.
    """

    def __init__(self, total: int = PARTS) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    async def take(self, amount: int) -> None:
        """Wait for `amount` bytes; more than there are in all are granted once nobody else has any."""
        amount = min(amount, self._total)
        if not self._waiting and amount <= self._free:
            self._free -= amount
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turn = (amount, granted)
        self._waiting.append(turn)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.give(amount)
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(turn)
                self._grant()  # the next one may need less
            raise

    def give(self, amount: int) -> None:
        """Give back what was taken."""
        self._free += min(amount, self._total)
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            amount, granted = self._waiting.popleft()
            if not granted.done():
                self._free -= amount
                granted.set_result(None)
