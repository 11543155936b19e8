"""Whole commands in turn, A B A B: uploads, downloads, nothing to do, a large file.

Each job gives the ratio to the peer of its target.
"""

from __future__ import annotations

import contextlib
import statistics
from typing import TYPE_CHECKING

from benchmarks.jobs import limit, trees
from benchmarks.peers.tools import (
    AWS,
    MC,
    OURS,
    RCLONE,
    S5CMD,
    SYNCLOUD,
    Tool,
    available,
    environment,
)
from benchmarks.suite import asked
from benchmarks.suite.measure import ScanChunk, run
from benchmarks.suite.results import Result
from benchmarks.suite.servers import Slow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.suite.bench import Bench
    from benchmarks.suite.job import Job


class Upload:
    """A directory into an empty prefix."""

    repeated = False

    def __init__(self, bench: Bench, files: int, size: int) -> None:
        self._store = bench.store
        self._source = bench.fresh("source") / "tree"
        trees.fill(self._source, files, size)

    def once(self, tool: Tool, place: Path, endpoint: str) -> ScanChunk:
        with _at(self._source, place) as tree:
            done = run(tool.up(tree, f"{place.name}/"), environment(endpoint, place))
            trees.require_up(self._store, f"{place.name}/", tree)
            return done


class Download:
    """A prefix into an empty directory."""

    repeated = False

    def __init__(self, bench: Bench, files: int, size: int) -> None:
        place = bench.fresh("source")
        self._source, self._prefix = place / "tree", f"{place.name}/"
        trees.fill(self._source, files, size)
        run(S5CMD.up(self._source, self._prefix), environment(bench.store.endpoint, place))

    def once(self, tool: Tool, place: Path, endpoint: str) -> ScanChunk:
        target = place / "tree"
        target.mkdir()
        done = run(tool.down(self._prefix, target), environment(endpoint, place))
        trees.require_down(self._source, target)
        return done


class Nothing:
    """The command for an upload once more, when everything has been carried."""

    repeated = True

    def __init__(self, bench: Bench, files: int, size: int) -> None:
        self._home = bench.fresh("source")
        self._source, self._prefix = self._home / "tree", f"{self._home.name}/"
        trees.fill(self._source, files, size)
        run(SYNCLOUD.up(self._source, self._prefix), environment(bench.store.endpoint, self._home))
        trees.require_up(bench.store, self._prefix, self._source)

    def once(self, tool: Tool, place: Path, endpoint: str) -> ScanChunk:
        # At home: that is where syncloud has its memory of this tree.
        return run(tool.again(self._source, self._prefix), environment(endpoint, self._home))


def measured(
    bench: Bench,
    job: type[Upload | Download | Nothing],
    title: str,
    files: int,
    size: int,
    tools: Sequence[Tool],
) -> Result:
    """Run each tool on `files` files of `size` bytes.

    An untimed run of at most `asked.FILES` files counts the requests of each tool.
    """
    result = Result(title)
    timed, present = job(bench, files, size), available(*tools)
    bench.in_turn(
        result, present, lambda tool, place: timed.once(tool, place, bench.store.endpoint)
    )
    counted = job(bench, min(files, asked.FILES), size)
    asked.by_each(
        bench, result, counted, [tool for tool in present if tool.name not in result.failed]
    )
    return result


@contextlib.contextmanager
def _at(tree: Path, place: Path) -> Iterator[Path]:
    """The same tree under a name of its own. syncloud remembers carried files by directory."""
    moved = place / "tree"
    tree.rename(moved)
    try:
        yield moved
    finally:
        moved.rename(tree)


# The bars


def small_files(bench: Bench) -> Iterator[Result]:
    """10,000 files of 4 KiB, up, down, and nothing to do."""
    yield from _small(bench, bench.files(10_000), [SYNCLOUD, S5CMD, RCLONE, MC])


def quick(bench: Bench) -> Iterator[Result]:
    """What three minutes can tell."""
    yield from _small(bench, bench.files(2_000), [SYNCLOUD, S5CMD, MC])


def _small(bench: Bench, files: int, tools: Sequence[Tool]) -> Iterator[Result]:
    what = f"upload of {files:,} files"
    up = measured(bench, Upload, f"upload, {files:,} x 4 KiB", files, 4096, tools)
    up.bar(what, S5CMD.name, 0.9)
    up.bar(what, S5CMD.name, 0.7, of="cpu")
    yield up
    what = f"download of {files:,} files, durable"
    down = measured(bench, Download, f"download, {files:,} x 4 KiB", files, 4096, tools)
    down.bar(what, S5CMD.name, 0.9)
    down.bar(what, S5CMD.name, 0.8, of="cpu")
    yield down
    still = measured(bench, Nothing, f"nothing to do, {files:,} files", files, 4096, tools)
    still.bar(f"nothing to do, {files:,} files", MC.name, 1.0)
    still.never("nothing to do, LIST requests", "List")
    yield still


def slow_store(bench: Bench) -> Iterator[Result]:
    """The same on a store that is 50 ms away."""
    files = bench.files(10_000)
    with Slow(bench.store, 50, bench.fresh("slow")) as far:
        yield _far(bench, "upload", Upload(bench, files, 4096), files, far.endpoint)
        yield _far(bench, "download", Download(bench, files, 4096), files, far.endpoint)


def _far(bench: Bench, name: str, job: Job, files: int, endpoint: str) -> Result:
    result = Result(f"{name}, {files:,} x 4 KiB, 50 ms away")
    bench.in_turn(
        result, available(SYNCLOUD, S5CMD), lambda tool, place: job.once(tool, place, endpoint)
    )
    result.bar(f"{name} of {files:,} files, 50 ms away", S5CMD.name, 0.9)
    return result


def large_file(bench: Bench) -> Iterator[Result]:
    """One file of 1 GiB."""
    size = int((1 << 30) * bench.scale)
    for name, kind in (("upload", Upload), ("download", Download)):
        title = f"{name}, one file of {size >> 20:,} MiB"
        result = measured(bench, kind, title, 1, size, [SYNCLOUD, S5CMD, RCLONE, AWS])
        walls = {
            peer: statistics.median(one.wall for one in runs)
            for peer, runs in result.runs.items()
            if peer != OURS
        }
        best = min(walls, key=walls.__getitem__, default=S5CMD.name)
        result.bar(f"{title}, the best peer", best, 1.0)
        result.bar(title, S5CMD.name, 0.5, of="cpu")
        result.memory(title, result.peaks(), 256)
        yield result
    yield limit.large(bench, size)
