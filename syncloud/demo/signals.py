"""Ctrl-C, SIGTERM and SIGHUP: noted when they come, obeyed where nothing is half done."""

from __future__ import annotations

import signal

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """As a context manager it notes what comes meanwhile. The first one counts: the end that it leads to is short.

    A handler that raises does so between any two steps, those of the library included: `Popen.poll()` may keep the lock
    then that `Popen.wait()` takes, and who cleans up waits for ever.
    """

    def __init__(self) -> None:
        self._came: list[int] = []

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, lambda came, _: self._came.append(came)) for number in _NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def obey(self) -> None:
        """Raises KeyboardInterrupt or, with the exit code of a shell, SystemExit, where a signal has come."""
        for number in self._came[:1]:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
