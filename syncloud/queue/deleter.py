"""Batched deletion of settled messages: the effects of all their events are durable."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING

from ..errors import Unavailable
from .client import BATCH_MESSAGES

if TYPE_CHECKING:
    from .client import Client
    from .held import Held
    from .message import Message
    from .poison import Poisoned
    from .sequencers import Sequencers

DELETE_DELAY_S = 0.1
"""Seconds that a settled message may wait, so that one request deletes several messages."""


class Deleter:
    """Deletes the settled messages, and removes them from `held`.

    The sequencers of their events go into `handled`. A message with an invalid record is no longer
    held, but stays in the queue.
    """

    def __init__(self, client: Client, held: Held, handled: Sequencers, poison: Poisoned) -> None:
        self._client = client
        self._held = held
        self._handled = handled
        self._poison = poison
        self._done: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def settled(self, message: Message) -> None:
        """Called once the effects of all events of the message are durable. Any thread."""
        if message.left:
            self._poison.leave(message.message_id)
            self._forget(message)
        else:
            self._done.put(message)

    def wake(self) -> None:
        """End the wait of `delete`."""
        self._done.put(None)

    def delete(self) -> bool:
        """Wait for a batch, and delete it; True if the queue has answered."""
        batch = self._gather()
        failed = batch
        try:
            failed = self._delete_batch(batch) if batch else []
        finally:
            for message in failed:
                self._done.put(message)
        if batch and len(failed) == len(batch):  # a partial failure is retried with the next batch
            what = f"use the queue {self._client.url}"
            raise Unavailable(f"{what}: {len(failed)} messages could not be deleted")
        return bool(batch)

    def _gather(self) -> list[Message]:
        """Wait for a settled message, then collect more until `DELETE_DELAY_S` or a full batch."""
        message = self._done.get()
        batch: list[Message] = []
        deadline = time.monotonic() + DELETE_DELAY_S
        while message is not None:
            batch.append(message)
            if len(batch) == BATCH_MESSAGES:
                break
            try:
                message = self._done.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                break
        return batch

    def _delete_batch(self, batch: list[Message]) -> list[Message]:
        """Delete a batch. Returns the messages to retry."""
        failed = self._client.delete(batch)
        for message in batch:
            if message not in failed:
                self._forget(message)
        return failed

    def _forget(self, message: Message) -> None:
        now = time.monotonic()
        self._held.drop(message.message_id)
        for key, sequencer in message.events:
            self._handled.handled(key, sequencer, now)
