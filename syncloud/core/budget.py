"""A bounded number of bytes, for all who need some of it in turns: memory for the parts of large files."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

MAX_PART_BYTES = 256 * 1024 * 1024
"""Bytes of parts that a tree holds in memory, of all files together."""
OLDEST_EVERY = 4
"""Of so many grants one is for who waits longest, so that nobody waits for ever."""


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    amount: int
    left: int
    granted: asyncio.Future[None]


class Budget:
    """`total` bytes. Each part of a file is asked for by itself; first comes the file of which the least is left, in every
    fourth turn the one that waits longest. So files of a size are carried one after the other, none waits for a huge one to
    end, whoever has made it, and the huge one goes on.
    """

    def __init__(self, total: int = MAX_PART_BYTES) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[_Turn] = deque()
        self._count = 0

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    async def take(self, amount: int, left: int) -> None:
        """Wait for `amount` bytes, for a file of which `left` bytes are to be carried yet. More than there are in all are
        granted once nobody else has any.
        """
        turn = _Turn(min(amount, self._total), left, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        self._grant()
        try:
            await turn.granted
        except asyncio.CancelledError:
            if turn.granted.cancelled():
                self._grant()  # the next one may need less
            else:
                self.give(turn.amount)
            raise

    def give(self, amount: int) -> None:
        """Give back what was taken."""
        self._free += min(amount, self._total)
        self._grant()

    async def turn(self, amount: int, left: int) -> None:
        """Wait as `take` does, and take nothing."""
        await self.take(amount, left)
        self.give(amount)

    def _grant(self) -> None:
        """The next one waits for its bytes, lest who needs much is overtaken for ever by those who need little."""
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
