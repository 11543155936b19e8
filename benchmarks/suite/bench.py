"""Where the jobs take place, and how they take turns."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.suite.measure import ScanChunk, Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.peers.tools import Tool
    from benchmarks.suite.results import Result
    from benchmarks.suite.servers import Store


SMALL = 100_000_000
"""Bytes of a tree that may stay for a while."""


@dataclass(slots=True)
class Bench:
    """A bench that gives each tool `rounds` turns.

    `work` is on the measured disk; `scale` makes every job smaller, to try it.
    """

    store: Store
    work: Path
    rounds: int
    scale: float = 1.0
    _count: int = 0

    def files(self, count: int) -> int:
        return max(10, int(count * self.scale))

    def fresh(self, name: str) -> Path:
        """A new place for a directory and what belongs to it."""
        self._count += 1
        made = self.work / f"{self._count:03}-{name.replace(' ', '-')}"
        made.mkdir()
        return made

    def in_turn(
        self,
        result: Result,
        tools: Sequence[Tool],
        once: Callable[[Tool, Path], ScanChunk | None],
        *,
        rounds: int = 0,
    ) -> None:
        """Run the tools A B A B; a tool that fails once is out, and reported.

        A run that has its figures elsewhere gives None.

        Small trees stay until all jobs are over. For minutes ext4 passes over every inode that was
        just deleted (`recently_deleted` in the kernel's fs/ext4/ialloc.c). The next files made
        would pay for that. Pages that a run has left to the page cache are on the disk before the
        next clock starts, so no run pays for another.
        """
        for _ in range(rounds or self.rounds):
            for tool in tools:
                if tool.name in result.failed:
                    continue
                place = self.fresh(tool.name)
                os.sync()
                try:
                    done = once(tool, place)
                except (Wrong, AssertionError) as wrong:
                    result.failed[tool.name] = str(wrong) or repr(wrong)
                    result.runs.pop(tool.name, None)
                    say(f"{tool.name:12} FAILED {wrong}")
                else:
                    if done is not None:
                        result.runs.setdefault(tool.name, []).append(done)
                        say(
                            f"{tool.name:12} {done.wall:7.2f} s wall {done.cpu:7.2f} s cpu "
                            f"{done.peak / 1e6:5.0f} MB"
                        )
                if _size(place) > SMALL:
                    shutil.rmtree(place, ignore_errors=True)


def _size(place: Path) -> int:
    return sum(file.lstat().st_size for file in place.rglob("*"))


def say(text: str) -> None:
    """For people who wait."""
    print(f"    {text}", flush=True)
