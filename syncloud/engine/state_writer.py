"""Write-behind buffer with group commit: settled rows share a transaction, then receipts follow.

The order is guaranteed: the effect is durable, then the row is committed, then the receipt is
acknowledged. The path of a row that cannot be stored is skipped by name, and the other rows of the
transaction are stored without that row.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

from .. import log
from ..core.interfaces import State
from ..core.model import Base, DeletionMemo, Receipt, Tag, Unknown
from ..errors import HostUnavailable
from .skipped import SkippedPaths

BATCH_DELAY_S = 0.05
"""Seconds that a row may wait for others to share its transaction."""
RETRY_DELAY_S = 1.0
"""Seconds until a write that the disk refused is retried."""
UNKNOWN_INODES_MAX = 10_000
"""Size of the negative cache: inodes or ETags that no row has."""


class StateWriter:
    """Used by the control thread alone. `error` is why nothing can be written now, or None.

    `files` is the number of paths on which both sides agree, unwritten rows included. `skipped`
    takes the paths whose rows cannot be stored.
    """

    def __init__(self, state: State, skipped: SkippedPaths) -> None:
        self._state = state
        self._skipped = skipped
        self._miscounted = False
        self._puts: dict[str, Base] = {}
        self._drops: set[str] = set()
        self._deletions: DeletionMemo | None = None
        self._receipts: list[Receipt] = []
        self._read: dict[str, Base | None] = {}
        self._unknown: set[str] = set()
        self._sought: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.error: HostUnavailable | None = None
        self.files = state.count()

    def look_up(self, paths: Sequence[str], inodes: Sequence[str]) -> None:
        """Prefetch the rows of these paths and inodes with one query for each kind.

        One query is cheaper, because every query hands the interpreter to other threads. The rows
        stay cached until `release`. A disk error is ignored, because each path meets it by itself.
        """
        with contextlib.suppress(HostUnavailable):
            if paths:
                self._read |= dict.fromkeys(paths) | self._state.rows_of(paths)
            self._ask_for(inodes)

    def _ask_for(self, inodes: Sequence[str]) -> None:
        if inodes:
            self._unknown = self._unknown if len(self._unknown) < UNKNOWN_INODES_MAX else set()
            self._unknown |= self._state.unknown_inodes(inodes)

    def release(self, path: str) -> None:
        self._read.pop(path, None)

    def base_of(self, path: str) -> Base | None:
        """The base row, unwritten changes included."""
        if path in self._drops:
            return None
        if (put := self._puts.get(path)) is not None:
            return put
        return self._read[path] if path in self._read else self._state.get(path)

    def markers(self, directories: Iterable[str]) -> list[str]:
        """Those of `directories` that a directory marker holds, unwritten changes included."""
        markers = {f"{directory}/": directory for directory in directories}
        rows = dict.fromkeys(markers) | self._state.rows_of(list(markers)) if markers else {}
        rows |= {path: put for path in markers if (put := self._puts.get(path)) is not None}
        there = {path for path, row in rows.items() if row is not None and not row.source_absent}
        return [directory for path, directory in markers.items() if path in there - self._drops]

    async def renamed_from(self, beginning: Tag) -> list[Base]:
        """A few written rows whose source tag begins with these fields.

        All requests of one turn of the loop share a query.
        """
        if beginning[0] not in self._unknown:
            self._sought.append(beginning[0])
            await asyncio.sleep(0)  # collect the requests of this turn of the loop
            sought, self._sought = self._sought, []
            with contextlib.suppress(HostUnavailable):
                self._ask_for(sought)
        return self._written(beginning)

    def _written(self, beginning: Tag) -> list[Base]:
        return [] if beginning[0] in self._unknown else self._state.find_source(beginning)

    def record(self, put: Base | None, drops: tuple[str, ...], receipts: list[Receipt]) -> None:
        """Write the changes soon, then acknowledge the receipts."""
        if put is not None:
            self.files += self._counts(put.path, not put.source_absent)
            self._puts[put.path] = put
            self._drops.discard(put.path)
        for path in drops:
            self.files += self._counts(path, False)
            self._puts.pop(path, None)
            self._drops.add(path)
        self._receipts.extend(receipts)
        self._soon()

    def note(self, deletions: DeletionMemo) -> None:
        """Store the memory of the delete guard, in the same transaction as the rows."""
        self._deletions = deletions
        self._soon()

    def kin(self, put: Base) -> list[Base]:
        """A few written rows with the inode or ETag of `put`: possible old names of a rename."""
        return self._written(put.source[:1])

    def _soon(self, wait: float = BATCH_DELAY_S) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(wait, self.flush)

    def _counts(self, path: str, now: bool) -> int:
        """Growth of `files`. After an unreadable row, the next write recounts all rows."""
        try:
            before = self.base_of(path)
        except HostUnavailable:
            self._miscounted = True
            return 0
        return int(now) - int(before is not None and not before.source_absent)

    def copies_written(self) -> bool:
        """Write the rows of finished copies now. Returns whether all of them are recorded."""
        if self._puts:
            self.flush()
        return not self._puts

    def close(self) -> None:
        """Flush for the last time. The state is closed next, so no timer may start any more."""
        self._closed = True
        self.flush()

    def flush(self) -> None:
        """Write and acknowledge everything now; if the disk refuses, retry everything soon."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._write()
        except HostUnavailable as error:
            self._is_unwritable(error)
        else:
            self._is_written()

    def _is_unwritable(self, error: HostUnavailable) -> None:
        if self.error is None:
            text = "%s; nothing is acknowledged until it can be written"
            log.error("state.unwritable", text, error, error=error)
        self.error = error
        self._soon(RETRY_DELAY_S)

    def _is_written(self) -> None:
        if self.error is not None:
            self.error = None
            log.warning("state.writable", "the state can be written again")
        for path in (*self._puts, *self._drops):
            self.release(path)
        self._unknown.difference_update(put.source[0] for put in self._puts.values())
        self._puts.clear()
        self._drops.clear()
        self._deletions = None
        receipts, self._receipts = self._receipts, []
        for receipt in receipts:
            _give_back(receipt)

    def _write(self) -> None:
        """Write one transaction; if one row spoils it, one for each row. Raises HostUnavailable."""
        try:
            if self._puts or self._drops or self._deletions is not None:
                self._state.record(self._puts.values(), self._drops, deletions=self._deletions)
        except HostUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - any other error concerns one row
            log.debug("state.singly", "%r: each row is written by itself", error, error=error)
            self._write_singly()
        if self._miscounted:
            self.files, self._miscounted = self._state.count(), False

    def _write_singly(self) -> None:
        for put in list(self._puts.values()):
            self._write_one(put.path, puts=(put,))
        for path in list(self._drops):
            self._write_one(path, drops=(path,))
        if self._deletions is not None:
            self._write_one("", deletions=self._deletions)

    def _write_one(
        self,
        path: str,
        *,
        puts: Iterable[Base] = (),
        drops: Iterable[str] = (),
        deletions: DeletionMemo | None = None,
    ) -> None:
        """Write one row. The path of a row that cannot be stored is skipped by name, durably.

        Therefore the receipt of that path is acknowledged like the others.
        """
        try:
            self._state.record(puts, drops, deletions=deletions)
        except HostUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the other rows must still be stored
            text = "%s: its row cannot be stored: %r"
            log.exception("internal.error", text, path, error, path=path)
            self._miscounted = True
            if path:
                self._skipped.note(Unknown(path, f"its row cannot be stored: {error}"))


def _give_back(receipt: Receipt) -> None:
    try:
        receipt.acknowledge()
    except Exception as error:  # noqa: BLE001 - the other receipts must still be acknowledged
        log.exception("internal.error", "a receipt cannot be given back: %r", error)
