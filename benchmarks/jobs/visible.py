"""One change, from the close of the file until its object is there.

syncloud and mc under watch stand beside a bare PUT.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.peers.tools import MC, OURS, SYNCLOUD, Tool, available, environment
from benchmarks.probes.stages import STAGES
from benchmarks.suite.bench import say
from benchmarks.suite.daemons import Daemon, Looker
from benchmarks.suite.measure import Wrong, percentile, spread
from benchmarks.suite.results import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.suite.bench import Bench

CHANGES = 300
SIZE = 1024
BARE = "bare PUT"
PATIENCE = 10.0
"""Seconds after which a change counts as lost."""
_APART = 0.02
"""Seconds between two changes: each finds a daemon at rest."""


class Change(NamedTuple):
    """Of the file `name`, in monotonic seconds."""

    name: str
    closed: float
    seen: float


def one_change(bench: Bench) -> Iterator[Result]:
    """New files, one after the other."""
    changes = bench.files(CHANGES)
    result = Result(f"one change, from close to visible object, {changes} of them")
    taken: dict[str, list[list[float]]] = {}

    def once(tool: Tool, place: Path) -> None:
        each = _under_watch(bench, tool.watch(place / "tree", f"{place.name}/"), place, changes)
        taken.setdefault(tool.name, []).append([change.seen - change.closed for change in each])
        say(f"{tool.name:12} {_shown(taken[tool.name][-1])}")
        if tool is SYNCLOUD:
            taken.setdefault(BARE, []).append(_bare(bench, place, changes))

    bench.in_turn(result, available(SYNCLOUD, MC), once)
    rounds = {name: each for name, each in taken.items() if name not in result.failed}
    result.table = [
        ("", "median ms", "99th percentile ms", "longest ms"),
        *(_row(name, each) for name, each in rounds.items()),
    ]
    for percent, name, bound in ((50, "median", 0.9), (99, "99th percentile", 1.0)):
        ours, theirs = (
            [percentile(one, percent) for one in rounds.get(tool, ())] for tool in (OURS, MC.name)
        )
        result.against(
            f"one change, close to visible object, {name} to {MC.name} --watch's",
            ours,
            theirs,
            bound,
        )
    yield result
    yield _by_stage(bench, changes)


def _by_stage(bench: Bench, changes: int) -> Result:
    """What ours is made of, with a clock at each door."""
    place = bench.fresh("stages")
    _, *arguments = SYNCLOUD.watch(place / "tree", f"{place.name}/")
    each = _under_watch(
        bench, [sys.executable, "-m", "benchmarks.probes.stages", *arguments], place, changes
    )
    told = {
        line["name"]: line
        for line in map(json.loads, (place / "said" / "stdout").read_text().splitlines())
    }
    ways = [
        [change.closed, *(told[change.name][stage] for stage in STAGES), change.seen]
        for change in each
    ]
    slow = sorted(ways, key=lambda way: way[-1] - way[0])[-max(1, changes // 50) :]
    result = Result(
        "one change, by what its time goes for: "
        "syncloud with a clock at each door, which takes time as well"
    )
    result.table = [
        ("until", "median ms", "99th percentile ms", "median ms in the slowest fiftieth")
    ]
    for number, what in enumerate([*STAGES.values(), "the looker sees it"], 1):
        spent, late = (
            [(way[number] - way[number - 1]) * 1000 for way in some] for some in (ways, slow)
        )
        cells = (percentile(spent, 50), percentile(spent, 99), percentile(late, 50))
        result.table.append((what, *(f"{cell:.2f}" for cell in cells)))
    return result


def _under_watch(bench: Bench, argv: Sequence[str], place: Path, changes: int) -> list[Change]:
    tree, prefix = place / "tree", f"{place.name}/"
    tree.mkdir()
    env = environment(bench.store.endpoint, place)
    with Daemon(argv, place, env) as daemon, contextlib.closing(Looker(bench.store)) as looker:
        awake(daemon, looker, tree, prefix)
        taken = []
        for number in range(changes):
            name = f"{number:05}"
            with open(tree / name, "wb") as file:
                file.write(number.to_bytes(4, "big") * (SIZE // 4))
                file.flush()
                closed = time.monotonic()  # before it: afterwards the daemon may have a start on us
            seen = looker.seen(prefix + name, timeout=PATIENCE)
            if seen is None:
                raise Wrong(f"{name} was lost")
            taken.append(Change(name, closed, seen))
            time.sleep(_APART)
        return taken


def awake(daemon: Daemon, looker: Looker, tree: Path, prefix: str) -> None:
    """Until what is written is carried: mc does not say from when on it watches."""
    tries = itertools.count()

    def carried() -> bool:
        name = f"awake-{next(tries)}"
        (tree / name).write_bytes(b"awake")
        return looker.seen(prefix + name, timeout=1) is not None

    daemon.until(carried, "watching")


def _bare(bench: Bench, place: Path, changes: int) -> list[float]:
    """What the store itself needs, until it shows what it was given."""
    with (
        contextlib.closing(Looker(bench.store)) as writer,
        contextlib.closing(Looker(bench.store)) as looker,
    ):
        taken = []
        for number in range(changes):
            key = f"{place.name}-bare/{number:05}"
            started = time.monotonic()
            writer.ask("PUT", key, bytes(SIZE))
            seen = looker.seen(key, timeout=PATIENCE)
            assert seen is not None
            taken.append(seen - started)
            time.sleep(_APART)
        return taken


def _shown(taken: list[float]) -> str:
    return ", ".join(
        f"{percent} %: {percentile(taken, percent) * 1000:.1f} ms" for percent in (50, 99, 100)
    )


def _row(name: str, rounds: list[list[float]]) -> tuple[str, ...]:
    return (
        name,
        *(
            spread([percentile(one, percent) * 1000 for one in rounds], 1)
            for percent in (50, 99, 100)
        ),
    )
