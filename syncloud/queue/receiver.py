"""Polls of a queue: long ones, paced, and none while the engine cannot work.

While the engine cannot work, the receiver asks for nothing, so that SQS counts no failed delivery.
A long time without a poll may have lost messages, and leads to a listing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import log
from .client import BATCH_MESSAGES
from .haste import Haste
from .held import HELD_MAX_MESSAGES
from .message import Message

if TYPE_CHECKING:
    from .client import Client
    from .follower import Follower
    from .held import Held
    from .message import Source

LONG_POLL_S = 20
"""Seconds of a long poll: the maximum of SQS."""
HOLD_PAUSE_S = 0.2
"""Seconds until the next try, while nothing should be received."""
POLL_PAUSE_S = 0.002
"""Seconds between a poll with a partial batch and the next poll.

botocore holds Python's global lock while it builds a request; without the pause, the event loop
could not start on the received messages.
"""
STILL_TIMEOUT_S = 60.0
"""Seconds with a full set of held messages after which `backlog()` reports that."""
GAP_S = 3600.0
"""Seconds without a poll, host suspension included, after which messages may have been lost."""
SILENT_S = 45.0
"""Seconds of one poll, botocore's retries included, after which `silence()` reports the queue."""


class Receiver:
    """Receives the messages of a queue until `stop`, and hands each to `follower`.

    `deleter` deletes the settled ones. `hold()` is True while nothing should be received.
    """

    def __init__(
        self,
        client: Client,
        held: Held,
        follower: Follower,
        deleter: Source,
        *,
        hold: Callable[[], bool],
        stop: threading.Event,
    ) -> None:
        self._client = client
        self._held = held
        self._follower = follower
        self._deleter = deleter
        self._hold = hold
        self._stop = stop
        self._haste = Haste()
        self._gap = False
        self._polled = boot_time()
        self._full_since: float | None = None
        self._asked: float | None = None
        self.answered = threading.Event()

    def receive(self) -> bool:
        """Receive and follow a batch; True if the queue has answered."""
        self._follower.list_if_due()
        if self._is_held_back():
            self._stop.wait(HOLD_PAUSE_S)
            return False
        asked = self._asked = time.monotonic()
        # The first poll is a short one, to find out quickly whether the queue exists.
        wait = LONG_POLL_S if self.answered.is_set() and not self._gap else 0
        messages = self._poll(wait)
        if self._stop.is_set():
            self._give_back(messages)
            return False
        self._list_after_gap()
        took, count = time.monotonic() - asked, len(messages)
        self._stop.wait(self._haste.pause(took=took, waited=wait > 0, messages=count))
        for raw in messages:
            self.take(raw, asked)
        if 0 < count < BATCH_MESSAGES:
            self._stop.wait(POLL_PAUSE_S)
        return True

    def _is_held_back(self) -> bool:
        full = self._held.is_full
        self._full_since = (self._full_since or time.monotonic()) if full else None
        return self._hold() or full

    def _poll(self, wait: int) -> Sequence[dict[str, Any]]:
        try:
            return self._client.receive(wait)
        except Exception:
            self._gap = True
            raise
        finally:
            self._asked = None
            self.answered.set()

    def _list_after_gap(self) -> None:
        """List everything where recreation or expired retention may have lost messages."""
        now = boot_time()
        if self._gap or now - self._polled > GAP_S:
            self._gap = False
            self._follower.list_all()
        self._polled = now

    def _give_back(self, messages: Sequence[dict[str, Any]]) -> None:
        """Make the messages of an abandoned poll visible at once, for the next daemon."""
        if messages:
            self._client.show([raw["ReceiptHandle"] for raw in messages])

    def take(self, raw: dict[str, Any], asked: float) -> None:
        """Process one message; an error does not affect the rest of the batch.

        SQS delivers a failed message again after the visibility timeout.
        """
        message_id = str(raw.get("MessageId"))
        try:
            message = Message(self._deleter, message_id, raw["ReceiptHandle"])
            message.visible_at = max(asked, time.monotonic() - 1.0) + self._client.visibility
            self._follower.follow(message, raw["Body"])
        except Exception as error:  # noqa: BLE001 - a bug must not keep the next message unread
            self._held.drop(message_id)
            text, url = "message %s: unexpected: %r", self._client.url
            log.exception("internal.error", text, message_id, error, queue=url)

    def backlog(self) -> str | None:
        """The problem of a full set of held messages, or None."""
        since = self._full_since
        if since is None or time.monotonic() - since <= STILL_TIMEOUT_S:
            return None
        return (
            f"{HELD_MAX_MESSAGES:,} messages wait for paths that cannot be settled;"
            " no message is received until some are"
        )

    def silence(self) -> str | None:
        """The problem of a poll without an answer, or None."""
        asked = self._asked
        if asked is None or time.monotonic() - asked <= SILENT_S:
            return None
        return f"the queue {self._client.url} has answered no poll for {SILENT_S:.0f} s"

    def haste(self) -> str | None:
        """The problem of polls that end at once, or None."""
        return self._haste.trouble(self._client.url)


def boot_time() -> float:
    """CLOCK_BOOTTIME in seconds: includes suspension of the host, unlike the monotonic clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
