"""The side of systemd in sd_notify(3): a socket that hears what a service says."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Systemd:
    """systemd's side of a process that gets `environment`.

    `said` has the messages in their order, with the time of each; `begun` is the time of the start.
    """

    def __init__(self, directory: Path, *, watchdog_s: float = 60.0) -> None:
        path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0.1)
        self.begun = time.monotonic()
        self._said: list[tuple[float, str]] = []
        self.environment = {
            "NOTIFY_SOCKET": str(path),
            "WATCHDOG_USEC": str(round(watchdog_s * 1e6)),
        }

    def __enter__(self) -> Systemd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def said(self) -> list[tuple[float, str]]:
        """(time.monotonic(), message) of all messages so far.

        The time is that of receiving it, within a tenth of a second or so.
        """
        while True:
            try:
                self._said.append((time.monotonic(), self._socket.recv(8192).decode("ascii")))
            except TimeoutError:
                return list(self._said)

    def words(self) -> list[str]:
        """All messages so far, without the pings and the extensions."""
        return [word for _, word in self.said() if not word.startswith(("WATCHDOG=", "EXTEND_"))]

    def gives_up(self, patience_s: float) -> bool:
        """Whether a TimeoutStartSec= of so many seconds ended before READY=1.

        The time is counted anew from each request. Each request is granted as if it asked for
        TimeoutStartSec=, so that a test can be shorter than a start.
        """
        until = self.begun + patience_s
        for at, word in self.said():
            if at > until:
                return True
            if word == "READY=1":
                return False
            if word.startswith("EXTEND_TIMEOUT_USEC="):
                until = at + patience_s
        return time.monotonic() > until

    def requests(self) -> int:
        """How often more time was asked for."""
        return sum(word.startswith("EXTEND_TIMEOUT_USEC=") for _, word in self.said())

    def count(self, word: str) -> int:
        return sum(message == word for _, message in self.said())

    def status(self) -> str:
        """The newest one; empty before the first."""
        told = [word.removeprefix("STATUS=") for word in self.words() if word.startswith("STATUS=")]
        return told[-1] if told else ""
