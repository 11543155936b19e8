"""What the product logs in this process, as records."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Listener(logging.Handler):
    """`records` is what was logged so far."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    @property
    def events(self) -> list[str]:
        return [record.__dict__["event"] for record in self.records]


@contextlib.contextmanager
def listening_to_the_log() -> Iterator[Listener]:
    """From WARNING up, whatever level another test has left behind."""
    listener, logger = Listener(), logging.getLogger("syncloud")
    before = logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield listener
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before)
