"""The value types: one side of a path, the last agreed state (base), hints, and actions.

Everything here is a value: frozen, slotted, comparable, printable. No I/O.

Paths are relative to the root (or the prefix), POSIX, valid UTF-8, without `.`, `..` or empty
components. A path that ends in a slash is an empty directory (S3's `dir/` marker).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

SMALL_BYTES = 8 * 1024 * 1024
"""Bytes. Up to this size a file is one body and one request; a larger one travels in parts."""

RACY = "racy:"
"""Prefix of a tag's last field: the file may have changed since, without a change of its tag."""

Tag: TypeAlias = tuple[str, ...]
"""An opaque version token of a file on one side.

A tag changes whenever its file may have changed. A field that the call could not see is empty.
"""


def same(a: Tag, b: Tag) -> bool:
    """Whether two tags can belong to the same state of a file.

    An empty field matches anything; all others must be equal. (LIST knows no version id, a PUT's
    answer no LastModified. The first field, inode or ETag, is always known.)
    """
    return all(x == y or not x or not y for x, y in zip(a, b, strict=True))


class Kind(Enum):
    """What a path names. A trailing slash in the path makes it a directory marker."""

    FILE = "file"
    DIRECTORY = "directory"


def kind_of(path: str) -> Kind:
    """The kind that `path` names: the one place that knows the trailing slash."""
    return Kind.DIRECTORY if path.endswith("/") else Kind.FILE


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a directory marker, as one side sees it now.

    `size` is in bytes, `mtime_ns` in nanoseconds since the epoch, `mode` the permission bits
    (0o777). `crc` is the CRC64NVME of the bytes, if known. `body` holds the bytes if the look read
    them (at most `SMALL_BYTES`).

    `written_by_us`: this state provably wrote these bytes here, even without a base row (a crash, a
    lost answer). None: the file has this state's mark, which only the bytes can prove.

    `racy`: the bytes may have changed since, without a change of the tag.
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

    @property
    def kind(self) -> Kind:
        return kind_of(self.path)

    def lasting_tag(self) -> Tag:
        """The tag for comparisons with later tags.

        A racy file's tag equals no other tag; its last field stays readable behind `RACY`.
        """
        return (*self.tag[:-1], f"{RACY}{self.tag[-1]}") if self.racy else self.tag


ContentKey: TypeAlias = tuple[str, int]
"""First field of a source tag (inode or ETag), and size. A rename changes neither."""


def content_key(side: Side | None) -> ContentKey | None:
    """The key of an entry's content; None for anything else."""
    return (side.tag[0], side.size) if isinstance(side, Entry) else None


@dataclass(frozen=True, slots=True)
class Absent:
    """Proof that no such file exists now.

    The proof is ENOENT below a verified parent, or a 404 with bucket and permission proven.
    """

    path: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A side that allows no conclusion.

    The path is excluded, unreadable, not a regular file, blocked by a clash, or archived.
    `subtree`: the same is true of everything below `path`.
    """

    path: str
    reason: str
    subtree: bool = False


Side: TypeAlias = Entry | Absent | Unknown

ScanRecord: TypeAlias = tuple[str, str, int]
"""The compact record of a file for bulk comparison of a listing with the base.

Fields: path, tag (one text, its fields joined by blanks), mode.
"""


@dataclass(frozen=True, slots=True)
class ScanChunk:
    """Consecutive files of a listing. Only those that differ from the base become an Entry."""

    records: list[ScanRecord]
    entry_of: Callable[[ScanRecord], Entry]


@dataclass(frozen=True, slots=True)
class Base:
    """The base row of a path: the last state on which both sides agreed.

    Base rows are the only memory that must survive. `source_absent`: the source was deleted since,
    and the target was kept (deletions were off). `withheld`: bits of `mode` that the target did not
    get, because the file existed before.
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
    def kind(self) -> Kind:
        return kind_of(self.path)

    @property
    def target_mode(self) -> int:
        return self.mode & ~self.withheld

    def as_target(self) -> Entry:
        """The target as last agreed: the precondition of every conditional write."""
        return Entry(self.path, self.target, self.size, self.mtime_ns, self.target_mode, self.crc)


class Failure(NamedTuple):
    """A path that keeps failing: its last error as texts, the number of tries, the first failure.

    `since` is in seconds since the epoch.
    """

    path: str
    code: str
    cause: str
    hint: str
    tries: int
    since: float


class Receipt(Protocol):
    """The acknowledgement handle of a hint, used once the hint's effect is durable."""

    def acknowledge(self) -> None: ...


class HintKind(Enum):
    """The origin of a hint; it affects only the timing."""

    WRITTEN = "closed"
    """A writer has closed the file: look at once."""
    WRITING = "open"
    """A writer may be active: look after a quiet time, or at the deadline."""
    RECHECK = "look"
    """The sides may differ (a scan, an event of the bucket, a retry): look when there is time."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A level-triggered request to look at a path; it carries no facts.

    `subtree`: look at everything below `path` ("" is everything). `reported` is the path's state in
    a listing or an event; it may select a cheaper request, but is never trusted. `check_target`:
    look at the target too, because it may have changed. `receipt`: acknowledged when the hint is
    settled.
    """

    path: str
    kind: HintKind = HintKind.RECHECK
    subtree: bool = False
    reported: Side | None = None
    check_target: bool = False
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """Make the target equal to the source, if the target still is `expected`."""

    source: Entry
    expected: Entry | None


@dataclass(frozen=True, slots=True)
class Compare:
    """Tags cannot decide: compute the missing checksums of the given sides, then decide again."""

    source: Entry | None
    target: Entry | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the target, if it still is `expected`."""

    expected: Entry


@dataclass(frozen=True, slots=True)
class ReleaseTarget:
    """The source was deleted, but deletions are off: keep the target, record the absence."""

    base: Base


@dataclass(frozen=True, slots=True)
class DropBase:
    """The sides no longer agree on anything: drop the base row, change no file."""

    base: Base


@dataclass(frozen=True, slots=True)
class Adopt:
    """Equal bytes: align the target's mtime and mode with the source's, record both sides."""

    source: Entry
    target: Entry


@dataclass(frozen=True, slots=True)
class Conflict:
    """Each side holds bytes that the other one lacks."""

    source: Entry
    target: Entry


@dataclass(frozen=True, slots=True)
class Drift:
    """Another writer changed the target while the source stayed the same: report it."""

    target: Side


Action: TypeAlias = Copy | Compare | Delete | ReleaseTarget | DropBase | Adopt | Conflict | Drift


class ConflictPolicy(Enum):
    """The user's choice for a `Conflict`."""

    KEEP_BOTH = "keep-both"
    SOURCE_WINS = "source-wins"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Policy:
    """The user's permissions for deletions and conflicts."""

    delete: bool = False
    conflict: ConflictPolicy = ConflictPolicy.KEEP_BOTH
    max_delete: int = 25
    """Per cent of the base rows per hour; `planner.FREE_DELETIONS` files are always allowed."""
