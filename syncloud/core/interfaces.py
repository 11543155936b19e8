"""The contracts between the engine and its parts: Tree, Content, HintSource, State.

Two trees, one engine: a push's source is the disk and its target the bucket, a pull's the other way round. Whatever differs
between the two is said here, by a method, and never by an `if` in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from . import checksum
from .model import Base, Entry, Failure, Hint, ScanChunk, ScanRecord, Side, Tag


class Content(Protocol):
    """The bytes of one state of one file, too many for memory."""

    entry: Entry

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        """Exactly `length` bytes, in the pieces in which they come. Raises Changed, Unsteady, Corrupt, Unavailable."""

    async def fill(self, room: memoryview, offset: int, crc: int) -> tuple[int, int]:
        """As `part`, into `room`: the checksum of what `crc` covers, followed by these bytes, and that of these alone."""
        own = filled = 0
        for piece in await self.part(offset, len(room)):
            room[filled : filled + len(piece)] = piece
            filled += len(piece)
            crc, own = checksum.update(piece, crc), checksum.update(piece, own)
        return crc, own

    async def verify(self, crc: int | None) -> None:
        """Prove that all parts were of one state, whose checksum is `crc` where known. Raises Unsteady, Corrupt."""

    def close(self) -> None: ...


class Tree(Protocol):
    """One side. Every write is conditional on what is expected there; Changed means: nothing was done, look again.

    Methods may be called for different paths at once, for one path never. What time can mend is raised as Unavailable or
    HostUnavailable, what concerns one path as PathError; nothing else comes out.
    """

    role: str
    """What a sync does that has this tree as its target: `push` or `pull`. Only for names in the log."""
    written_event: str
    """The log's name for a file that arrived here."""

    @property
    def given(self) -> int:
        """How often bytes of a file have come from here, which no answer to `scan` or `reach` proves. A tree that knows whose
        fault its failures are counts nothing."""

    @property
    def taken(self) -> int:
        """The same, of bytes that were put here."""

    def scan(self, under: str = "") -> Iterator[Side | ScanChunk]:
        """Nominate everything below the folder `under`, in the order of the paths' UTF-8 bytes. Blocking.

        What cannot be seen comes as Unknown at its place; nothing below an Unknown with `subtree` may be called absent.
        """

    async def observe(
        self, path: str, base: Base | None, known: Tag | None, *, reported: Side | None = None, deadline_passed: bool = False
    ) -> Side:
        """Look at one path now. `known` is the base's tag for this side; `reported` may choose the cheaper way to look.

        Brings `body` and `crc` of a small file that is not as `known`. Absent is proven. Raises Unsteady, unless
        `deadline_passed`.
        """

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> Content:
        """The bytes of `entry`. Raises Changed, Unsteady."""

    async def with_checksum(self, entry: Entry) -> Entry:
        """`entry` with its `crc`, whatever it costs. Raises Changed."""

    def rename_identity(self, entry: Entry) -> Tag | None:
        """The beginning of a tag that a rename leaves as it is; None where files are not renamed."""

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        """Make the file `entry` (its body, else `content`) in place of `expected` (None: of nothing). Durable on return.

        Raises Changed, Blocked, Corrupt.
        """

    async def admit(self, entry: Entry) -> None:
        """Wait until it is the turn of a file of this size, which is too large to be carried in one piece."""

    async def touch(self, expected: Entry, source: Entry) -> Entry | None:
        """Give `expected` the mtime and mode of `source`, whose bytes are equal; None where the bytes must travel for it."""

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        """The mode that `touch` may give to `expected`, which nobody may be able to read or write because of `source`."""

    async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
        """Make `entry` from `origin`, which holds the same bytes, on this side; None where that cannot be had."""

    async def delete(self, expected: Entry) -> None:
        """Raises Changed."""

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        """Keep `entry` under a conflict name as well: that name, and the entry as it is now. Raises Changed."""

    async def reach(self, known: str | None) -> None:
        """Prove cheaply that this side answers; `known` is a path that should be there. Raises the errors of `observe`."""

    async def try_giving(self, known: Sequence[str]) -> None:
        """Count in `given` if any of these files, which should be there, can be had. Raises the errors of `observe`."""

    async def try_taking(self) -> None:
        """Count in `taken` if a file can be put here, under a hidden name. Raises the errors of `write`."""

    def keeps_versions(self, entry: Entry) -> bool:
        """Whether overwriting `entry` leaves it retrievable."""


class HintSource(Protocol):
    """Where hints come from. It calls `deliver` from any thread; it says what it cannot do, it never stops silently."""

    def start(self, deliver: Callable[[Hint], None]) -> None: ...

    def stop(self) -> None: ...

    def trouble(self) -> str | None:
        """Why this source is not to be trusted now (a part that is not watched, an unreachable queue), or None."""

    def stalled(self) -> str | None:
        """Which of its threads has died or does not get on, so that nothing but a restart helps; or None."""

    @property
    def ready(self) -> bool:
        """Whether hints come from now on: the watch is armed, or the queue has answered."""

    @property
    def gaps(self) -> int | None:
        """How often hints may have been lost since the start; None for a source that lists by itself after each loss."""

    @property
    def poisoned(self) -> int:
        """Messages that no rule understands, since the start."""

    @property
    def overlap_s(self) -> float:
        """Seconds for which a source of an earlier daemon may still take hints that nobody gets then."""

    def mounts_changed(self) -> None:
        """A file system was mounted or unmounted below the root."""


class Rows(Protocol):
    """A look at the base rows from another thread."""

    def rows(self, under: str = "") -> Iterator[Base]: ...

    def scan_records(self, under: str = "") -> Iterator[ScanRecord]:
        """The same rows, as a Run has the files' source; the tag of one that is `absent` is empty."""

    def get(self, path: str) -> Base | None:
        """One row, of the same moment as what comes of `sightings`."""

    def query(self, query: str, values: Mapping[str, str]) -> Iterator[Base]:
        """The rows of another question to the same table."""

    def close(self) -> None: ...


class State(Protocol):
    """What the engine needs of the memory; `record` is one transaction and raises HostUnavailable."""

    def get(self, path: str) -> Base | None: ...

    def record(self, puts: Iterable[Base], drops: Iterable[str], notes: Mapping[str, str]) -> None: ...

    def get_meta(self, name: str) -> str | None: ...

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
