"""The way from a message to hints: records of this bucket, below the prefix, not yet handled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..core import names
from ..core.model import Hint
from . import notifications

if TYPE_CHECKING:
    from collections.abc import Callable

    from .held import Held
    from .message import Message
    from .poison import Poisoned
    from .sequencers import Sequencers
    from .versions import Versions


class Follower:
    """Delivers the hints of messages about the keys of `bucket` below `prefix`.

    `deliver` must be set before the first message.
    """

    deliver: Callable[[Hint], None]

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        held: Held,
        handled: Sequencers,
        poison: Poisoned,
        versions: Versions,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._held = held
        self._handled = handled
        self._poison = poison
        self._versions = versions
        self.gaps = 0
        """Number of full listings requested: after a gap, or for unknown versions."""
        self.ignored = 0

    def follow(self, message: Message, body: str) -> None:
        """Deliver the hints of `body`, unless the message is held or left already."""
        if self._held.renew(message) or self._poison.knows(message.message_id):
            return
        decoded = self._of_this_bucket(body)
        if bad := [part.reason for part in decoded if isinstance(part, notifications.Bad)]:
            message.left = True
            self._poison.report(message.message_id, bad)
        self._held.add(message)
        for event in decoded:
            if isinstance(event, notifications.UnsupportedVersion):
                self._list_for(event, message)
            elif isinstance(event, notifications.ObjectEvent):
                self._follow_event(event, message)
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

    def _follow_event(self, event: notifications.ObjectEvent, message: Message) -> None:
        mine = event.key.startswith(self._prefix) and event.key != self._prefix
        path = names.path_of(self._prefix, event.key) if mine else ""
        if not mine or not event.relevant or names.is_hidden(path) or self._is_older(event):
            self.ignored += 1
            return
        message.events.append((event.key, event.sequencer))
        message.expect()
        self.deliver(Hint(path, reported=notifications.reported(path, event), receipt=message))

    def _is_older(self, event: notifications.ObjectEvent) -> bool:
        return self._handled.is_older(event.key, event.sequencer, time.monotonic())

    def _list_for(self, event: notifications.UnsupportedVersion, message: Message) -> None:
        """Request a rate-limited listing, because only a listing finds the changed object.

        The message that triggers a listing stays in the queue until the listing is done. Later
        messages need not wait: the next due listing covers them, and after a crash, the start does.
        """
        if self._versions.came(event.version):
            message.expect()
            self.list_all(message)

    def list_all(self, receipt: Message | None = None) -> None:
        """Request a listing of everything."""
        self.gaps += 1
        self.deliver(Hint("", subtree=True, receipt=receipt))

    def list_if_due(self) -> None:
        """Request the listing that notifications of unknown versions still wait for."""
        if self._versions.due():
            self.list_all()
