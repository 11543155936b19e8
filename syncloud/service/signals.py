"""What signals ask of a running service: to end, or to read its configuration again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


class SignalHandler:
    """Belongs to the running loop, from `listen()` on. `ended` is the signal that ends the service, 0 while there is none;
    `upon_end` is called at once when it comes."""

    def __init__(self, *, upon_end: Callable[[], None] = lambda: None) -> None:
        self.ended = 0
        self._upon_end = upon_end
        self._reload = False
        self._given = asyncio.Event()

    def listen(self) -> None:
        """SIGTERM and SIGINT end, a second one of them at once; SIGHUP reloads."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._read_again)

    def _end(self, number: int) -> None:
        if self.ended:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.ended = number
        self._given.set()
        self._upon_end()

    def _read_again(self) -> None:
        self._reload = True
        self._given.set()

    def stir(self) -> None:
        """Whoever waits for an order looks round now."""
        self._given.set()

    def consume_reload(self) -> bool:
        """Whether the configuration is to be read again; the order is followed with that."""
        asked, self._reload = self._reload, False
        if not self.ended:
            self._given.clear()
        return asked

    async def wait(self, seconds: float) -> None:
        """Until there is an order, somebody has stirred, or `seconds` are over."""
        timer = asyncio.get_running_loop().call_later(seconds, self._given.set)  # without a task each time, as wait_for has
        try:
            await self._given.wait()
        finally:
            timer.cancel()
            if not (self.ended or self._reload):
                self._given.clear()
