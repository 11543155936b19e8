"""The sd_notify(3) client: readiness, status, watchdog. The only user of sdnotify.

Without NOTIFY_SOCKET, every call is a no-op. No call blocks: with a stuck receiver, required
messages are queued and sent later, and pings are dropped.
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
"""Maximum characters of a status, because systemd drops datagrams above 4096 bytes."""


class Notifier:
    """A client for the socket in NOTIFY_SOCKET. `clock` is in seconds, monotonic."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listening = bool(os.environ.get("NOTIFY_SOCKET"))
        self._channel = _connect() if self._listening else None
        self._owed: deque[str] = deque()
        self._sent = ""
        self._wanted = ""
        self._status_at = float("-inf")
        self.is_ready = False
        """Whether READY=1 is the latest readiness message."""
        self.watchdog_interval = _watchdog_interval()
        """Seconds between two pings, half of systemd's timeout (sd_watchdog_enabled(3)); None
        without a watchdog.
        """

    def ready(self) -> None:
        """Report the end of a start or a reload. READY=1 is sent alone, so that no other field can
        delay the message.
        """
        self.is_ready = True
        self._must("READY=1")

    def status(self, text: str) -> None:
        """Send a status as one ASCII line, with "?" for other characters.

        At most one status per second is sent; a later `flush()` sends the newest one.
        """
        line = " ".join(scrubbed(text).split()).encode("ascii", "replace").decode("ascii")
        printable = [character if character.isprintable() else "?" for character in line]
        self._wanted = "".join(printable[:_STATUS])
        self.flush()

    def watchdog(self) -> None:
        """Ping the watchdog. The caller needs evidence of progress."""
        self.flush()
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Report a reload; `ready()` must follow. sd_notify(3) requires CLOCK_MONOTONIC, in
        microseconds, in the same message.
        """
        self.is_ready = False
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._must(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Report the stop, after any status that was held back."""
        self._status_at = float("-inf")
        self.flush()
        self._must("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Extend the timeout of a start, reload or stop by `seconds` from now. Repeat the call
        while the operation lasts.
        """
        self.flush()
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def flush(self) -> None:
        """Send queued messages, and the status if due, as far as systemd receives them.
        `watchdog()` also flushes.
        """
        while self._owed and self._send(self._owed[0]):
            self._owed.popleft()
        now = self._clock()
        is_due = self._wanted != self._sent and now - self._status_at >= 1.0
        if is_due and self._send(f"STATUS={self._wanted}"):
            self._sent, self._status_at = self._wanted, now

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
        """Whether the message was sent. Without NOTIFY_SOCKET the result is True, so that no
        message is queued.
        """
        if not self._listening:
            return True
        self._channel = self._channel or _connect()
        return self._channel is not None and self._deliver(self._channel, message)

    def _deliver(self, channel: SystemdNotifier, message: str) -> bool:
        try:
            channel.notify(message)
        except BlockingIOError:
            return False
        except OSError:
            # Reconnect later, because the receiver may return under the same name. sdnotify does
            # not reconnect by itself.
            self._disconnect()
            return False
        return True


def _connect() -> SystemdNotifier | None:
    try:
        # sdnotify leaves its socket open after a failed connect, which causes a ResourceWarning.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            channel = SystemdNotifier(debug=True)  # sdnotify otherwise hides every failure
    except OSError:
        return None
    channel.socket.setblocking(False)
    return channel


def _watchdog_interval() -> float | None:
    period, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    is_number = period.isascii() and period.isdigit()
    if not is_number or int(period) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(period) / 2 / 1_000_000
