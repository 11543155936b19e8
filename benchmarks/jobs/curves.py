"""Growth of the cost with the number of files, of transfers at once, and the size of a file.

`make bench-curves` runs it.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchmarks import CHECKOUT
from benchmarks.jobs import trees
from benchmarks.peers.tools import OURS, S5CMD, SYNCLOUD, environment
from benchmarks.suite.bench import say
from benchmarks.suite.measure import ScanChunk, Wrong, run
from benchmarks.suite.results import Result
from benchmarks.suite.svg import Chart, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.suite.bench import Bench

PLACE = CHECKOUT / "docs" / "benchmarks"
FILES = (1_000, 10_000, 100_000, 1_000_000)
TRANSFERS = (1, 4, 16, 64, 256)
SIZES = (1 << 10, 1 << 15, 1 << 20, 1 << 25, 1 << 30, 10 << 30)
_ENOUGH = 2_000
"""Files with which transfers at once are tried."""


def growth(bench: Bench) -> Iterator[Result]:
    """Three families of curves, each a dated SVG.

    A step that does not fit onto the disk is skipped and reported.
    """
    yield _by_files(bench)
    yield _by_transfers(bench)
    yield _by_size(bench)


def _by_files(bench: Bench) -> Result:
    curves = _Curves("files", "files of 16 bytes")
    for files in map(bench.files, FILES):
        place = bench.fresh("files")
        tree, prefix, env = (
            place / "tree",
            f"{place.name}/",
            environment(bench.store.endpoint, place),
        )
        trees.fill(tree, files, 16)
        curves.add("upload", files, run(SYNCLOUD.up(tree, prefix), env))
        curves.add("nothing to do", files, run(SYNCLOUD.again(tree, prefix), env))
        back = place / "back" / "tree"
        back.mkdir(parents=True)
        curves.add("download", files, run(SYNCLOUD.down(prefix, back), env))
        curves.add("s5cmd sync, nothing to do", files, run(S5CMD.again(tree, prefix), env))
        _require_all(tree, back)
        shutil.rmtree(place)
    return curves.drawn()


def _require_all(one: Path, other: Path) -> None:
    there, back = (sum(path.is_file() for path in tree.rglob("*")) for tree in (one, other))
    if there != back:
        raise Wrong(f"{back} files of {there} came back")


def _by_transfers(bench: Bench) -> Result:
    curves, files = _Curves("transfers", "transfers at once"), bench.files(_ENOUGH)
    place = bench.fresh("transfers")
    trees.fill(place / "tree", files, 4096)
    for transfers in TRANSFERS:
        more = ["--transfers", str(transfers)]
        home = bench.fresh("transfers")
        tree, prefix, env = home / "tree", f"{home.name}/", environment(bench.store.endpoint, home)
        shutil.copytree(place / "tree", tree)
        curves.add(
            f"upload, {files:,} files", transfers, run([*SYNCLOUD.up(tree, prefix), *more], env)
        )
        back = home / "back" / "tree"
        back.mkdir(parents=True)
        curves.add(
            f"download, {files:,} files", transfers, run([*SYNCLOUD.down(prefix, back), *more], env)
        )
        trees.require_down(tree, back)
        shutil.rmtree(home)
    return curves.drawn()


def _by_size(bench: Bench) -> Result:
    curves = _Curves("size", "bytes of one file")
    for size in SIZES:
        size = max(1024, int(size * min(1.0, bench.scale)))
        place = bench.fresh("size")
        if shutil.disk_usage(place).free < 5 * size:
            curves.result.notes.append(
                f"A file of {short(size)}B does not fit onto this disk three times."
            )
            continue
        tree, prefix, env = (
            place / "tree",
            f"{place.name}/",
            environment(bench.store.endpoint, place),
        )
        trees.fill(tree, 1, size)
        curves.add("upload", size, run(SYNCLOUD.up(tree, prefix), env))
        back = place / "back" / "tree"
        back.mkdir(parents=True)
        curves.add("download", size, run(SYNCLOUD.down(prefix, back), env))
        trees.require_down(tree, back)
        shutil.rmtree(place)
    return curves.drawn()


class _Curves:
    """Runs over one quantity, as charts of seconds and of memory."""

    def __init__(self, name: str, what: str) -> None:
        self._name, self._what = name, what
        self._runs: dict[str, list[tuple[float, ScanChunk]]] = {}
        self.result = Result(
            f"growth with {what}", table=[("", what, "wall s", "CPU s", "peak MB")]
        )

    def add(self, line: str, at: float, done: ScanChunk) -> None:
        self._runs.setdefault(line, []).append((at, done))
        row = (line, f"{at:,.0f}", f"{done.wall:.2f}", f"{done.cpu:.2f}", f"{done.peak / 1e6:.0f}")
        self.result.table.append(row)
        say(", ".join(row))

    def drawn(self) -> Result:
        PLACE.mkdir(parents=True, exist_ok=True)
        for what, unit, value in _SHOWN:
            chart = Chart(f"{OURS}: {what} by {self._what}", self._what, unit)
            chart.lines = {
                name: [(at, value(done)) for at, done in runs] for name, runs in self._runs.items()
            }
            path = PLACE / f"{datetime.now(UTC):%Y-%m-%d}-{self._name}-{what}.svg"
            path.write_text(chart.svg())
            self.result.notes.append(f"Drawn: {path.relative_to(CHECKOUT)}.")
        return self.result


_SHOWN: Sequence[tuple[str, str, Callable[[ScanChunk], float]]] = (
    ("time", "wall seconds", lambda done: done.wall),
    ("memory", "peak MB", lambda done: done.peak / 1e6),
)
