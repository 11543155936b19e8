"""QueueSource: hints from S3's event notifications in an SQS queue.

Long polls; a message is deleted when everything it says is settled and recorded; its visibility is extended while that takes.
One with a record that nobody can read is left for the dead-letter queue, after its other records are settled. While the
engine cannot go on nothing is received, so that no message is counted as a failed delivery. Source: "Amazon SQS visibility
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
from ..core.model import Absent, Entry, Hint, Side
from ..errors import SyncloudError, Unavailable
from . import notifications
from .haste import Haste
from .message import Message
from .poison import Poisoned
from .sequencers import Sequencers
from .versions import RELIST_INTERVAL_S, Versions

LONG_POLL_S = 20
"""Seconds of a long poll, the most that SQS allows."""
BATCH_MESSAGES = 10
DELETE_DELAY_S = 0.1
"""Seconds that a message which is settled may wait for others that are deleted in the same request."""
POLL_PAUSE_S = 0.002
"""Seconds between what a poll has brought and the next one, unless more waits: while botocore makes a request it has Python's
lock, and the loop could not begin with what has come."""
HELD_MAX_MESSAGES = 2_000
"""Messages received and not yet deleted; SQS stops at 120,000, memory should long before."""
STILL_TIMEOUT_S = 60.0
"""Seconds without any message settled, while as many are held as may be, after which that is a trouble to be told."""
GAP_S = 3600.0
"""Seconds without a poll, the host's sleep included, after which the queue may have forgotten messages."""
SILENT_S = 45.0
"""Seconds of a poll, its repetition included, after which the queue is not heard any more, whether it has failed or not."""
RETRY = Backoff(first_s=1.0, most_s=30.0, jitter=0.0)


class QueueSource:
    """`hold()` says that nothing more should be received now. `visibility` in seconds."""

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
            threading.Thread(target=self._serve, args=(step,), name=name, daemon=True) for name, step in self._steps()
        ]
        self.gaps = 0
        """How often a listing was asked for, because the queue may have lost something."""
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
        """Messages with a record that no store sends."""
        return self._poison.count

    def _steps(self) -> list[tuple[str, Callable[[], bool]]]:
        """The threads' names and what each does again and again; True where the queue was asked, and answered."""
        return [("queue-receive", self._receive), ("queue-delete", self._delete), ("queue-extend", self._extend)]

    def start(self, deliver: Callable[[Hint], None]) -> None:
        self._deliver = deliver
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End within a second, but for a long poll that is under way: it is left to itself."""
        self._stop.set()
        self._done.put(None)  # wakes the thread that deletes
        self._threads[1].join(timeout=5)

    def trouble(self) -> str | None:
        """What keeps messages from coming in or from going, or None."""
        full_since = self._full_since
        if full_since is not None and time.monotonic() - full_since > self._still:
            return (
                f"{HELD_MAX_MESSAGES:,} messages wait for paths that cannot be settled; nothing more is received until some are"
            )
        asked = self._asked
        if not self._troubles and asked is not None and time.monotonic() - asked > SILENT_S:
            return f"the queue {self._url} has answered no poll for {SILENT_S:.0f} s"
        return next(iter(list(self._troubles.values())), self._haste.trouble(self._url))

    def stalled(self) -> str | None:
        """How long a poll takes is the queue's affair, within botocore's timeouts: that is an outage."""
        dead = [thread.name for thread in self._threads if thread.ident is not None and not thread.is_alive()]
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
            return  # the poll that was left to itself
        told = translate(error, f"use the queue {self._url}") if isinstance(error, aws_errors()) else error
        if not isinstance(told, SyncloudError):
            log.exception("internal.error", "the queue's thread met something unexpected: %r", error)
        elif name not in self._troubles:
            log.warning("queue.unreachable", "%s", told, error=told, queue=self._url)
        self._troubles[name] = str(told) or repr(told)

    def _mended(self, name: str) -> None:
        """Each thread knows only of its own trouble: that a message came does not say that messages can be deleted."""
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
        # The first poll is a short one, to know soon whether the queue is there.
        wait = LONG_POLL_S if self.answered.is_set() and not self._gap else 0
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=BATCH_MESSAGES, WaitTimeSeconds=wait, VisibilityTimeout=self._visibility
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
            # What the queue lost meanwhile, because it was made again or its retention is over, only a listing finds.
            self._gap = False
            self._look_everywhere(None)
        self._polled = now
        messages = answer.get("Messages") or ()
        self._stop.wait(self._haste.pause(took=time.monotonic() - asked, waited=wait > 0, messages=len(messages)))
        for raw in messages:
            self._take(raw, asked)
        if 0 < len(messages) < BATCH_MESSAGES:
            self._stop.wait(POLL_PAUSE_S)
        return True

    def _give_back(self, messages: Sequence[dict[str, Any]]) -> None:
        """This poll has outlived its daemon: the next one is not to wait for the visibility timeout."""
        if messages:
            self._show_after(0, [raw["ReceiptHandle"] for raw in messages])

    def _take(self, raw: dict[str, Any], asked: float) -> None:
        """Whatever one message does, the others of its batch are taken; it comes again after the visibility timeout."""
        message_id = str(raw.get("MessageId"))
        try:
            message = Message(self, message_id, raw["ReceiptHandle"])
            message.visible_at = max(asked, time.monotonic() - 1.0) + self._visibility
            self._follow(message, raw["Body"])
        except Exception as error:  # noqa: BLE001 - a bug must not keep the next message from being read
            with self._lock:
                self._held.pop(message_id, None)
            log.exception("internal.error", "message %s: unexpected: %r", message_id, error, queue=self._url)

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
            elif isinstance(event, notifications.ObjectEvent) and (hint := self._hint(event, message)) is not None:
                message.expect()
                self._deliver(hint)
        message.acknowledge()

    def _of_this_bucket(self, body: str) -> list[notifications.Decoded]:
        """The parts of a message about this bucket or about none. The bucket comes first: a part about another one costs
        nothing, whatever its version or its odd values.
        """
        try:
            parts = notifications.decode(body)
        except notifications.Poison as poison:
            parts = list(poison.parts)
        ours = [part for part in parts if part.bucket in ("", self._bucket)]
        self.ignored += len(parts) - len(ours)
        return ours

    def _is_held(self, message: Message) -> bool:
        """Received once more while it is in work: only the newest handle deletes it."""
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
        return Hint(path, reported=_nominated(path, event), receipt=message)

    def _is_older(self, event: notifications.ObjectEvent) -> bool:
        return self._handled.is_older(event.key, event.sequencer, time.monotonic())

    def _of_another_version(self, event: notifications.UnsupportedVersion, message: Message) -> None:
        """The first one leads to a listing, and stays in the queue until it is done. The next ones may go: another listing
        follows when the time has come, and a start, which a crash would bring first, lists everything.
        """
        if self._versions.came(event.version):
            message.expect()
            self._look_everywhere(message)

    def _look_everywhere(self, receipt: Message | None) -> None:
        self.gaps += 1
        self._deliver(Hint("", subtree=True, receipt=receipt))

    # Delete, and keep what is in work invisible

    def settled(self, message: Message) -> None:
        """Everything this message said is durable."""
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
        if batch and len(failed) == len(batch):  # one that fails beside others is tried again with the next ones
            raise Unavailable(f"use the queue {self._url}: {len(failed)} messages could not be deleted")
        return bool(batch)

    def _gather(self) -> list[Message]:
        """What is settled, as soon as there is anything, with what follows soon."""
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
        """Those that must be tried again. What SQS calls our fault is a handle that is over: the message comes once more."""
        entries = [{"Id": str(index), "ReceiptHandle": message.handle} for index, message in enumerate(batch)]
        answer = self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
        failed = _failed(answer, batch)
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
        """At half of the visibility timeout, as AWS advises; near 12 hours SQS refuses, and the message comes once more.

        Whether there was anything to extend.
        """
        self._stop.wait(min(5.0, self._visibility / 8))
        now = time.monotonic()
        with self._lock:
            late = [message for message in self._held.values() if message.visible_at - now < self._visibility / 2]
        failed = sum(
            self._extend_batch(late[start : start + BATCH_MESSAGES], now) for start in range(0, len(late), BATCH_MESSAGES)
        )
        if failed:
            raise Unavailable(f"use the queue {self._url}: {failed} messages could not be kept invisible")
        return bool(late)

    def _extend_batch(self, batch: list[Message], now: float) -> int:
        """How many of them it failed for: they are late still, and come first the next time."""
        failed = _failed(self._show_after(self._visibility, [message.handle for message in batch]), batch)
        for message in batch:
            if message not in failed:
                message.visible_at = now + self._visibility
        return len(failed)

    def _show_after(self, seconds: int, handles: Sequence[str]) -> dict[str, Any]:
        """Hide these messages for so long from now on; at most `BATCH_MESSAGES` of them. SQS's answer."""
        entries = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": seconds} for index, handle in enumerate(handles)
        ]
        answer: dict[str, Any] = self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
        return answer


def _awake_or_not() -> float:
    """Seconds that go on while the host is suspended, other than the monotonic clock's."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _failed(answer: dict[str, Any], batch: list[Message]) -> list[Message]:
    """Those of a batch, whose ids are their places, that the server could not do; what is our fault is not tried again."""
    again = {entry["Id"] for entry in answer.get("Failed", ()) if not entry.get("SenderFault")}
    return [message for index, message in enumerate(batch) if str(index) in again]


def _nominated(path: str, event: notifications.ObjectEvent) -> Side | None:
    if not event.created:
        return Absent(path)
    if event.size is None or not event.etag:
        return None
    return Entry(path, (event.etag, event.version, ""), event.size, 0, 0)
