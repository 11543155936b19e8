"""Whole commands in turn, A B A B: uploads, downloads, nothing to do, a large file; and the ratio to the peer of the bar."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import trees
from benchmarks.measure import Ratio, Run, Wrong, run
from benchmarks.servers import Slow
from benchmarks.tools import AWS, MC, RCLONE, S5CMD, SYNCLOUD, Tool, available, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.servers import Store


@dataclass(slots=True)
class Bar:
    """What was measured against what was promised: `value` at most `bound`."""

    what: str
    value: float
    bound: float
    shown: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.bound


@dataclass(slots=True)
class Result:
    """One job: the runs of each tool, what failed, the bars, and notes."""

    job: str
    runs: dict[str, list[Run]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def bar(self, what: str, peer: str, bound: float, *, of: str = "wall") -> None:
        """That syncloud's median is at most `bound` times that of `peer`; without the peer there is no bar."""
        if not (self.runs.get(SYNCLOUD.name) and self.runs.get(peer)):
            self.notes.append(f"{what}: {peer} is missing here")
            return
        ours, theirs = ([getattr(one, of) for one in self.runs[name]] for name in (SYNCLOUD.name, peer))
        ratio = Ratio.of(ours, theirs)
        self.bars.append(Bar(f"{what}, {of} to {peer}'s", ratio.middle, bound, str(ratio)))


@dataclass(slots=True)
class Bench:
    """Where it takes place. `rounds` times each tool; `work` is on the disk that is to be measured."""

    store: Store
    work: Path
    rounds: int
    _count: int = 0

    def fresh(self, name: str) -> Path:
        """A new place for a directory and what belongs to it."""
        self._count += 1
        made = self.work / f"{self._count:03}-{name.replace(' ', '-')}"
        made.mkdir()
        return made

    def in_turn(self, result: Result, tools: Sequence[Tool], once: Callable[[Tool, Path], Run]) -> None:
        """A B A B; who fails once is out, and said."""
        for _ in range(self.rounds):
            for tool in tools:
                if tool.name in result.failed:
                    continue
                place = self.fresh(tool.name)
                try:
                    done = once(tool, place)
                except Wrong as wrong:
                    result.failed[tool.name] = str(wrong)
                    result.runs.pop(tool.name, None)
                else:
                    result.runs.setdefault(tool.name, []).append(done)
                    print(f"    {tool.name:12} {done.wall:7.2f} s wall {done.cpu:7.2f} s cpu {done.peak >> 20:5} MiB", flush=True)
                shutil.rmtree(place)


def upload(bench: Bench, files: int, size: int, tools: Sequence[Tool], *, endpoint: str = "", job: str = "") -> Result:
    """A directory into an empty prefix."""
    result = Result(job or f"upload, {files:,} x {_bytes(size)}")
    source = bench.fresh("source") / "tree"
    trees.fill(source, files, size)

    def once(tool: Tool, place: Path) -> Run:
        with _at(source, place) as tree:
            env = environment(endpoint or bench.store.endpoint, place)
            done = run(tool.up(tree, f"{place.name}/"), env)
            trees.require_up(bench.store, f"{place.name}/", tree)
            return done

    bench.in_turn(result, available(*tools), once)
    return result


def download(bench: Bench, files: int, size: int, tools: Sequence[Tool], *, endpoint: str = "", job: str = "") -> Result:
    """A prefix into an empty directory."""
    result = Result(job or f"download, {files:,} x {_bytes(size)}")
    place = bench.fresh("source")
    source, prefix = place / "tree", f"{place.name}/"
    trees.fill(source, files, size)
    run(S5CMD.up(source, prefix), environment(bench.store.endpoint, place))

    def once(tool: Tool, place: Path) -> Run:
        target = place / "tree"
        target.mkdir()
        done = run(tool.down(prefix, target), environment(endpoint or bench.store.endpoint, place))
        trees.require_down(source, target)
        return done

    bench.in_turn(result, available(*tools), once)
    return result


def nothing(bench: Bench, files: int, size: int, tools: Sequence[Tool]) -> Result:
    """The same command once more, when everything has been carried."""
    result = Result(f"nothing to do, {files:,} files")
    source = bench.fresh("source") / "tree"
    trees.fill(source, files, size)
    prefix = f"{source.parent.name}/"
    env = environment(bench.store.endpoint, source.parent)
    run(SYNCLOUD.up(source, prefix), env)

    def once(tool: Tool, place: Path) -> Run:
        return run(tool.again(source, prefix), env)

    bench.in_turn(result, available(*tools), once)
    trees.require_up(bench.store, prefix, source)
    return result


@contextlib.contextmanager
def _at(tree: Path, place: Path) -> Iterator[Path]:
    """The same tree under a name of its own: syncloud remembers what it carried, by the directory."""
    moved = place / "tree"
    tree.rename(moved)
    try:
        yield moved
    finally:
        moved.rename(tree)


def _bytes(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} bytes"


# The bars


def small_files(bench: Bench) -> Iterator[Result]:
    """10,000 files of 4 KiB, up, down, and nothing to do."""
    up = upload(bench, 10_000, 4096, [SYNCLOUD, S5CMD, RCLONE, MC])
    up.bar("upload of 10,000 files", S5CMD.name, 0.9)
    up.bar("upload of 10,000 files", S5CMD.name, 0.7, of="cpu")
    yield up
    down = download(bench, 10_000, 4096, [SYNCLOUD, S5CMD, RCLONE, MC])
    down.bar("download of 10,000 files, durable", S5CMD.name, 0.9)
    down.bar("download of 10,000 files, durable", S5CMD.name, 0.8, of="cpu")
    yield down
    still = nothing(bench, 10_000, 4096, [SYNCLOUD, MC, S5CMD, RCLONE])
    still.bar("nothing to do, 10,000 files", MC.name, 1.0)
    yield still


def slow_store(bench: Bench) -> Iterator[Result]:
    """The same on a store that is 50 ms away."""
    with Slow(bench.store, 50, bench.fresh("slow")) as far:
        up = upload(bench, 10_000, 4096, [SYNCLOUD, S5CMD], endpoint=far.endpoint, job="upload, 10,000 x 4 KiB, 50 ms away")
        up.bar("upload of 10,000 files, 50 ms away", S5CMD.name, 0.9)
        yield up
        job = "download, 10,000 x 4 KiB, 50 ms away"
        down = download(bench, 10_000, 4096, [SYNCLOUD, S5CMD], endpoint=far.endpoint, job=job)
        down.bar("download of 10,000 files, 50 ms away", S5CMD.name, 0.9)
        yield down


def large_file(bench: Bench) -> Iterator[Result]:
    """One file of 1 GiB."""
    for job in (upload, download):
        result = job(bench, 1, 1 << 30, [SYNCLOUD, S5CMD, RCLONE, AWS])
        peers = {name: sorted(one.wall for one in runs) for name, runs in result.runs.items() if name != SYNCLOUD.name}
        if peers:
            best = min(peers, key=lambda name: peers[name][len(peers[name]) // 2])
            result.bar(f"{result.job}, the best peer", best, 1.0)
        result.bar(result.job, S5CMD.name, 0.5, of="cpu")
        ours = result.runs.get(SYNCLOUD.name)
        if ours:
            peak = max(one.peak for one in ours) >> 20
            result.bars.append(Bar(f"{result.job}, peak memory in MiB", peak, 256, f"{peak}"))
        yield result


def quick(bench: Bench) -> Iterator[Result]:
    """What three minutes can tell."""
    up = upload(bench, 2_000, 4096, [SYNCLOUD, S5CMD])
    up.bar("upload of 2,000 files", S5CMD.name, 0.9)
    up.bar("upload of 2,000 files", S5CMD.name, 0.7, of="cpu")
    yield up
    down = download(bench, 2_000, 4096, [SYNCLOUD, S5CMD])
    down.bar("download of 2,000 files, durable", S5CMD.name, 0.9)
    down.bar("download of 2,000 files, durable", S5CMD.name, 0.8, of="cpu")
    yield down
    still = nothing(bench, 2_000, 4096, [SYNCLOUD, MC])
    still.bar("nothing to do, 2,000 files", MC.name, 1.0)
    yield still
