"""Bounded set of poison messages: messages with an invalid record, which stay in the queue.

SQS delivers a poison message again after each visibility timeout, until the redrive policy of the
queue moves the message to the dead-letter queue. The valid records are settled before the id of a
message enters the set, so later deliveries need no decoding.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from .. import log

KNOWN = 10_000
"""Message ids remembered, at most; the least recently seen id is dropped first."""
_TEXT = "message %s: %s; it is left for the dead-letter queue"


class Poisoned:
    """The set of one queue. Thread-safe. `queue` is the URL of the queue, for the log."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self.count = 0

    def knows(self, message_id: str) -> bool:
        """Whether `leave` was called for this message; refreshes the entry."""
        with self._lock:
            if message_id not in self._known:
                return False
            self._known.move_to_end(message_id)
            return True

    def leave(self, message_id: str) -> None:
        """Remember the message as finished: later deliveries are skipped."""
        with self._lock:
            self._known[message_id] = None
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)

    def report(self, message_id: str, reasons: list[str]) -> None:
        """Log the first of `reasons` and their number."""
        self.count += 1
        what, count = reasons[0], len(reasons)
        if count > 1:
            what = f"{count:,} records, the first: {what}"
        log.warning("queue.poison", _TEXT, message_id, what, reason=what, queue=self._queue)
