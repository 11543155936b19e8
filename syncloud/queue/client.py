"""Requests to one SQS queue, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .message import to_retry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .message import Message

BATCH_MESSAGES = 10
"""Messages of one request, at most: a limit of SQS."""


class Client:
    """The queue at `url`, over boto3's client `sqs`. All methods raise boto3's errors.

    `visibility` is in seconds.
    """

    def __init__(self, sqs: Any, url: str, visibility: int) -> None:
        self._sqs = sqs
        self.url = url
        self.visibility = visibility

    def receive(self, wait: int) -> Sequence[dict[str, Any]]:
        """A batch of messages, after up to `wait` seconds."""
        answer = self._sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=BATCH_MESSAGES,
            WaitTimeSeconds=wait,
            VisibilityTimeout=self.visibility,
        )
        return answer.get("Messages") or ()

    def delete(self, batch: list[Message]) -> list[Message]:
        """Delete a batch. Returns the messages to retry, without sender faults (old handles)."""
        entries = [
            {"Id": str(index), "ReceiptHandle": message.handle}
            for index, message in enumerate(batch)
        ]
        answer = self._sqs.delete_message_batch(QueueUrl=self.url, Entries=entries)
        return to_retry(answer, batch)

    def extend(self, batch: list[Message]) -> list[Message]:
        """Hide a batch for `visibility` seconds from now on. Returns the messages to retry."""
        answer = self._hide([message.handle for message in batch], self.visibility)
        return to_retry(answer, batch)

    def show(self, handles: Sequence[str]) -> None:
        """Make a batch of messages visible at once."""
        self._hide(handles, 0)

    def _hide(self, handles: Sequence[str], seconds: int) -> dict[str, Any]:
        entries = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for index, handle in enumerate(handles)
        ]
        hide = self._sqs.change_message_visibility_batch
        answer: dict[str, Any] = hide(QueueUrl=self.url, Entries=entries)
        return answer
