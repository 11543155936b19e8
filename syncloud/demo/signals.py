"""Deferred signal handling for Ctrl-C, SIGTERM and SIGHUP: recorded on arrival, handled at safe
points.

The handler of the service cannot replace this module, because the demo has no event loop.
"""

from __future__ import annotations

import signal

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """A context manager that records signals. Only the first signal counts, because the demo then
    ends soon.

    A raising handler could interrupt any step, including a library's. `Popen.poll()` might then
    keep the lock that `Popen.wait()` needs, and the cleanup would hang.
    """

    def __init__(self) -> None:
        self._came: list[int] = []

    def __enter__(self) -> Signals:
        self._before = {
            number: signal.signal(number, lambda came, _: self._came.append(came))
            for number in _NUMBERS
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def obey(self) -> None:
        """Raise KeyboardInterrupt after SIGINT, or SystemExit with a shell's exit code after
        another signal.
        """
        for number in self._came[:1]:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
