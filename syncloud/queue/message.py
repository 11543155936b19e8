"""One received message: all its events share it, and the last one that is settled settles it."""

from __future__ import annotations

import threading
from typing import Protocol


class Source(Protocol):
    """Where messages come from, and where they are deleted."""

    def settled(self, message: Message) -> None: ...


class Message:
    """A Receipt that is shared by all its events and counts them down."""

    def __init__(self, source: Source, message_id: str, handle: str) -> None:
        self.message_id = message_id
        self.handle = handle
        self.visible_at = 0.0
        self.events: list[tuple[str, str]] = []
        self.left = False
        """Whether it stays in the queue when all that can be read of it is settled."""
        self._source = source
        self._open = 1
        self._lock = threading.Lock()

    def expect(self) -> None:
        with self._lock:
            self._open += 1

    def acknowledge(self) -> None:
        with self._lock:
            self._open -= 1
            done = self._open == 0
        if done:
            self._source.settled(self)
