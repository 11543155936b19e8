"""Requests to a queue: a batch by its indexes, and the newest handle of each message."""

from __future__ import annotations

from typing import Any

from syncloud.queue.client import Client
from syncloud.queue.message import Message
from tests.support.queues import Scripted


class Settled:
    def settled(self, message: Message) -> None:
        """Nothing is deleted here."""


def messages(count: int) -> list[Message]:
    return [Message(Settled(), f"m{number}", f"h{number}") for number in range(count)]


def test_what_a_batch_failed_to_do_is_given_back_by_its_index() -> None:
    sqs = Scripted()
    sqs.failing = {"h1"}
    client, batch = Client(sqs, "http://queue", 60), messages(3)
    assert client.delete(batch) == [batch[1]]
    assert client.extend(batch) == [batch[1]]
    client.show(["h0"])
    assert sqs.asked == [
        ("delete", ["h0", "h1", "h2"]),
        ("extend", ["h0", "h1", "h2"]),
        ("extend", ["h0"]),
    ]


def test_a_poll_asks_for_a_whole_batch_and_hides_it_for_as_long_as_wanted() -> None:
    asked: list[dict[str, Any]] = []

    class Asked(Scripted):
        def receive_message(self, **options: Any) -> dict[str, Any]:
            asked.append(options)
            return {}

    assert list(Client(Asked(), "http://queue", 60).receive(20)) == []
    assert asked == [
        {
            "QueueUrl": "http://queue",
            "MaxNumberOfMessages": 10,
            "WaitTimeSeconds": 20,
            "VisibilityTimeout": 60,
        }
    ]
