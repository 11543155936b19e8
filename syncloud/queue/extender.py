"""Extensions of the visibility timeout of held messages, which SQS would deliver again."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..errors import Unavailable
from .client import BATCH_MESSAGES

if TYPE_CHECKING:
    from .client import Client
    from .held import Held
    from .message import Message


class Extender:
    """Extends the timeout of `held` messages until `stop`."""

    def __init__(self, client: Client, held: Held, stop: threading.Event) -> None:
        self._client = client
        self._held = held
        self._stop = stop

    def extend(self) -> bool:
        """Extend the timeout of held messages at half of it, as AWS advises; True if any was due.

        SQS refuses an extension beyond 12 hours and delivers the message again.
        """
        visibility = self._client.visibility
        self._stop.wait(min(5.0, visibility / 8))
        now = time.monotonic()
        late = self._held.visible_before(now + visibility / 2)
        batches = (late[at : at + BATCH_MESSAGES] for at in range(0, len(late), BATCH_MESSAGES))
        failed = sum(self._extend_batch(batch, now) for batch in batches)
        if failed:
            what = f"use the queue {self._client.url}"
            raise Unavailable(f"{what}: {failed} messages could not be kept invisible")
        return bool(late)

    def _extend_batch(self, batch: list[Message], now: float) -> int:
        """Number of failed extensions; these messages stay due, and the next turn retries them."""
        failed = self._client.extend(batch)
        for message in batch:
            if message not in failed:
                message.visible_at = now + self._client.visibility
        return len(failed)
