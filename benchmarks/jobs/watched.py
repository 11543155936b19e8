"""What a daemon does under watch: a burst of files, a file that is hot, and nothing at all."""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.jobs import trees
from benchmarks.jobs.visible import awake
from benchmarks.peers.tools import MC, SYNCLOUD, Tool, available, environment
from benchmarks.probes import wake
from benchmarks.suite.asked import shown
from benchmarks.suite.bench import say
from benchmarks.suite.daemons import Daemon, Looker, moment
from benchmarks.suite.measure import ScanChunk, Wrong, cpu_of, exact_cpu_of, memory_of, run, spread
from benchmarks.suite.results import Bar, Result
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.suite.bench import Bench

BURST = 10_000
WRITES, SECONDS = 1_000, 10.0
IDLE, SPELL, SPELLS = 100_000, 40.0, 3
"""Files, and seconds of which the median is taken: one may be five times as dear as the others."""
_QUIET = 10.0
"""Seconds without a new object after which a tool without log lines is taken as finished."""
ONCE = Tool("push --once", SYNCLOUD.up, SYNCLOUD.down)


def burst(bench: Bench) -> Iterator[Result]:
    """`cp -r` into the watched directory, until the last object.

    The same tree by a single pass follows.
    """
    files = bench.files(BURST)
    result = Result(f"burst, {files:,} files of 4 KiB by cp -r under watch, until the last object")
    source = bench.fresh("source") / "tree"
    trees.fill(source, files, 4096)

    def once(tool: Tool, place: Path) -> ScanChunk:
        if tool is not ONCE:
            return _burst(bench, tool, place, source, files)
        subprocess.run(["cp", "-r", str(source), str(place / "tree")], check=True)
        done = run(
            tool.up(place / "tree", f"{place.name}/"), environment(bench.store.endpoint, place)
        )
        trees.require_up(bench.store, f"{place.name}/", place / "tree")
        return done

    bench.in_turn(result, available(SYNCLOUD, ONCE, MC), once)
    result.bar(f"burst of {files:,} files", ONCE.name, 1.3)
    yield result


def _burst(bench: Bench, tool: Tool, place: Path, source: Path, files: int) -> ScanChunk:
    tree, prefix = place / "tree", f"{place.name}/"
    tree.mkdir()
    with Daemon(
        tool.watch(tree, prefix), place, environment(bench.store.endpoint, place)
    ) as daemon:
        looker = Looker(bench.store)
        awake(daemon, looker, tree, prefix)
        before, known = cpu_of(daemon.pid), len(daemon.events("push.uploaded"))
        started = time.time()
        subprocess.run(["cp", "-r", str(source), str(tree)], check=True)
        if tool is SYNCLOUD:
            # What is measured has the cores to itself: when the last one came its event says.
            daemon.wait("push.uploaded", count=known + files, timeout=600, pause=1.0)
            ended = max(map(moment, daemon.events("push.uploaded")))
        else:
            ended = _settled(bench, f"{prefix}{source.name}/", files)
        used = ScanChunk(ended - started, cpu_of(daemon.pid) - before, memory_of(daemon.pid))
        trees.require_up(bench.store, f"{prefix}{source.name}/", source)
        return used


def _settled(bench: Bench, prefix: str, files: int) -> float:
    """When the last object was seen to have come."""
    count, at = -1, time.time()
    while count < files and time.time() - at < _QUIET:
        now = len(bench.store.listing(prefix))
        if now > count:
            count, at = now, time.time()
        time.sleep(0.2)
    if count < files:
        raise Wrong(f"lost {files - count:,} of {files:,} files")
    return at


def hot_file(bench: Bench) -> Iterator[Result]:
    """One file, written anew a hundred times a second."""
    result = Result(f"hot file, {WRITES:,} writes in {SECONDS:.0f} s")
    uploads: list[int] = []

    def once(tool: Tool, place: Path) -> None:
        uploads.append(_heat(bench, tool, place))
        say(f"{tool.name:12} {uploads[-1]} uploads")

    bench.in_turn(result, [SYNCLOUD], once)
    if uploads:
        result.bars.append(
            Bar(
                f"hot file, uploads of {WRITES:,} writes in {SECONDS:.0f} s",
                max(uploads),
                11,
                spread(uploads, 0),
            )
        )
    yield result


def _heat(bench: Bench, tool: Tool, place: Path) -> int:
    tree, prefix = place / "tree", f"{place.name}/"
    tree.mkdir()
    with (
        Recorder(bench.store.endpoint) as recorder,
        Daemon(tool.watch(tree, prefix), place, environment(recorder.endpoint, place)) as daemon,
    ):
        daemon.wait("reconcile.finished")
        recorder.reset()
        started = time.monotonic()
        for number in range(WRITES):
            (tree / "hot").write_bytes(f"{number:0100}".encode())
            time.sleep(max(0.0, started + (number + 1) * SECONDS / WRITES - time.monotonic()))
        looker = Looker(bench.store)
        daemon.until(
            lambda: looker.get("GET", f"{prefix}hot")[1] == (tree / "hot").read_bytes(),
            "the last write",
        )
        time.sleep(2)
        if looker.get("GET", f"{prefix}hot")[1] != f"{WRITES - 1:0100}".encode():
            raise Wrong("the object does not hold the last write")
        return recorder.counts()["s3", "PutObject"]


def idle(bench: Bench) -> Iterator[Result]:
    """Nothing happens to many files that are watched."""
    files, seconds = bench.files(IDLE), max(5.0, SPELL * min(1.0, bench.scale * 10))
    result = Result(f"idle, {files:,} files watched, for {SPELLS} times {seconds:.0f} s")
    place = bench.fresh("idle")
    tree, prefix = place / "tree", f"{place.name}/"
    trees.fill(tree, files, 16)
    run(SYNCLOUD.up(tree, prefix), environment(bench.store.endpoint, place))
    with (
        Recorder(bench.store.endpoint) as recorder,
        Daemon(
            SYNCLOUD.watch(tree, prefix), place, environment(recorder.endpoint, place)
        ) as daemon,
    ):
        daemon.wait("reconcile.finished", timeout=600)
        time.sleep(10)
        recorder.reset()
        shares = [_share(daemon.pid, seconds) for _ in range(SPELLS)]
        now, peak, counts = (
            memory_of(daemon.pid, "VmRSS") / 1e6,
            memory_of(daemon.pid) / 1e6,
            recorder.counts(),
        )
    what = f"idle, {files:,} files watched"
    result.bars = [
        Bar(
            f"{what}, CPU in per cent of a core", statistics.median(shares), 0.1, spread(shares, 3)
        ),
        Bar(f"{what}, memory in MB", now, 100, f"{now:.0f}"),
        Bar(f"{what}, S3 requests", counts.total(), 0, shown(counts)),
    ]
    result.notes.append(f"The most memory it had had since its start: {peak:.0f} MB.")
    result.notes.append(wake.told())
    yield result


def _share(pid: int, seconds: float) -> float:
    """What a process uses of a core from now on, in per cent."""
    before = exact_cpu_of(pid)
    time.sleep(seconds)
    return (exact_cpu_of(pid) - before) / seconds * 100
