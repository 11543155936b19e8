"""The nouns: what a side of a path is, what both sides last agreed on, what is to be done.

Everything here is a value: frozen, slotted, comparable, printable. No I/O.

Paths are relative to the root (or the prefix), POSIX, valid UTF-8, without `.`, `..` or empty components. One that ends in
a slash is an empty directory (S3's `dir/` marker).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

SMALL_BYTES = 8 * 1024 * 1024
"""Bytes. Up to this size a file is one body in memory and one request; above it travels in parts."""

RACY = "racy:"
"""Before the last field of a tag: the file may have changed since, and its tag would not show it."""

Tag: TypeAlias = tuple[str, ...]
"""An opaque token that changes whenever that side's file may have changed. A field that the call could not see is empty."""


def same(a: Tag, b: Tag) -> bool:
    """Whether two tags can be of the same state: an unknown field says nothing, every known one must agree.

    (LIST knows no version id, a PUT's answer no LastModified. The first field, inode or ETag, is always known.)
    """
    return all(x == y or not x or not y for x, y in zip(a, b, strict=True))


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as one side sees it now.

    `size` in bytes, `mtime_ns` in nanoseconds since the epoch, `mode` the permission bits (0o777), `crc` the CRC64NVME of
    the bytes where it is known, `body` the bytes themselves where the look has brought them already (at most `SMALL_BYTES`).
    `ours`: proven that these very bytes were put here by this state, even where no base row says so (a crash, a lost answer);
    None: it is marked so, which only its bytes can prove.
    `racy`: they may have changed since, and the tag would not show it.
    """

    path: str
    tag: Tag
    size: int
    mtime_ns: int
    mode: int
    crc: int | None = None
    body: bytes | None = field(default=None, compare=False, repr=False)
    written_by_us: bool | None = field(default=False, compare=False)
    racy: bool = field(default=False, compare=False)

    def lasting_tag(self) -> Tag:
        """What a later tag may be compared with: of a racy file one that is like none. It still shows the last field."""
        return (*self.tag[:-1], f"{RACY}{self.tag[-1]}") if self.racy else self.tag


@dataclass(frozen=True, slots=True)
class Absent:
    """Proven: there is no such file now (ENOENT below a verified parent; 404 with bucket and permission proven)."""

    path: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Excluded, unreadable, not a regular file, blocked by a clash, archived: nothing may be concluded.

    `subtree`: the same holds for everything below `path`.
    """

    path: str
    reason: str
    subtree: bool = False


Side: TypeAlias = Entry | Absent | Unknown

ScanRecord: TypeAlias = tuple[str, str, int]
"""What a listing of very many files says of one, and what the base has to say to it: path, tag (one text, its fields joined by
blanks), mode."""


@dataclass(frozen=True, slots=True)
class ScanChunk:
    """Files that follow each other in a listing. An Entry is only made of those that are not as in the base."""

    records: list[ScanRecord]
    entry_of: Callable[[ScanRecord], Entry]


@dataclass(frozen=True, slots=True)
class Base:
    """The last state on which both sides of a path agreed; the only memory that must survive.

    `absent`: the source has gone since and the target was left alone (deletes were off). `withheld`: bits of `mode` that the
    target was not given, because it was there before.
    """

    path: str
    source: Tag
    target: Tag
    size: int
    mtime_ns: int
    mode: int
    crc: int | None
    source_absent: bool = False
    withheld: int = 0

    @property
    def target_mode(self) -> int:
        return self.mode & ~self.withheld

    def as_target(self) -> Entry:
        """The target as it was: the assumption of every conditional write."""
        return Entry(self.path, self.target, self.size, self.mtime_ns, self.target_mode, self.crc)


class Failure(NamedTuple):
    """A path that keeps failing: its last error as texts, the number of tries, the first failure (seconds since the epoch)."""

    path: str
    code: str
    cause: str
    hint: str
    tries: int
    since: float


class Receipt(Protocol):
    """What a hint must give back once its effect is durable."""

    def acknowledge(self) -> None: ...


class HintKind(Enum):
    """How a hint came about; only its timing depends on it."""

    WRITTEN = "closed"
    """A writer has finished: look at once."""
    WRITING = "open"
    """A writer may be at work: look when it is quiet, or at the deadline."""
    RECHECK = "look"
    """Something may differ (a scan, an event of the bucket, a retry): look when there is time."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Look here. It carries no facts.

    `subtree`: look at everything below `path` ("" is everything). `reported` is what a listing or an event said of the
    path; it may choose the cheaper request, it is never believed. `both`: the target may have changed too, look there as
    well. `receipt` is given back when the hint is settled.
    """

    path: str
    kind: HintKind = HintKind.RECHECK
    subtree: bool = False
    reported: Side | None = None
    check_target: bool = False
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """Make the target what the source is, provided the target is still `expected`."""

    source: Entry
    expected: Entry | None


@dataclass(frozen=True, slots=True)
class Compare:
    """Tags cannot tell: learn the bytes' checksum on the sides that lack it, and decide again."""

    source: Entry | None
    target: Entry | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the target, provided it is still `expected`."""

    expected: Entry


@dataclass(frozen=True, slots=True)
class ReleaseTarget:
    """The source has gone and deletes are off: leave the target, remember that the source was absent."""

    base: Base


@dataclass(frozen=True, slots=True)
class DropBase:
    """Nothing is agreed on any more: drop the base row, touch nothing."""

    base: Base


@dataclass(frozen=True, slots=True)
class Adopt:
    """The bytes are equal: give the target the source's mtime and mode where they differ, and remember both sides."""

    source: Entry
    target: Entry


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both sides hold bytes that the other lacks."""

    source: Entry
    target: Entry


@dataclass(frozen=True, slots=True)
class Drift:
    """The target was changed by somebody while the source stayed: report."""

    target: Side


Action: TypeAlias = Copy | Compare | Delete | ReleaseTarget | DropBase | Adopt | Conflict | Drift


class ConflictPolicy(Enum):
    """What a `Conflict` does."""

    KEEP_BOTH = "keep-both"
    SOURCE_WINS = "source-wins"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user allows."""

    delete: bool = False
    conflict: ConflictPolicy = ConflictPolicy.KEEP_BOTH
    max_delete: int = 25
    """Per cent of the base rows, within an hour; never less than 100 files."""
