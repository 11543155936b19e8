"""MemoryTree: a tree in memory with the exact conditional semantics of the contract.

Every write makes a new generation. `history` keeps every content that ever was, so that a test can
account for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from syncloud.core import checksum
from syncloud.core.interfaces import Content
from syncloud.core.model import SMALL_BYTES, Absent, Base, Entry, Side, Tag
from syncloud.errors import Blocked, Changed


@dataclass(slots=True)
class _File:
    body: bytes
    mtime_ns: int
    mode: int
    generation: int
    writer: str = ""


class MemoryTree:
    """A tree of the side where a daemon of this `name` writes.

    `push` writes into a bucket, `pull` into a directory. `conflict_names` are made of a counter.
    `flat`: `a` may stand beside `a/b`, as in a bucket.
    """

    def __init__(self, name: str, *, flat: bool = True) -> None:
        self.name = name
        self.files: dict[str, _File] = {}
        self.history: set[bytes] = set()
        self.writes = self.given = self.taken = 0
        self._flat = flat
        self._generation = 0
        self.writer = "this state"

    def put(self, path: str, body: bytes, *, mtime_ns: int = 0, mode: int = 0o644) -> Entry:
        """What a user of this side does: no condition."""
        self._generation += 1
        self.files[path] = _File(body, mtime_ns, mode, self._generation)
        self.history.add(body)
        return self._entry(path)

    def remove(self, path: str) -> None:
        del self.files[path]

    def _entry(self, path: str) -> Entry:
        file = self.files[path]
        ours = file.writer == self.writer
        return Entry(
            path,
            (str(file.generation),),
            len(file.body),
            file.mtime_ns,
            file.mode,
            written_by_us=ours,
        )

    def _expect(self, path: str, expected: Entry | None) -> None:
        tag = self._entry(path).tag if path in self.files else None
        if tag != (expected.tag if expected is not None else None):
            raise Changed(path, f"{path}: changed meanwhile")

    def scan(self, under: str = "") -> Iterator[Side]:
        prefix = f"{under}/" if under else ""
        return iter([self._entry(path) for path in sorted(self.files) if path.startswith(prefix)])

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        if path not in self.files:
            return Absent(path)
        entry = self._entry(path)
        if entry.tag == known and base is not None:
            return replace(entry, crc=base.crc)
        body = self.files[path].body
        self.given += len(body) <= SMALL_BYTES
        return (
            replace(entry, body=body, crc=checksum.update(body))
            if len(body) <= SMALL_BYTES
            else entry
        )

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> MemoryContent:
        self._expect(entry.path, entry)
        return MemoryContent(entry, self.files[entry.path].body)

    async def with_checksum(self, entry: Entry) -> Entry:
        self._expect(entry.path, entry)
        return replace(entry, crc=checksum.update(self.files[entry.path].body))

    def rename_identity(self, entry: Entry) -> Tag | None:
        return None

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        body = entry.body or b""
        if entry.body is None and content is not None:
            body = b"".join(await content.part(0, entry.size))
            await content.verify(checksum.update(body))
        self._expect(entry.path, expected)
        self._require_room(entry.path)
        self.writes += 1
        self.taken += 1
        written = self.put(entry.path, body, mtime_ns=entry.mtime_ns, mode=entry.mode)
        self.files[entry.path].writer = self.writer
        return replace(written, crc=checksum.update(body))

    def _require_room(self, path: str) -> None:
        if self._flat:
            return
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if (above := "/".join(parts[:depth])) in self.files:
                raise Blocked(path, f"{path}: {above} is a file", blocker=above)
        if any(other.startswith(path + "/") for other in self.files):
            raise Blocked(path, f"{path} is a directory", blocker=path)

    async def touch(self, expected: Entry, source: Entry) -> Entry | None:
        self._expect(expected.path, expected)
        file = self.files[expected.path]
        self.writes += 1
        touched = self.put(expected.path, file.body, mtime_ns=source.mtime_ns, mode=source.mode)
        self.files[expected.path].writer = file.writer
        return replace(touched, crc=source.crc)

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        return source.mode

    async def admit(self, entry: Entry) -> None:
        """There is room for all."""

    async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
        return None

    async def delete(self, expected: Entry, keep: Collection[str] = ()) -> None:
        self._expect(expected.path, expected)
        self.writes += 1
        self.remove(expected.path)

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        self._expect(entry.path, entry)
        counter = 0
        while (aside := f"{entry.path}.conflict-{counter}") in self.files:
            counter += 1
        file = self.files[entry.path]
        self.put(aside, file.body, mtime_ns=file.mtime_ns, mode=file.mode)
        return aside, entry

    async def reach(self, known: str | None) -> None:
        """Always."""

    async def try_giving(self, known: Sequence[str]) -> None:
        self.given += any(path in self.files for path in known)

    async def try_taking(self) -> None:
        self.taken += 1

    def keeps_versions(self, entry: Entry) -> bool:
        return False


class MemoryContent(Content):
    """The bytes of one generation."""

    def __init__(self, entry: Entry, body: bytes) -> None:
        self.entry = entry
        self._body = body

    async def part(self, offset: int, length: int) -> list[bytes]:
        return [self._body[offset : offset + length]]

    async def verify(self, crc: int | None) -> None:
        """It cannot have changed."""

    def close(self) -> None:
        """Nothing is held."""
