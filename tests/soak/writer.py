"""The one writer: random acts on a directory, repeatable by a seed.

The writer keeps a record of all contents that it has closed.

The seed and the writer's own knowledge decide everything, never the clock or the disk. Each step
has its planned time; where the machine is slow the same steps come late.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.soak.content import HEAD, frame, may_be_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FOLDERS = ("d0", "d1", "d2", "d3", "d4", "d0/sub", "d1/sub/deep", "d5")
FILES = 14
"""Names for each folder; two more may be empty."""
LOG_FULL = 128 * 1024
BIG_EVERY = 30.0
"""Seconds between two files that go in parts, at least.

The store keeps all their versions in memory.
"""
HOT_EVERY = 0.35
BURSTING = 7
"""Directories for bursts: they are there from the start, because a new one is looked at anyway."""
NOISE = 2
"""Twice as many events as the kernel's queue holds go before what a burst writes."""


@dataclass(slots=True)
class Holding:
    """A content that stood closed at a path, from `since` until `until`.

    Times are monotonic seconds; `until` is None while the content still stands.
    """

    path: str
    digest: str
    size: int
    since: float
    until: float | None = None


class Writer:
    """A writer below `root` from `start` on, for `seconds`.

    `bursts` are the times at which push is to be overwhelmed. `aside` is a directory on the same
    file system, outside of the watched one.
    """

    def __init__(
        self, root: Path, aside: Path, *, seed: str, seconds: float, bursts: Sequence[float]
    ) -> None:
        self._root = root
        self._aside = aside
        self._chance = random.Random(f"writer {seed}")
        self._seconds = seconds
        self._bursts = list(bursts)
        self._numbers = itertools.count(1)
        self._files: dict[str, Holding] = {}
        self._away: dict[str, list[str]] = {}
        self._big_at = 5.0
        self.holdings: list[Holding] = []
        self.steps = self.writes = self.late = 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as failure:  # noqa: BLE001 - told by the soak, which ends then
            self.failure = failure

    def _work(self) -> None:
        for number in range(BURSTING):
            (self._root / f"burst/{number}").mkdir(parents=True)
        started, planned, hot = time.monotonic(), 0.0, 0.0
        while planned < self._seconds:
            ahead = started + planned - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            self.late = max(self.late, round(-ahead))
            if self._bursts and planned >= self._bursts[0]:
                del self._bursts[0]
                self._burst()
            if planned >= hot:
                hot = planned + HOT_EVERY
                self._hot()
            self._step(planned)
            planned += self._chance.expovariate(9.0)
            self.steps += 1

    def _step(self, planned: float) -> None:
        if planned >= self._big_at:
            self._big_at = planned + BIG_EVERY * self._chance.uniform(1.0, 1.6)
            self._big()
            return
        names, weights = zip(*_STEPS.items(), strict=True)
        (name,) = self._chance.choices(names, weights)
        step: Callable[[], None] = getattr(self, name)
        step()

    # What is closed, and how long it stands

    def _closed(self, path: str) -> None:
        """A program has written `path` and closed it."""
        self._appeared(path)
        self.writes += 1

    def _appeared(self, path: str) -> None:
        data = (self._root / path).read_bytes()
        self._stands(path, hashlib.md5(data, usedforsecurity=False).hexdigest(), len(data))

    def _stands(self, path: str, digest: str, size: int) -> None:
        self._files[path] = Holding(path, digest, size, time.monotonic())
        self.holdings.append(self._files[path])

    def _gone(self, path: str) -> Holding | None:
        """Called before it goes: what is half done no longer stands."""
        holding = self._files.pop(path, None)
        if holding is not None:
            holding.until = time.monotonic()
        return holding

    def _below(self, folder: str) -> list[str]:
        return sorted(path for path in self._files if path.startswith(folder + "/"))

    # Which path

    def _new(self, size: int) -> bytes:
        return frame(next(self._numbers), size)

    def _body(self) -> bytes:
        return self._new(self._chance.choice((0, 10, 300, 3000, 3000, 12_000, 40_000)))

    def _folder(self) -> str:
        return self._chance.choice(
            [folder for folder in FOLDERS if self._top(folder) not in self._away]
        )

    def _path(self, kind: str = "f") -> str:
        number = self._chance.randrange(FILES if kind == "f" else 2)
        return f"{self._folder()}/{kind}{number:02}"

    def _any(self) -> str | None:
        """A file that is there."""
        there = sorted(path for path in self._files if path.startswith("d"))
        return self._chance.choice(there) if there else None

    @staticmethod
    def _top(path: str) -> str:
        return path.partition("/")[0]

    def _place(self, path: str) -> Path:
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    # How contents come about

    def _write(self, path: str = "", body: bytes | None = None) -> None:
        path = path or self._path(self._chance.choice("ffffffffe"))
        body = self._body() if body is None else body
        file = self._place(path)
        self._gone(path)
        file.write_bytes(body)
        self._closed(path)

    def _write_empty(self) -> None:
        self._write(self._path("e"), b"")

    def _write_slowly(self, path: str = "") -> None:
        path, body = path or self._path(), self._body()
        file = self._place(path)
        self._gone(path)
        with file.open("wb", buffering=0) as opened:
            self._in_pieces(opened.write, body)
        self._closed(path)

    def _rewrite(self, path: str = "") -> None:
        """In place, the old bytes giving way piece by piece."""
        path = path or self._any() or ""
        if not path or may_be_empty(path):
            return
        body = self._body()
        self._gone(path)
        with (self._root / path).open("r+b", buffering=0) as opened:
            self._in_pieces(opened.write, body)
            opened.truncate(len(body))
        self._closed(path)

    def _rewrite_stealthily(self) -> None:
        """The same size, and the old mtime put back."""
        path = self._any()
        if path is None or may_be_empty(path):
            return
        file, size = self._root / path, self._files[path].size
        if size < HEAD:
            return
        before = file.stat().st_mtime_ns
        self._gone(path)
        with file.open("r+b", buffering=0) as opened:
            opened.write(self._new(size - HEAD))
        os.utime(file, ns=(before, before))
        self._closed(path)

    def _in_pieces(self, write: Callable[[bytes], object], body: bytes) -> None:
        step = max(1, len(body) // self._chance.randint(1, 6))
        for at in range(0, len(body), step):
            write(body[at : at + step])
            time.sleep(self._chance.choice((0.0, 0.001, 0.01, 0.04)))

    def _replace(self, path: str = "") -> None:
        """As editors do it: a file beside it, renamed over it."""
        path = path or self._path()
        file, beside = self._place(path), f"{path}.new"
        self._write(beside)
        self._move(beside, path, file)

    def _move(self, old: str, new: str, file: Path) -> None:
        self._gone(new)
        moved = self._gone(old)
        (self._root / old).rename(file)
        if moved is not None:
            self._stands(new, moved.digest, moved.size)

    def _append(self) -> None:
        path = f"log/l{self._chance.randrange(2)}"
        file = self._place(path)
        standing = self._files.get(path)
        if standing is not None and standing.size > LOG_FULL:
            self._move(path, path + ".1", self._root / (path + ".1"))
        before = file.read_bytes() if path in self._files else b""
        self._gone(path)
        with file.open("ab", buffering=0) as opened:
            opened.write(frame(next(self._numbers), self._chance.choice((50, 500, 4000)), before))
        self._closed(path)

    def _hot(self) -> None:
        path = f"hot/h{self._chance.randrange(3)}"
        hows: list[Callable[[str], None]] = [self._write, self._write_slowly, self._replace]
        if path in self._files:
            hows.append(self._rewrite)
        self._chance.choice(hows)(path)

    def _big(self) -> None:
        path = f"big/b{self._chance.randrange(2)}"
        how: Callable[[str, bytes], None] = self._write
        how(path, self._new(self._chance.randint(9, 20) * 1024 * 1024))

    # What else happens to files

    def _touch(self) -> None:
        path = self._any()
        if path is not None:
            when = self._chance.randrange(10**9, 2 * 10**9) * 10**9 + self._chance.randrange(10**9)
            os.utime(self._root / path, ns=(when, when))

    def _chmod(self) -> None:
        path = self._any()
        if path is not None:
            (self._root / path).chmod(self._chance.choice((0o600, 0o640, 0o644, 0o664, 0o755)))

    def _rename(self) -> None:
        old = self._any()
        if old is None:
            return
        new = self._path("e" if may_be_empty(old) else "f")
        if new != old:
            self._move(old, new, self._place(new))

    def _remove(self) -> None:
        path = self._any()
        if path is not None:
            self._gone(path)
            (self._root / path).unlink()

    # What happens to directories

    def _remove_folder(self) -> None:
        """And make it again at once, with fewer files."""
        folder = self._folder()
        if not (self._root / folder).is_dir():
            return
        for path in self._below(folder):
            self._gone(path)
        shutil.rmtree(self._root / folder)
        for number in range(3):
            self._write(f"{folder}/f{number:02}")

    def _rename_folder(self) -> None:
        """To the name of another one, which is away or gives its own name in return."""
        old, new = self._top(self._folder()), "d6"
        if not (self._root / old).is_dir() or self._chance.random() < 0.5:
            return
        # Twice, quickly: a late event must not be taken for one of the path that is there now.
        self._move_folder(self._root / old, self._root / new, old, new)
        self._move_folder(self._root / new, self._root / old, new, old)

    def _move_folder(self, old: Path, new: Path, before: str, after: str) -> None:
        moved = [self._gone(path) for path in self._below(before)]
        old.rename(new)
        for holding in moved:
            if holding is not None:
                self._stands(after + holding.path[len(before) :], holding.digest, holding.size)

    def _move_away(self) -> None:
        """Out of what is watched; there it is edited."""
        folder = self._top(self._folder())
        if len(self._away) > 1 or not (self._root / folder).is_dir():
            return
        paths = self._below(folder)
        for path in paths:
            self._gone(path)
        (self._root / folder).rename(self._aside / folder)
        self._away[folder] = paths
        if paths:
            (self._aside / self._chance.choice(paths)).write_bytes(self._body())

    def _move_back(self) -> None:
        if not self._away:
            return
        folder = self._chance.choice(sorted(self._away))
        (self._aside / folder).rename(self._root / folder)
        for path in self._away.pop(folder):
            self._appeared(path)
        if self._chance.random() < 0.5:
            self._rewrite(self._any() or "")

    def _burst(self) -> None:
        """More events than the kernel's queue holds.

        Files follow that no event reports any more, nor one of their directory.
        """
        for path in self._below("burst"):
            self._gone(path)
            (self._root / path).unlink()
        noisy = [self._place(f"burst/noise{number}") for number in range(2)]
        for file in noisy:
            self._write(str(file.relative_to(self._root)))
        for _ in range(NOISE * _queue_length() // 2):
            for file in noisy:
                os.utime(file)
        for number in range(self._chance.randrange(100, 250)):
            self._write(f"burst/{number % BURSTING}/f{number:03}")


# Weights; HOT_EVERY and BIG_EVERY are the others' pace.
_STEPS = {
    "_write": 22,
    "_write_slowly": 8,
    "_write_empty": 2,
    "_rewrite": 10,
    "_rewrite_stealthily": 2,
    "_replace": 8,
    "_append": 8,
    "_touch": 7,
    "_chmod": 4,
    "_rename": 8,
    "_remove": 8,
    "_remove_folder": 0.4,
    "_rename_folder": 0.4,
    "_move_away": 0.15,
    "_move_back": 0.25,
}


def _queue_length() -> int:
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        return int(file.read())
