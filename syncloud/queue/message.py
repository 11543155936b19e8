"""Reference-counted receipt of one SQS message: the last settled event settles the message."""

from __future__ import annotations

import threading
from typing import Any, Protocol


class Source(Protocol):
    """The consumer that received the message and deletes it after the last acknowledgement."""

    def settled(self, message: Message) -> None: ...


class Message:
    """A `Receipt` shared by all events of the message; counts the open events.

    Thread-safe: any thread may call `expect` and `acknowledge`. The count starts at one, so the
    message stays open while its receiver still adds events.
    """

    def __init__(self, source: Source, message_id: str, handle: str) -> None:
        self.message_id = message_id
        self.handle = handle
        self.visible_at = 0.0
        self.events: list[tuple[str, str]] = []
        self.left = False
        """Whether the message stays in the queue after all its readable events are settled."""
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


def to_retry(answer: dict[str, Any], batch: list[Message]) -> list[Message]:
    """The messages to retry: entry ids are batch indexes, and sender faults are not retried."""
    again = {entry["Id"] for entry in answer.get("Failed", ()) if not entry.get("SenderFault")}
    return [message for index, message in enumerate(batch) if str(index) in again]
