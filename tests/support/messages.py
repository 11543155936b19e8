"""Faults of messages on their way from a queue, as `Meddle` functions.

Messages are lost, doubled, late, out of order, or seen again.
"""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.support.meddler import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.meddler import Asked, Forward, Meddle

LATE = (1, 3)
"""Seconds, from and to, that a late message needs."""


def receiving(**changes: int) -> Callable[[Asked, Forward], Answer]:
    """Every ReceiveMessage with these parameters instead of its own, like `VisibilityTimeout=1`.

    All other requests pass.
    """

    def meddle(asked: Asked, forward: Forward) -> Answer:
        if asked.name == "ReceiveMessage":
            asked = replace(asked, body=json.dumps(json.loads(asked.body) | changes).encode())
        return forward(asked)

    return meddle


short_polls = receiving(WaitTimeSeconds=1)
"""As the emulator notices only after a long poll that its queue was deleted."""


def disordered(
    seed: object, *, lost: float = 0.0, doubled: float = 0.0, late: float = 0.0
) -> Meddle:
    """Shares of the messages of each ReceiveMessage, chosen by `seed`, with a fault.

    Such messages are lost for ever, come a second time as another message, or come some seconds
    later. The remaining messages come in any order. All other requests pass.
    """
    chance, lock = random.Random(str(seed)), threading.Lock()

    def fate(message: dict[str, Any], asked: Asked, forward: Forward) -> bool:
        """Whether the message comes now."""
        with lock:
            drawn, seconds = chance.random(), chance.randint(*LATE)
        if drawn >= lost + doubled + late:
            return True
        queue = {"QueueUrl": json.loads(asked.body)["QueueUrl"]}
        if drawn >= lost:
            _ask(
                "SendMessage",
                queue | {"MessageBody": message["Body"], "DelaySeconds": seconds},
                asked,
                forward,
            )
        if lost <= drawn < lost + doubled:
            return True
        _ask("DeleteMessage", queue | {"ReceiptHandle": message["ReceiptHandle"]}, asked, forward)
        return False

    def meddle(asked: Asked, forward: Forward) -> Answer | None:
        answer = forward(asked)
        if asked.name != "ReceiveMessage" or answer.status != 200:
            return answer
        told = json.loads(answer.body)
        kept = [message for message in told.get("Messages", ()) if fate(message, asked, forward)]
        with lock:
            chance.shuffle(kept)
        return replace(answer, body=json.dumps(told | {"Messages": kept}).encode())

    return meddle


def _ask(operation: str, parameters: dict[str, Any], like: Asked, forward: Forward) -> None:
    """A request of our own, with the headers of another one."""
    headers = like.headers | {"x-amz-target": f"AmazonSQS.{operation}"}
    answer = forward(
        replace(like, name=operation, headers=headers, body=json.dumps(parameters).encode())
    )
    assert answer.status == 200, answer.body


def unsuccessful(code: str = "InternalError", *, sender: bool = False) -> Meddle:
    """A batch of which nothing was done, by the server's fault or the sender's: HTTP says 200."""

    def meddle(asked: Asked, forward: Forward) -> Answer:
        entries = json.loads(asked.body)["Entries"]
        failed = [
            {"Id": entry["Id"], "SenderFault": sender, "Code": code, "Message": "said the test"}
            for entry in entries
        ]
        body = json.dumps({"Successful": [], "Failed": failed}).encode()
        return Answer(200, {"content-type": "application/x-amz-json-1.0"}, body)

    return meddle
