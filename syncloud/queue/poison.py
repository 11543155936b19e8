"""Messages that are left in the queue, because of a record in them that no store sends: logged by name, and known again.

SQS delivers such a message once more after each visibility timeout, until the queue's redrive policy takes it to the
dead-letter queue. By then everything else in it has been followed, so another delivery is not even decoded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from .. import log

KNOWN = 10_000
"""Messages that are known again, the latest of them."""
_TEXT = "message %s: %s; it is left for the dead-letter queue"


class Poisoned:
    """Of any thread. `queue` is its URL, for the log."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self.count = 0

    def knows(self, message_id: str) -> bool:
        """Whether this message was left before."""
        with self._lock:
            if message_id not in self._known:
                return False
            self._known.move_to_end(message_id)
            return True

    def leave(self, message_id: str) -> None:
        """Nothing else is to be done for this message."""
        with self._lock:
            self._known[message_id] = None
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)

    def tell(self, message_id: str, reasons: list[str]) -> None:
        """Log what is wrong with it: the first reason, and how many there are."""
        self.count += 1
        what = reasons[0] if len(reasons) == 1 else f"{len(reasons):,} records, the first: {reasons[0]}"
        log.warning("queue.poison", _TEXT, message_id, what, reason=what, queue=self._queue)
