"""Trees in memory that refuse, wait or fail, as a test asks for."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING

from syncloud.errors import Changed, PermissionRefused, Unavailable
from tests.support.memory import MemoryTree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from syncloud.core.interfaces import Content
    from syncloud.core.model import Base, Entry, Side, Tag

REFUSED = PermissionRefused(
    "write: AccessDenied", code="AccessDenied", hint="see the bucket's policy"
)


class Bucket(MemoryTree):
    """A target that refuses some writes with `error`.

    The bucket answers questions unless `down`. `tries` counts by path.
    """

    def __init__(self, role: str = "push", *, flat: bool = True) -> None:
        super().__init__(role, flat=flat)
        self.refuses: Callable[[str], bool] = lambda _: False
        self.error: Exception = REFUSED
        self.down = False
        self.tries: Counter[str] = Counter()
        self.questions = 0
        self.deleted: list[str] = []

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.tries[entry.path] += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("nobody answers")
        if self.refuses(entry.path):
            raise self.error
        return await super().write(entry, content, expected)

    async def delete(self, expected: Entry, keep: Collection[str] = ()) -> None:
        await super().delete(expected, keep)
        self.deleted.append(expected.path)

    async def reach(self, known: str | None) -> None:
        self.questions += 1
        if self.down:
            raise Unavailable("nobody answers")

    async def try_taking(self) -> None:
        if self.down or self.refuses("a trial"):
            raise self.error
        await super().try_taking()


class Restless(Bucket):
    """A store that never has what it has just shown, as behind something that changes its ETags."""

    requests = 0

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.requests += 1
        raise Changed(entry.path, f"{entry.path}: changed meanwhile")

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        self.requests += 1
        return await super().observe(
            path, base, known, reported=reported, deadline_passed=deadline_passed
        )


class FlakyTree(MemoryTree):
    """A tree that is away while `away` is set, and whose writes wait for `gate`."""

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.away = False
        self.tries = 0
        self.gate: asyncio.Event | None = None

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        self.tries += 1
        if self.away:
            raise Unavailable("nobody answers")
        if self.gate is not None:
            await self.gate.wait()
        return await super().write(entry, content, expected)

    async def reach(self, known: str | None) -> None:
        if self.away:
            raise Unavailable("nobody answers")


class LargeTree(MemoryTree):
    """A tree whose listing takes until `listed` is set."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.listed = threading.Event()
        self.listings = 0

    def scan(self, under: str = "") -> Iterator[Side]:
        self.listings += 1
        assert self.listed.wait(30)
        yield from super().scan(under)


class BrokenOnce(MemoryTree):
    """The first write and the first listing fail, with `error`."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name)
        self.errors = {"write": error, "scan": error}

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        if error := self.errors.pop("write", None):
            raise error
        return await super().write(entry, content, expected)

    def scan(self, under: str = "") -> Iterator[Side]:
        if error := self.errors.pop("scan", None):
            raise error
        return super().scan(under)
