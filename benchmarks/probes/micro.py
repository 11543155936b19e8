"""Instructions of the inner loops, for each item."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from benchmarks import CHECKOUT
from benchmarks.probes import instructions as counting
from benchmarks.probes.workloads import ALL
from benchmarks.suite.bench import say
from benchmarks.suite.results import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.suite.bench import Bench

ITEMS = 2_000


def instructions(bench: Bench) -> Iterator[Result]:
    """Of planner, state, scan and decode."""
    result = Result("instructions of the inner loops")
    if not counting.counter():
        result.notes.append("Not measured: neither perf nor valgrind can count instructions here.")
        yield result
        return
    result.table = [("loop", "instructions for each item", "what an item is")]
    for name, workload in ALL.items():
        each = per_item(name)
        say(f"{name:12} {each:9,.0f}")
        result.table.append((name, f"{each:,.0f}", (workload.__doc__ or "").strip()))
    result.notes.append(
        f"Counted by {counting.counter()}, in user space; "
        "Python's start and the preparation are taken off."
    )
    yield result


def per_item(name: str, items: int = ITEMS) -> float:
    """Instructions of the loop `name` for each item. Raises Wrong."""
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    # The first pass fills caches: the second and third are the ones to compare.
    one, three = (
        counting.count(
            [sys.executable, "-m", "benchmarks.probes.workloads", name, str(items), str(times)], env
        )
        for times in (1, 3)
    )
    return (three - one) / (2 * items)
