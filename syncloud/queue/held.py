"""The held messages of a queue: received, and neither deleted nor left for its dead letters."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .message import Message

HELD_MAX_MESSAGES = 2_000
"""Held messages, at most: bounds memory, far below the 120,000 of SQS."""


class Held:
    """The held messages by id. Thread-safe."""

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_full(self) -> bool:
        return len(self._messages) >= HELD_MAX_MESSAGES

    def renew(self, message: Message) -> bool:
        """Whether the message is held; a redelivery renews the handle: only the newest deletes."""
        with self._lock:
            earlier = self._messages.get(message.message_id)
            if earlier is not None:
                earlier.handle, earlier.visible_at = message.handle, message.visible_at
            return earlier is not None

    def add(self, message: Message) -> None:
        with self._lock:
            self._messages[message.message_id] = message

    def drop(self, message_id: str) -> None:
        """Remove the message, if it is held."""
        with self._lock:
            self._messages.pop(message_id, None)

    def visible_before(self, moment: float) -> list[Message]:
        """The messages that SQS delivers again before `moment` (monotonic seconds)."""
        with self._lock:
            return [one for one in self._messages.values() if one.visible_at < moment]
