"""At-least-once consumer of S3 event notifications in an SQS queue: `QueueSource` delivers hints.

Three threads run: long polls, batched deletes and extensions of the visibility timeout. A message
is deleted once the effects of all its events are durable. A message with an invalid record stays
for the dead-letter queue, after its other records are settled. Sources: "Amazon SQS visibility
timeout", "Processing messages in a timely manner".
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .. import log
from ..aws.error_mapping import aws_errors, translate
from ..backoff import Backoff
from ..core.model import Hint
from ..errors import SyncloudError
from .client import Client
from .deleter import Deleter
from .extender import Extender
from .follower import Follower
from .held import Held
from .poison import Poisoned
from .receiver import LONG_POLL_S, Receiver, boot_time
from .sequencers import Sequencers
from .versions import RELIST_INTERVAL_S, Versions

RETRY = Backoff(first_s=1.0, most_s=30.0, jitter=0.0)
_UNEXPECTED = "the queue's thread raised an unexpected error: %r"


class QueueSource:
    """Receives messages, delivers hints, deletes settled messages.

    `hold()` is True while nothing should be received. `visibility` is in seconds.
    """

    def __init__(
        self,
        sqs: Any,
        *,
        queue_url: str,
        bucket: str,
        prefix: str,
        hold: Callable[[], bool],
        visibility: int = 120,
    ) -> None:
        self._url = queue_url
        self._stop = threading.Event()
        self._troubles: dict[str, str] = {}
        self._poison = Poisoned(queue_url)
        versions = Versions(queue_url, boot_time, interval=RELIST_INTERVAL_S)
        client, held, handled = Client(sqs, queue_url, visibility), Held(), Sequencers()
        self._held = held
        self._follower = Follower(
            bucket, prefix, held=held, handled=handled, poison=self._poison, versions=versions
        )
        self._deleter = Deleter(client, held, handled, self._poison)
        self._extender = Extender(client, held, self._stop)
        self._receiver = Receiver(
            client, held, self._follower, self._deleter, hold=hold, stop=self._stop
        )
        self._threads = [
            threading.Thread(target=self._serve, args=(step,), name=name, daemon=True)
            for name, step in self._steps()
        ]

    @property
    def ready(self) -> bool:
        return self._receiver.answered.is_set()

    @property
    def overlap_s(self) -> float:
        """The server answers a long poll up to this late, even if its process has ended."""
        return LONG_POLL_S

    @property
    def gaps(self) -> int:
        """Number of full listings requested: after a gap, or for unknown versions."""
        return self._follower.gaps

    @property
    def ignored(self) -> int:
        """Number of records that concern no path of this source."""
        return self._follower.ignored

    @property
    def poisoned(self) -> int:
        """Number of messages with an invalid record."""
        return self._poison.count

    def mounts_changed(self) -> None:
        """A mount changes nothing about a queue."""

    def _steps(self) -> list[tuple[str, Callable[[], bool]]]:
        """Name and loop body of each thread; True from a body: the queue has answered a request."""
        return [
            ("queue-receive", self._receiver.receive),
            ("queue-delete", self._deleter.delete),
            ("queue-extend", self._extender.extend),
        ]

    def start(self, deliver: Callable[[Hint], None]) -> None:
        self._follower.deliver = deliver
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop all threads; waits up to 5 s for the last deletes, not for a pending long poll."""
        self._stop.set()
        self._deleter.wake()
        self._threads[1].join(timeout=5)

    def trouble(self) -> str | None:
        """The current reason why messages cannot be received, deleted or extended, or None."""
        receiver = self._receiver
        known = next(iter(list(self._troubles.values())), None)
        return receiver.backlog() or known or receiver.silence() or receiver.haste()

    def stalled(self) -> str | None:
        """The name of a dead thread in a sentence, or None.

        A slow poll is no stall but an outage: botocore's timeouts bound its duration.
        """
        begun = [thread for thread in self._threads if thread.ident is not None]
        dead = [thread.name for thread in begun if not thread.is_alive()]
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
        if isinstance(error, aws_errors()):
            error = translate(error, f"use the queue {self._url}")
        if not isinstance(error, SyncloudError):
            log.exception("internal.error", _UNEXPECTED, error)
        elif name not in self._troubles:
            log.warning("queue.unreachable", "%s", error, error=error, queue=self._url)
        self._troubles[name] = str(error) or repr(error)

    def _mended(self, name: str) -> None:
        """Clear the trouble of one thread only: working receives do not prove working deletes."""
        if self._troubles.pop(name, None) is not None:
            log.warning("queue.reachable", "the queue answers again", queue=self._url)
