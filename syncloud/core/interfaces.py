"""The contracts (protocols) between the engine and its parts: Tree, HintSource, State, and others.

One engine serves two kinds of trees. A push has the disk as its source and the bucket as its
target; a pull has the reverse. A tree's method expresses each difference between the two, never an
`if` in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from . import checksum
from .model import Base, DeletionMemo, Entry, Failure, Hint, ScanChunk, ScanRecord, Side, Tag


class Content(Protocol):
    """The bytes of one version of one file that is too large for memory."""

    entry: Entry

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        """Exactly `length` bytes, in pieces as received.

        Raises Changed, Unsteady, Corrupt, Unavailable.
        """

    async def fill(self, room: memoryview, offset: int, crc: int) -> tuple[int, int]:
        """Read as `part` does, but into `room`.

        Returns the checksum `crc` extended by these bytes, and the checksum of these bytes alone.
        """
        own = filled = 0
        for piece in await self.part(offset, len(room)):
            room[filled : filled + len(piece)] = piece
            filled += len(piece)
            crc, own = checksum.update(piece, crc), checksum.update(piece, own)
        return crc, own

    async def verify(self, crc: int | None) -> None:
        """Prove that all parts came from one version, with the checksum `crc` if known.

        Raises Unsteady, Corrupt.
        """

    def close(self) -> None: ...


class Tree(Protocol):
    """One side of a sync: a directory or a prefix of a bucket.

    Every write is conditional on an expected state; Changed means: nothing was done, look again.
    Methods may run concurrently for different paths, never for one path. Transient failures raise
    Unavailable or HostUnavailable, failures of one path raise PathError; no other errors escape.
    """

    @property
    def given(self) -> int:
        """Counter of successful reads of file bytes, which no answer to `scan` or `reach` proves.

        A tree whose errors already identify the faulty part counts nothing.
        """

    @property
    def taken(self) -> int:
        """Counter of successful writes of file bytes, under the same rule as `given`."""

    def scan(self, under: str = "") -> Iterator[Side | ScanChunk]:
        """List everything below directory `under`, sorted by the paths' UTF-8 bytes. Blocking.

        The result holds only candidates. An invisible path comes as Unknown in its place; no path
        below an Unknown with `subtree` may be called absent.
        """

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        """Look at one path now.

        `known` is the base's tag for this side. `reported` may select a cheaper request. A small
        file that differs from `known` comes with `body` and `crc`. Absent is proven. Raises
        Unsteady, unless `deadline_passed`.
        """

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> Content:
        """Open `entry` for reading. Raises Changed, Unsteady."""

    async def with_checksum(self, entry: Entry) -> Entry:
        """`entry` with its `crc`, at any cost. Raises Changed."""

    def rename_identity(self, entry: Entry) -> Tag | None:
        """The prefix of a tag that a rename preserves; None where renames do not exist."""

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        """Write the file `entry` in place of `expected`. Durable on return.

        The bytes are the entry's body, else `content`. None for `expected` means: there is no file.
        Raises Changed, Blocked, Corrupt.
        """

    async def admit(self, entry: Entry) -> None:
        """Wait for the budget's turn of `entry`, which is so large that it travels in parts."""

    async def touch(self, expected: Entry, source: Entry) -> Entry | None:
        """Give `expected` the mtime and mode of `source`, whose bytes are equal.

        None where only a transfer of the bytes can do it.
        """

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        """The mode that `touch` may give to `expected`.

        A file that this state did not write gains no rights for group and others from `source`.
        """

    async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
        """Make `entry` on this side from `origin`, which has the same bytes.

        None where the side cannot do it.
        """

    async def delete(self, expected: Entry, keep: Collection[str] = ()) -> None:
        """Delete the file, if it still is `expected`. Raises Changed.

        Directories that become empty go as well, except those in `keep`.
        """

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        """Keep `entry` under a conflict name too.

        Returns that path and the current entry. Raises Changed.
        """

    async def reach(self, known: str | None) -> None:
        """A cheap health check of this side; `known` is a path that should exist.

        Raises the errors of `observe`.
        """

    async def try_giving(self, known: Sequence[str]) -> None:
        """A trial read: count in `given` if any of these files, which should exist, is readable.

        Raises the errors of `observe`.
        """

    async def try_taking(self) -> None:
        """A trial write under a hidden name: count in `taken` if it succeeds.

        Raises the errors of `write`.
        """

    def keeps_versions(self, entry: Entry) -> bool:
        """Whether an overwritten `entry` stays retrievable as a version."""


@dataclass(frozen=True, slots=True)
class Direction:
    """The way of the files, from `source` to `target`; the trees know nothing of their sides.

    `role` names the direction in log events, `written` is the verb of a transfer.
    """

    role: str
    source: Tree
    target: Tree
    written: str

    @classmethod
    def push(cls, source: Tree, target: Tree) -> Direction:
        return cls("push", source, target, "uploaded")

    @classmethod
    def pull(cls, source: Tree, target: Tree) -> Direction:
        return cls("pull", source, target, "written")

    def event(self, verb: str) -> str:
        return f"{self.role}.{verb}"

    @property
    def carried(self) -> int:
        """Counter of the transfers of file bytes that have succeeded on either side."""
        return self.source.given + self.target.taken

    async def reach(self, known: str | None) -> None:
        """Health check of both sides: `Tree.reach`."""
        await self.source.reach(known)
        await self.target.reach(known)

    async def try_carrying(self, known: Sequence[str]) -> None:
        """A trial of both sides: `Tree.try_giving`, then `Tree.try_taking`."""
        await self.source.try_giving(known)
        await self.target.try_taking()


class HintSink(Protocol):
    """A consumer of hints, from any thread."""

    def deliver(self, hint: Hint) -> None: ...


class PathFilter(Protocol):
    """The user's selection of paths."""

    def excludes(self, path: str) -> bool:
        """Whether `path` takes no part in the sync."""


class HintSource(Protocol):
    """A producer of hints.

    Any thread may call `deliver`. A source reports every gap in its work, and never stops silently.
    """

    def start(self, deliver: Callable[[Hint], None]) -> None: ...

    def stop(self) -> None: ...

    def trouble(self) -> str | None:
        """Why this source is unreliable now (an unwatched directory, a queue outage), or None."""

    def stalled(self) -> str | None:
        """The thread that is dead or stuck, so that only a restart helps; or None."""

    @property
    def ready(self) -> bool:
        """Whether hints come from now on: the watch is armed, or the queue has answered."""

    @property
    def gaps(self) -> int | None:
        """How often hints may have been lost since the start.

        None for a source that lists by itself after each loss.
        """

    @property
    def poisoned(self) -> int:
        """Messages that no rule understands, since the start."""

    @property
    def overlap_s(self) -> float:
        """Seconds for which a source of an earlier daemon may still take hints, which are lost."""

    def mounts_changed(self) -> None:
        """A file system was mounted or unmounted below the root."""


class Rows(Protocol):
    """A read-only view of the base rows, for another thread."""

    def rows(self, under: str = "") -> Iterator[Base]: ...

    def scan_records(self, under: str = "") -> Iterator[ScanRecord]:
        """The same rows, in the form of a ScanChunk's records.

        A row with `source_absent` has an empty tag.
        """

    def get(self, path: str) -> Base | None:
        """One row, from the same snapshot as a `scan_records` in progress."""

    def query(self, query: str, values: Mapping[str, str]) -> Iterator[Base]:
        """The rows of any other query on the same table."""

    def close(self) -> None: ...


class State(Protocol):
    """The engine's part of the state. `record` is one transaction; it raises HostUnavailable."""

    def get(self, path: str) -> Base | None: ...

    def record(
        self,
        puts: Iterable[Base],
        drops: Iterable[str],
        *,
        deletions: DeletionMemo | None = None,
    ) -> None: ...

    def deletions(self) -> DeletionMemo:
        """The memory of the delete guard."""

    def count(self) -> int: ...

    def rows_of(self, paths: Sequence[str]) -> dict[str, Base]: ...

    def find_source(self, beginning: Tag) -> list[Base]: ...

    def unknown_inodes(self, beginnings: Sequence[str]) -> set[str]: ...

    def reader(self) -> Rows: ...

    def skipped(self) -> dict[str, str]: ...

    def note_skipped(self, path: str, reason: str) -> bool: ...

    def clear_skipped(self, path: str) -> None: ...

    def failing(self) -> list[Failure]: ...

    def note_failing(self, rows: Iterable[Failure], gone: Iterable[str]) -> None: ...
