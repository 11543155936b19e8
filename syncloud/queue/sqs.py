"""At-least-once consumer of S3 event notifications in an SQS queue: `QueueSource` delivers hints.

Three threads run: long polls, batched deletes and extensions of the visibility timeout. A message
is deleted once the effects of all its events are durable. A message with an invalid record stays
for the dead-letter queue, after its other records are settled. While the engine cannot work, the
consumer receives nothing, so that SQS counts no failed delivery. Sources: "Amazon SQS visibility
timeout", "Processing messages in a timely manner".
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import log
from ..aws.error_mapping import aws_errors, translate
from ..backoff import Backoff
from ..core import names
from ..core.model import Hint
from ..errors import SyncloudError, Unavailable
from . import notifications
from .haste import Haste
from .message import Message, to_retry
from .poison import Poisoned
from .sequencers import Sequencers
from .versions import RELIST_INTERVAL_S, Versions

LONG_POLL_S = 20
"""Seconds of a long poll: the maximum of SQS."""
BATCH_MESSAGES = 10
DELETE_DELAY_S = 0.1
"""Seconds that a settled message may wait, so that one request deletes several messages."""
POLL_PAUSE_S = 0.002
"""Seconds between a poll with a partial batch and the next poll.

botocore holds Python's global lock while it builds a request; without the pause, the event loop
could not start on the received messages.
"""
HELD_MAX_MESSAGES = 2_000
"""Messages received and not yet deleted, at most: bounds memory, far below the 120,000 of SQS."""
STILL_TIMEOUT_S = 60.0
"""Seconds at `HELD_MAX_MESSAGES` held messages after which `trouble()` reports a backlog."""
GAP_S = 3600.0
"""Seconds without a poll, host suspension included, after which messages may have been lost."""
SILENT_S = 45.0
"""Seconds of one poll, botocore's retries included, after which `trouble()` reports the queue."""
RETRY = Backoff(first_s=1.0, most_s=30.0, jitter=0.0)


class QueueSource:
    """Receives messages, delivers hints, deletes settled messages.

    `hold()` is True while nothing should be received. `visibility`, `gap`, `still` and `relist` are
    in seconds.
    """

    def __init__(
        self,
        sqs: Any,
        *,
        queue_url: str,
        bucket: str,
        prefix: str,
        visibility: int = 120,
        hold: Callable[[], bool] = lambda: False,
        gap: float = GAP_S,
        still: float = STILL_TIMEOUT_S,
        relist: float = RELIST_INTERVAL_S,
    ) -> None:
        self._sqs = sqs
        self._url = queue_url
        self._bucket = bucket
        self._prefix = prefix
        self._visibility = visibility
        self.hold = hold
        self._deliver: Callable[[Hint], None] = lambda hint: None
        self._stop = threading.Event()
        self._held: dict[str, Message] = {}
        self._handled = Sequencers()
        self._poison = Poisoned(queue_url)
        self._lock = threading.Lock()
        self._done: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._troubles: dict[str, str] = {}
        self._gap = False
        self._gap_after = gap
        self._still = still
        self._versions = Versions(queue_url, _awake_or_not, interval=relist)
        self._full_since: float | None = None
        self._asked: float | None = None
        self._haste = Haste()
        self._polled = _awake_or_not()
        self.answered = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(step,), name=name, daemon=True)
            for name, step in self._steps()
        ]
        self.gaps = 0
        """Number of full listings requested: after a gap, or for unknown versions."""
        self.ignored = 0

    @property
    def ready(self) -> bool:
        return self.answered.is_set()

    @property
    def overlap_s(self) -> float:
        """A long poll lives that long on the server, whatever became of the process that made it."""
        return LONG_POLL_S

    def mounts_changed(self) -> None:
        """A mount changes nothing about a queue."""

    @property
    def poisoned(self) -> int:
        """Number of messages with an invalid record."""
        return self._poison.count

    def _steps(self) -> list[tuple[str, Callable[[], bool]]]:
        """Name and loop body of each thread; True from a body: the queue has answered a request."""
        return [
            ("queue-receive", self._receive),
            ("queue-delete", self._delete),
            ("queue-extend", self._extend),
        ]

    def start(self, deliver: Callable[[Hint], None]) -> None:
        self._deliver = deliver
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop all threads; waits up to 5 s for the last deletes, not for a pending long poll."""
        self._stop.set()
        self._done.put(None)  # wakes the delete thread
        self._threads[1].join(timeout=5)

    def trouble(self) -> str | None:
        """The current reason why messages cannot be received, deleted or extended, or None."""
        full_since = self._full_since
        if full_since is not None and time.monotonic() - full_since > self._still:
            return f"{HELD_MAX_MESSAGES:,} messages wait for paths that cannot be settled; nothing more is received until some are"
        asked = self._asked
        if not self._troubles and asked is not None and time.monotonic() - asked > SILENT_S:
            return f"the queue {self._url} has answered no poll for {SILENT_S:.0f} s"
        return next(iter(list(self._troubles.values())), self._haste.trouble(self._url))

    def stalled(self) -> str | None:
        """The name of a dead thread in a sentence, or None.

        A slow poll is no stall but an outage: botocore's timeouts bound its duration.
        """
        dead = [
            thread.name
            for thread in self._threads
            if thread.ident is not None and not thread.is_alive()
        ]
        return f"the thread {dead[0]} has ended" if dead and not self._stop.is_set() else None

    def _serve(self, step: Callable[[], bool]) -> None:
        name, failures = threading.current_thread().name, 0
        while not self._stop.is_set():
            try:
                if step():
                    self._mended(name)
                    failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, the queue is polled again
                self._suffer(name, error)
                failures += 1
                self._stop.wait(RETRY.delay(failures))

    def _suffer(self, name: str, error: Exception) -> None:
        if self._stop.is_set():
            return  # a long poll that `stop` has abandoned
        told = (
            translate(error, f"use the queue {self._url}")
            if isinstance(error, aws_errors())
            else error
        )
        if not isinstance(told, SyncloudError):
            log.exception(
                "internal.error", "the queue's thread met something unexpected: %r", error
            )
        elif name not in self._troubles:
            log.warning("queue.unreachable", "%s", told, error=told, queue=self._url)
        self._troubles[name] = str(told) or repr(told)

    def _mended(self, name: str) -> None:
        """Clear the trouble of one thread only: working receives do not prove working deletes."""
        if self._troubles.pop(name, None) is not None:
            log.warning("queue.reachable", "the queue answers again", queue=self._url)

    # Receive

    def _receive(self) -> bool:
        if self._versions.due():
            self._look_everywhere(None)
        full = len(self._held) >= HELD_MAX_MESSAGES
        self._full_since = (self._full_since or time.monotonic()) if full else None
        if self.hold() or full:
            self._stop.wait(0.2)
            return False
        asked = self._asked = time.monotonic()
        # The first poll is a short one, to find out quickly whether the queue exists.
        wait = LONG_POLL_S if self.answered.is_set() and not self._gap else 0
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=BATCH_MESSAGES,
                WaitTimeSeconds=wait,
                VisibilityTimeout=self._visibility,
            )
        except Exception:
            self._gap = True
            raise
        finally:
            self._asked = None
            self.answered.set()
        if self._stop.is_set():
            self._give_back(answer.get("Messages", ()))
            return False
        now = _awake_or_not()
        if self._gap or now - self._polled > self._gap_after:
            # Recreation or expired retention may have lost messages: only a listing finds those.
            self._gap = False
            self._look_everywhere(None)
        self._polled = now
        messages = answer.get("Messages") or ()
        self._stop.wait(
            self._haste.pause(
                took=time.monotonic() - asked, waited=wait > 0, messages=len(messages)
            )
        )
        for raw in messages:
            self._take(raw, asked)
        if 0 < len(messages) < BATCH_MESSAGES:
            self._stop.wait(POLL_PAUSE_S)
        return True

    def _give_back(self, messages: Sequence[dict[str, Any]]) -> None:
        """Make the messages of an abandoned poll visible at once, for the next daemon."""
        if messages:
            self._show_after(0, [raw["ReceiptHandle"] for raw in messages])

    def _take(self, raw: dict[str, Any], asked: float) -> None:
        """Process one message; an error does not affect the rest of the batch.

        SQS delivers a failed message again after the visibility timeout.
        """
        message_id = str(raw.get("MessageId"))
        try:
            message = Message(self, message_id, raw["ReceiptHandle"])
            message.visible_at = max(asked, time.monotonic() - 1.0) + self._visibility
            self._follow(message, raw["Body"])
        except Exception as error:  # noqa: BLE001 - a bug must not keep the next message unread
            with self._lock:
                self._held.pop(message_id, None)
            log.exception(
                "internal.error", "message %s: unexpected: %r", message_id, error, queue=self._url
            )

    def _follow(self, message: Message, body: str) -> None:
        if self._is_held(message) or self._poison.knows(message.message_id):
            return
        decoded = self._of_this_bucket(body)
        if bad := [part.reason for part in decoded if isinstance(part, notifications.Bad)]:
            message.left = True
            self._poison.tell(message.message_id, bad)
        with self._lock:
            self._held[message.message_id] = message
        for event in decoded:
            if isinstance(event, notifications.UnsupportedVersion):
                self._of_another_version(event, message)
            elif (
                isinstance(event, notifications.ObjectEvent)
                and (hint := self._hint(event, message)) is not None
            ):
                message.expect()
                self._deliver(hint)
        message.acknowledge()

    def _of_this_bucket(self, body: str) -> list[notifications.Decoded]:
        """The records of a message for this bucket, or without a bucket.

        The filter comes first, so records of other buckets are only counted, even if invalid or of
        an unknown version.
        """
        try:
            parts = notifications.decode(body)
        except notifications.Poison as poison:
            parts = list(poison.parts)
        ours = [part for part in parts if part.bucket in ("", self._bucket)]
        self.ignored += len(parts) - len(ours)
        return ours

    def _is_held(self, message: Message) -> bool:
        """Whether the message is held; a redelivery renews the handle: only the newest deletes."""
        with self._lock:
            earlier = self._held.get(message.message_id)
            if earlier is not None:
                earlier.handle, earlier.visible_at = message.handle, message.visible_at
            return earlier is not None

    def _hint(self, event: notifications.ObjectEvent, message: Message) -> Hint | None:
        mine = event.key.startswith(self._prefix) and event.key != self._prefix
        path = names.path_of(self._prefix, event.key) if mine else ""
        if not mine or not event.relevant or names.is_hidden(path) or self._is_older(event):
            self.ignored += 1
            return None
        message.events.append((event.key, event.sequencer))
        return Hint(path, reported=notifications.reported(path, event), receipt=message)

    def _is_older(self, event: notifications.ObjectEvent) -> bool:
        return self._handled.is_older(event.key, event.sequencer, time.monotonic())

    def _of_another_version(
        self, event: notifications.UnsupportedVersion, message: Message
    ) -> None:
        """Request a rate-limited listing, because only a listing finds the changed object.

        The message that triggers a listing stays in the queue until the listing is done. Later
        messages need not wait: the next due listing covers them, and after a crash, the start does.
        """
        if self._versions.came(event.version):
            message.expect()
            self._look_everywhere(message)

    def _look_everywhere(self, receipt: Message | None) -> None:
        self.gaps += 1
        self._deliver(Hint("", subtree=True, receipt=receipt))

    # Delete settled messages, and keep held ones invisible

    def settled(self, message: Message) -> None:
        """Called once the effects of all events of the message are durable."""
        if message.left:
            self._poison.leave(message.message_id)
            self._forget(message)
        else:
            self._done.put(message)

    def _delete(self) -> bool:
        batch = self._gather()
        failed = batch
        try:
            failed = self._delete_batch(batch) if batch else []
        finally:
            for message in failed:
                self._done.put(message)
        if batch and len(failed) == len(batch):  # a partial failure is retried with the next batch
            raise Unavailable(
                f"use the queue {self._url}: {len(failed)} messages could not be deleted"
            )
        return bool(batch)

    def _gather(self) -> list[Message]:
        """Wait for a settled message, then collect more until `DELETE_DELAY_S` or a full batch."""
        batch: list[Message] = []
        wait: float | None = None
        deadline = 0.0
        while len(batch) < BATCH_MESSAGES:
            try:
                message = self._done.get(timeout=wait)
            except queue.Empty:
                break
            if message is None:
                break
            batch.append(message)
            deadline = deadline or time.monotonic() + DELETE_DELAY_S
            wait = max(0.001, deadline - time.monotonic())
        return batch

    def _delete_batch(self, batch: list[Message]) -> list[Message]:
        """Delete a batch; returns messages to retry, without sender faults (old handles)."""
        entries = [
            {"Id": str(index), "ReceiptHandle": message.handle}
            for index, message in enumerate(batch)
        ]
        answer = self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
        failed = to_retry(answer, batch)
        for message in batch:
            if message not in failed:
                self._forget(message)
        return failed

    def _forget(self, message: Message) -> None:
        now = time.monotonic()
        with self._lock:
            self._held.pop(message.message_id, None)
        for key, sequencer in message.events:
            self._handled.handled(key, sequencer, now)

    def _extend(self) -> bool:
        """Extend the timeout of held messages at half of it, as AWS advises; True if any was due.

        SQS refuses an extension beyond 12 hours and delivers the message again.
        """
        self._stop.wait(min(5.0, self._visibility / 8))
        now = time.monotonic()
        with self._lock:
            late = [
                message
                for message in self._held.values()
                if message.visible_at - now < self._visibility / 2
            ]
        failed = sum(
            self._extend_batch(late[start : start + BATCH_MESSAGES], now)
            for start in range(0, len(late), BATCH_MESSAGES)
        )
        if failed:
            raise Unavailable(
                f"use the queue {self._url}: {failed} messages could not be kept invisible"
            )
        return bool(late)

    def _extend_batch(self, batch: list[Message], now: float) -> int:
        """Number of failed extensions; these messages stay due, and the next turn retries them."""
        failed = to_retry(
            self._show_after(self._visibility, [message.handle for message in batch]), batch
        )
        for message in batch:
            if message not in failed:
                message.visible_at = now + self._visibility
        return len(failed)

    def _show_after(self, seconds: int, handles: Sequence[str]) -> dict[str, Any]:
        """Hide up to `BATCH_MESSAGES` messages for `seconds` from now on; returns SQS's answer."""
        entries = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for index, handle in enumerate(handles)
        ]
        answer: dict[str, Any] = self._sqs.change_message_visibility_batch(
            QueueUrl=self._url, Entries=entries
        )
        return answer


def _awake_or_not() -> float:
    """CLOCK_BOOTTIME in seconds: includes suspension of the host, unlike the monotonic clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
