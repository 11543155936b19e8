"""A QueueSource in front of the emulator or of a script, and the hints that it delivered."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from syncloud.aws.session import Aws
from syncloud.core.model import Hint
from syncloud.queue.sqs import QueueSource

if TYPE_CHECKING:
    from tests.support.emulator import Bucket
    from tests.support.meddler import Answer, Asked, Forward, Meddle


PREFIX = "p/"


class Hints:
    """What a source delivered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hints: list[Hint] = []

    def deliver(self, hint: Hint) -> None:
        with self._lock:
            self._hints.append(hint)

    def all(self) -> list[Hint]:
        with self._lock:
            return list(self._hints)

    def wait(self, count: int, *, timeout: float = 15) -> list[Hint]:
        until(lambda: len(self.all()) >= count, timeout=timeout)
        return self.all()


def until(condition: Callable[[], object], *, timeout: float = 15) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.02)


def acknowledge(hints: list[Hint]) -> None:
    for hint in hints:
        if hint.receipt is not None:
            hint.receipt.acknowledge()


@dataclass(frozen=True, slots=True)
class Listening:
    source: QueueSource
    hints: Hints


@contextlib.contextmanager
def listening(
    bucket: Bucket,
    endpoint: str = "",
    *,
    hints: Hints | None = None,
    hold: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Iterator[Listening]:
    """A started QueueSource for PREFIX of the bucket."""
    aws = Aws(region="us-east-1", endpoint_url=endpoint or bucket.server.endpoint)
    sqs = aws.client("sqs")
    source = QueueSource(
        sqs, queue_url=bucket.queue_url, bucket=bucket.name, prefix=PREFIX, hold=hold, **options
    )
    hints = hints or Hints()
    source.start(hints.deliver)
    try:
        yield Listening(source, hints)
    finally:
        source.stop()
        aws.close()


class Scripted:
    """A queue's client that gives `batches` in turn, and then nothing. `asked` has the requests."""

    def __init__(self, *batches: list[dict[str, Any]]) -> None:
        self.batches = list(batches)
        self.asked: list[tuple[str, list[str]]] = []
        self.failing: set[str] = set()
        """Handles that the server cannot do anything for."""

    def receive_message(self, **_: Any) -> dict[str, Any]:
        if not self.batches:
            time.sleep(0.02)
            return {}
        return {"Messages": self.batches.pop(0)}

    def delete_message_batch(self, *, Entries: list[dict[str, Any]], **_: Any) -> dict[str, Any]:  # noqa: N803
        return self._answer("delete", Entries)

    def change_message_visibility_batch(
        self,
        *,
        Entries: list[dict[str, Any]],  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        return self._answer("extend", Entries)

    def _answer(self, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.asked.append((name, [entry["ReceiptHandle"] for entry in entries]))
        return {
            "Failed": [
                {"Id": entry["Id"]} for entry in entries if entry["ReceiptHandle"] in self.failing
            ]
        }

    def times(self, name: str, handle: str) -> int:
        return sum(name == what and handle in handles for what, handles in self.asked)


class Counted:
    """A meddle, and how many messages came through it."""

    def __init__(self, meddle: Meddle) -> None:
        self.received = 0
        self._meddle = meddle

    def __call__(self, asked: Asked, forward: Forward) -> Answer | None:
        answer = self._meddle(asked, forward)
        if asked.name == "ReceiveMessage" and answer is not None:
            self.received += len(json.loads(answer.body).get("Messages", ()))
        return answer


def received(number: int, key: str = "", **more: Any) -> dict[str, Any]:
    thing = {"key": key or f"p/{number}", "sequencer": f"{number:016X}"}
    event = {
        "eventVersion": "2.1",
        "eventName": "ObjectRemoved:Delete",
        "s3": {"bucket": {"name": "b"}, "object": thing},
    }
    return {
        "MessageId": f"m{number}",
        "ReceiptHandle": f"h{number}",
        "Body": json.dumps({"Records": [event]}),
    } | more


def unstarted(client: Scripted, **options: Any) -> QueueSource:
    return QueueSource(
        client, queue_url="http://queue", bucket="b", prefix=PREFIX, hold=lambda: False, **options
    )


@contextlib.contextmanager
def scripted(client: Scripted) -> Iterator[Listening]:
    source = unstarted(client)
    hints = Hints()
    source.start(hints.deliver)
    try:
        yield Listening(source, hints)
    finally:
        source.stop()
