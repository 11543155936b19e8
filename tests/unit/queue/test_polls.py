"""Polls without an answer: a silent queue is not healthy."""

from __future__ import annotations

import time
from typing import Any

import pytest

from syncloud.aws import bounds
from syncloud.queue import receiver
from syncloud.queue.sqs import QueueSource
from tests.support.server import FIRST, Server, answers

QUEUE = "http://127.0.0.1/1/queue"


def test_a_poll_that_drips_is_an_outage_of_the_queue(
    queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deaf is not healthy."""
    monkeypatch.setattr(bounds, "ANSWER_TIMEOUT_S", 1.0)
    with Server(answers(FIRST["body"], b"a", pause=0.2)) as server:
        source = QueueSource(
            queue(server.endpoint), queue_url=QUEUE, bucket="bucket", prefix="", hold=lambda: False
        )
        source.start(lambda hint: None)
        until = time.monotonic() + 20
        while source.trouble() is None and time.monotonic() < until:
            time.sleep(0.05)
        told = source.trouble()
        source.stop()
    assert told is not None
    assert "ead timeout" in told


def test_a_poll_without_an_answer_is_told_before_it_has_failed(
    queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore asks three times, each with the whole deadline."""
    monkeypatch.setattr(receiver, "SILENT_S", 1.0)
    with Server(answers(FIRST["body"], b"a", pause=0.2)) as server:
        source = QueueSource(
            queue(server.endpoint), queue_url=QUEUE, bucket="bucket", prefix="", hold=lambda: False
        )
        source.start(lambda hint: None)
        assert source.trouble() is None
        time.sleep(2)
        assert "no poll" in (source.trouble() or "")
        source.stop()
