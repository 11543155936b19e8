"""The signal handler of push and pull: stop, or reload the configuration.

No other module of the service handles SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from ..errors import SyncloudError

_STOPS = (signal.SIGTERM, signal.SIGINT)


def exit_code(number: int) -> int:
    """The exit code after a signal, as in a shell."""
    return 128 + number


class Stopped(SyncloudError):
    """A clean stop by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = exit_code(number)


class SignalHandler:
    """A signal handler for the running loop, active from `listen()` on.

    `ended` is the number of the signal that stops the service, or 0. The handler calls `upon_end`
    at once when a stop signal arrives.
    """

    def __init__(self, upon_end: Callable[[], None]) -> None:
        self.ended = 0
        self._upon_end = upon_end
        self._reload = False
        self._given = asyncio.Event()

    def listen(self) -> None:
        """Stop on SIGTERM and SIGINT, at once on the second one."""
        for number in _STOPS:
            asyncio.get_running_loop().add_signal_handler(number, self._end, number)

    def accept_reloads(self) -> None:
        """Reload on SIGHUP, which ends a process without a service."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._read_again)

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
        """Wake every task in `wait()`, so that the task checks for work at once."""
        self._given.set()

    def consume_reload(self) -> bool:
        """Whether a reload is pending; the call clears the request."""
        asked, self._reload = self._reload, False
        if not self.ended:
            self._given.clear()
        return asked

    async def wait(self, seconds: float) -> None:
        """Wait for a signal, a call of `stir()`, or the end of `seconds`."""
        # A timer, because wait_for makes a task for each call.
        timer = asyncio.get_running_loop().call_later(seconds, self._given.set)
        try:
            await self._given.wait()
        finally:
            timer.cancel()
            if not (self.ended or self._reload):
                self._given.clear()
