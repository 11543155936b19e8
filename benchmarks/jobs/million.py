"""A million files: nothing to do, and the start of a daemon that watches them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.jobs import trees
from benchmarks.peers.tools import FIND, S5CMD, SYNCLOUD, Tool, available, environment, state_of
from benchmarks.suite.bench import say
from benchmarks.suite.daemons import Daemon, moment
from benchmarks.suite.measure import ScanChunk, Wrong, cpu_of, memory_of, run, spread
from benchmarks.suite.results import Result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.suite.bench import Bench

FILES = 1_000_000
ROUNDS = 2
"""s5cmd alone needs minutes for each."""
_SETTLE = 3.0
"""Seconds after the first listing: the watch is looked over meanwhile, which takes memory too."""


def million(bench: Bench) -> Iterator[Result]:
    """In 10,000 directories. They are uploaded once, which is a figure by itself."""
    files = bench.files(FILES)
    place = bench.fresh("million")
    tree, prefix, env = place / "tree", f"{place.name}/", environment(bench.store.endpoint, place)
    trees.fill(tree, files, 16)
    first = Result(
        f"upload, {files:,} x 16 bytes in {files // 100:,} directories, once",
        {SYNCLOUD.name: [run(SYNCLOUD.up(tree, prefix), env)]},
    )
    trees.require_up(bench.store, prefix, tree, contents=False)
    yield first
    yield _nothing(bench, tree, prefix, env, files)
    yield _start(bench, tree, prefix, env, files)


def _nothing(bench: Bench, tree: Path, prefix: str, env: dict[str, str], files: int) -> Result:
    what = f"nothing to do, {files:,} files"
    result = Result(f"{what} in {files // 100:,} directories")
    bench.in_turn(
        result,
        available(FIND, SYNCLOUD, S5CMD),
        lambda tool, place: run(tool.again(tree, prefix), env),
        rounds=ROUNDS,
    )
    result.bar(what, FIND.name, 6.0)
    result.bar(what, S5CMD.name, 0.2)
    result.memory(what, result.peaks(), 150)
    return result


def _start(bench: Bench, tree: Path, prefix: str, env: dict[str, str], files: int) -> Result:
    what = f"start with {files:,} files watched"
    result = Result(f"{what}, until everything was looked at")
    ready: list[float] = []
    looked: list[float] = []
    cpu: list[float] = []
    parts: list[dict[str, Any]] = []

    def once(tool: Tool, place: Path) -> ScanChunk:
        if tool is FIND:
            return run(tool.again(tree, prefix), env)
        parts.append(_parts(tree, env))
        with Daemon(tool.watch(tree, prefix), place, env) as daemon:
            listed = daemon.wait("reconcile.finished", timeout=900)
            told = daemon.wait("service.ready")
            used = cpu_of(daemon.pid)
            time.sleep(_SETTLE)
            if listed["count"] != files or daemon.events("push.uploaded"):
                raise Wrong(
                    f"{listed['count']} files were seen, "
                    f"{len(daemon.events('push.uploaded'))} uploaded"
                )
            ready.append(moment(told) - daemon.started_at)
            looked.append(listed["duration_ms"] / 1000)
            cpu.append(cpu_of(daemon.pid))
            return ScanChunk(moment(listed) - daemon.started_at, used, memory_of(daemon.pid))

    bench.in_turn(result, [FIND, SYNCLOUD], once, rounds=ROUNDS)
    if result.failed:
        return result
    find = [one.wall for one in result.runs[FIND.name]]
    result.against(f"{what}, ready, wall to {FIND.name}'s", ready, find, 6.0)
    result.bar(f"{what}, everything looked at", FIND.name, 6.0)
    result.memory(what, result.peaks(), 150)
    result.table = [
        ("of the start", "seconds"),
        ("until ready (imports, state, arming)", spread(ready)),
        (
            "the first listing, as the daemon says (scan and comparison, beside its other threads)",
            spread(looked),
        ),
        (f"CPU of the daemon until {_SETTLE:.0f} s after that", spread(cpu)),
        *(
            (f"{name} by itself", spread([one[key] for one in parts]))
            for key, name in _NAMES.items()
        ),
    ]
    return result


_NAMES = {
    "import": "imports",
    "arm": "arming",
    "scan": "scan",
    "compare": "comparison with the state",
}


def _parts(tree: Path, env: dict[str, str]) -> dict[str, Any]:
    argv = [sys.executable, "-m", "benchmarks.probes.parts", str(tree), str(state_of(tree))]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(f"the parts by themselves: {done.stderr[-1000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    say(f"parts: {told}")
    return told
