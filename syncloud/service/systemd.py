"""What systemd is told: ready, status, alive (sd_notify(3)). Owner of sdnotify.

Without NOTIFY_SOCKET everything here is silent. Nothing here blocks: where the receiver is stuck, what must arrive is kept
and sent later, and a ping is not.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable

from sdnotify import SystemdNotifier

from ..errors import scrubbed

_STATUS = 1000
"""Characters of a status; systemd drops datagrams above 4096 bytes."""


class Notifier:
    """Speaks to the socket in NOTIFY_SOCKET. `clock` is in seconds, monotonic."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listening = bool(os.environ.get("NOTIFY_SOCKET"))
        self._channel = _connect() if self._listening else None
        self._owed: deque[str] = deque()
        self._told = ""
        self._wanted = ""
        self._status_at = float("-inf")
        self.is_ready = False
        """Whether READY=1 was the last word on that."""
        self.watchdog_interval = _watchdog_interval()
        """Seconds between two pings, half of what systemd waits (sd_watchdog_enabled(3)); None if it does not watch."""

    def ready(self) -> None:
        """Started, or reloaded. Alone in its message: whatever else might spoil that could delay it, too."""
        self.is_ready = True
        self._must("READY=1")

    def status(self, text: str) -> None:
        """One line of ASCII, other characters become "?". At most one a second is sent; the newest one follows by `flush()`."""
        line = " ".join(scrubbed(text).split()).encode("ascii", "replace").decode("ascii")
        self._wanted = "".join(character if character.isprintable() else "?" for character in line)[:_STATUS]
        self.flush()

    def watchdog(self) -> None:
        """Alive. Call it only on evidence of progress."""
        self.flush()
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """`ready()` must follow. (sd_notify(3) asks for CLOCK_MONOTONIC, in microseconds, in the same message.)"""
        self.is_ready = False
        self._must(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The end has begun; a status held back is sent first."""
        self._status_at = float("-inf")
        self.flush()
        self._must("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Starting, reloading or stopping takes up to `seconds` more from now. To be repeated while it lasts."""
        self.flush()
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def flush(self) -> None:
        """Send what is held back, if it is time and systemd listens. `watchdog()` does it, too."""
        while self._owed and self._send(self._owed[0]):
            self._owed.popleft()
        now = self._clock()
        if self._wanted != self._told and now - self._status_at >= 1.0 and self._send(f"STATUS={self._wanted}"):
            self._told, self._status_at = self._wanted, now

    def close(self) -> None:
        self._listening = False
        self._disconnect()

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.socket.close()
            self._channel = None

    def _must(self, message: str) -> None:
        if self._listening:
            self._owed.append(message)
            self.flush()

    def _send(self, message: str) -> bool:
        """Whether it was sent; where nobody listens there is nothing to keep, so that counts as sent."""
        if not self._listening:
            return True
        self._channel = self._channel or _connect()
        if self._channel is None:
            return False
        try:
            self._channel.notify(message)
        except BlockingIOError:
            return False
        except OSError:
            # The receiver is gone. It may be back under the same name, and sdnotify would not look.
            self._disconnect()
            return False
        return True


def _connect() -> SystemdNotifier | None:
    try:
        # sdnotify drops its socket unclosed where it cannot connect.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            channel = SystemdNotifier(debug=True)  # without debug it hides every failure
    except OSError:
        return None
    channel.socket.setblocking(False)
    return channel


def _watchdog_interval() -> float | None:
    period, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not (period.isascii() and period.isdigit()) or int(period) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(period) / 2 / 1_000_000
