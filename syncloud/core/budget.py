"""A byte budget: an async counting semaphore that bounds the memory for parts of large files."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

MAX_PART_BYTES = 256 * 1024 * 1024
"""Maximum bytes of parts in a tree's memory, for all files together."""
OLDEST_EVERY = 4
"""One grant in this many goes to the oldest request, so that no request starves."""


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    amount: int
    left: int
    granted: asyncio.Future[None]


class Budget:
    """A semaphore over `total` bytes: shortest remaining file first, with ageing.

    Each part of a file is a request of its own. The file with the fewest remaining bytes goes
    first; every `OLDEST_EVERY`th grant goes to the oldest request. So files of one size travel one
    after the other, no file waits for the end of a huge one, and huge files still progress.
    """

    def __init__(self, total: int = MAX_PART_BYTES) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[_Turn] = deque()
        self._count = 0

    @property
    def is_wanted(self) -> bool:
        """Whether a request waits."""
        return bool(self._waiting)

    async def take(self, amount: int, left: int) -> None:
        """Acquire `amount` bytes for a file with `left` bytes still to transfer.

        A request above the total counts as the total: its grant needs the whole budget.
        """
        turn = _Turn(min(amount, self._total), left, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        self._grant()
        try:
            await turn.granted
        except asyncio.CancelledError:
            if turn.granted.cancelled():
                self._grant()  # the next request may be smaller
            else:
                self.give(turn.amount)
            raise

    def give(self, amount: int) -> None:
        """Release `amount` bytes that `take` acquired."""
        self._free += min(amount, self._total)
        self._grant()

    async def turn(self, amount: int, left: int) -> None:
        """Wait as `take` does, but release the bytes at once."""
        await self.take(amount, left)
        self.give(amount)

    def _grant(self) -> None:
        """Grant strictly in order: a large request at the head would otherwise starve."""
        while self._waiting:
            turn = self._next()
            if turn.granted.cancelled():
                self._waiting.remove(turn)
                continue
            if turn.amount > self._free:
                return
            self._waiting.remove(turn)
            self._count += 1
            self._free -= turn.amount
            turn.granted.set_result(None)

    def _next(self) -> _Turn:
        if self._count % OLDEST_EVERY == OLDEST_EVERY - 1:
            return self._waiting[0]
        return min(self._waiting, key=lambda turn: turn.left)
