"""The cost of a small file by its parts: the threads of syncloud beside unavoidable bare calls."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import CHECKOUT
from benchmarks.jobs import trees
from benchmarks.peers.tools import S5CMD, SYNCLOUD, environment
from benchmarks.probes.bare import PART
from benchmarks.suite.bench import say
from benchmarks.suite.measure import Wrong, run, spread
from benchmarks.suite.results import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.suite.bench import Bench
    from benchmarks.suite.servers import Store

_MAIN = "hints, decisions, records, signatures (the main thread)"
_WIRE = "requests (awscrt's thread)"
_DISK = "files (the disk's threads)"


def limit(bench: Bench) -> Iterator[Result]:
    """Up and down, 10,000 files of 4 KiB."""
    files = bench.files(10_000)
    source = bench.fresh("source")
    tree, prefix, env = (
        source / "tree",
        f"{source.name}/",
        environment(bench.store.endpoint, source),
    )
    trees.fill(tree, files, 4096)
    run(S5CMD.up(tree, prefix), env)
    up, down = (_Costs(name, files, env, bench.store) for name in ("upload", "download"))
    for _ in range(bench.rounds):
        place = bench.fresh("limit")
        empty, back = place / "empty", place / "back"
        empty.mkdir()
        back.mkdir()
        tree = tree.rename(place / "tree")
        start = run(SYNCLOUD.up(empty, f"{place.name}-none/"), env).cpu
        up.add(SYNCLOUD.up(tree, f"{place.name}/"), S5CMD.up(tree, f"{place.name}-5/"), start)
        up.bare(
            "the requests alone, awscrt's HTTP client",
            "http-put",
            f"{place.name}-b/",
            those="those",
        )
        up.bare("the same by awscrt's S3 client", "s3-put", f"{place.name}-c/")
        what = "the requests with condition, checksum and metadata, awscrt's HTTP client"
        up.bare(what, "promising-put", f"{place.name}-p/", those="those with a condition")
        up.bare("the files alone: open, read, checksum", "read", str(tree))
        down.add(SYNCLOUD.down(prefix, back), S5CMD.down(prefix, place / "back5"), start)
        down.bare("the requests alone, awscrt's HTTP client", "http-get", prefix, those="those")
        down.bare("the same by awscrt's S3 client", "s3-get", prefix)
        down.bare("the files alone: write, sync, rename", "write", str(place))
    yield up.result()
    yield down.result()


def large(bench: Bench, size: int) -> Result:
    """What the bytes of one large file cost at least; s5cmd beside it."""
    place = bench.fresh("large")
    tree, env, parts = (
        place / "tree",
        environment(bench.store.endpoint, place),
        str(max(1, size // PART)),
    )
    trees.fill(tree, 1, size)
    run(S5CMD.up(tree, f"{place.name}/"), env)
    result = Result(f"what a large file costs: {size >> 20:,} MiB", table=[("", "CPU s", "wall s")])
    for what, argv in (
        (
            "bare: upload in parts of 8 MiB by awscrt's HTTP client",
            ["parts-put", parts, f"{place.name}-b/"],
        ),
        ("bare: read it, checksum it", ["read", "1", str(tree)]),
        (
            "bare: download in parts of 8 MiB by awscrt's HTTP client, kept nowhere",
            ["parts-get", parts, _first(place)],
        ),
        (
            "bare: download by awscrt's S3 client, all of it in C, written, not synced",
            ["file", "1", _first(place)],
        ),
        ("bare: write it, sync it", ["write-large", parts, str(place)]),
    ):
        _note(result, what, [_bare(argv, env) for _ in range(bench.rounds)])
    back = [
        run(S5CMD.down(f"{place.name}/", place / f"back{number}"), env)
        for number in range(bench.rounds)
    ]
    _note(result, "s5cmd: download, written, not synced", [(one.cpu, one.wall) for one in back])
    shutil.rmtree(place)
    return result


def _note(result: Result, what: str, spent: list[tuple[float, float]]) -> None:
    result.table.append((what, *(spread(list(seconds)) for seconds in zip(*spent, strict=True))))


def _first(place: Path) -> str:
    return f"{place.name}/00000/0000000"


def _bare(arguments: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
    """CPU seconds, wall seconds. Raises Wrong."""
    argv = [sys.executable, "-m", "benchmarks.probes.bare", *arguments]
    done = subprocess.run(
        argv, env={**env, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Wrong(f"{' '.join(argv)}: {done.stderr}")
    cpu, wall = map(float, done.stdout.split())
    return cpu, wall


class _Costs:
    """Microseconds of CPU for each file, by what they go for."""

    def __init__(self, name: str, files: int, env: Mapping[str, str], store: Store) -> None:
        self._name, self._files, self._env, self._store = name, files, env, store
        self._of: dict[str, list[float]] = {}

    def add(self, ours: Sequence[str], theirs: Sequence[str], start: float) -> None:
        before = self._store.cpu
        spent = _by_thread(ours, self._env)
        between = self._store.cpu
        self._note("syncloud, all of it", sum(spent.values()))
        self._note("of that: start and end, shared by all files", start)
        spent[_MAIN] -= start
        for what, seconds in spent.items():
            self._note(f"of that: {what}", seconds)
        self._note("s5cmd, all of it", run(theirs, self._env).cpu)
        self._note("the store, asked by syncloud", between - before)
        self._note("the store, asked by s5cmd", self._store.cpu - between)

    def bare(self, what: str, how: str, where: str, *, those: str = "") -> None:
        """`those` names the requests where what they cost the store is of interest."""
        before = self._store.cpu
        cpu, wall = _bare([how, str(self._files), where], self._env)
        self._note(f"bare: {what}", cpu)
        if those:
            self._note(f"the store, asked by {those}", self._store.cpu - before)
            self._note(f"wall: the store is not sooner ready with {those}", wall)

    def _note(self, what: str, seconds: float) -> None:
        self._of.setdefault(what, []).append(seconds / self._files * 1e6)
        say(f"{self._name}: {what}: {self._of[what][-1]:.0f} µs")

    def result(self) -> Result:
        theirs = statistics.median(self._of["s5cmd, all of it"])
        result = Result(f"what a file costs: {self._name} of {self._files:,} x 4 KiB")
        result.table = [("CPU", "µs for each file", "to s5cmd's")]
        for what, each in self._of.items():
            middle = statistics.median(each)
            result.table.append(
                (
                    what,
                    f"{middle:.0f} ({min(each):.0f} to {max(each):.0f})",
                    f"{middle / theirs:.2f}",
                )
            )
        result.notes.append(self._floor("syncloud"))
        result.notes.append(self._floor("s5cmd"))
        return result

    def _floor(self, name: str) -> str:
        """Tool and store share the cores: sooner than that nobody is ready."""
        spent = sum(
            statistics.median(self._of[what])
            for what in (f"{name}, all of it", f"the store, asked by {name}")
        )
        cores = os.cpu_count() or 1
        return (
            f"{cores} cores that do nothing else are busy for {spent / cores:.0f} µs a file "
            f"with {name} and the store."
        )


def _by_thread(argv: Sequence[str], env: Mapping[str, str]) -> dict[str, float]:
    """CPU seconds of a command, by the work of its threads. Raises Wrong.

    A thread's last moments may be missing, so the whole is taken from wait4(2). The main thread,
    which ends last, has the rest.
    """
    process = subprocess.Popen(
        argv, env=dict(env), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    seen: dict[str, tuple[str, float]] = {}
    while True:
        seen.update(_now(process.pid))
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = process.communicate()[1].decode()
    if process.returncode:
        raise Wrong(f"{argv[0]}: exit code {process.returncode}: {said[-2000:]}")
    seen.pop(str(process.pid), None)
    wire = sum(seconds for name, seconds in seen.values() if name.startswith("Aws"))
    disk = sum(seconds for name, seconds in seen.values() if not name.startswith("Aws"))
    return {_MAIN: used.ru_utime + used.ru_stime - wire - disk, _WIRE: wire, _DISK: disk}


def _now(pid: int) -> dict[str, tuple[str, float]]:
    """Name and CPU seconds of each thread, by its number: /proc/PID/task/TID/comm and schedstat."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found[task.name] = (
                (task / "comm").read_text(),
                int((task / "schedstat").read_text().split()[0]) / 1e9,
            )
        except (OSError, IndexError):
            continue  # it has ended
    return found
