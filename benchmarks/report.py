"""Results as text for a terminal, and as docs/BENCHMARKS.md."""

from __future__ import annotations

import os
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.jobs import Bar, Result
    from benchmarks.measure import Run


def text(result: Result) -> str:
    """One job, for people who wait for it."""
    lines = [f"== {result.job}"]
    lines += [f"  {name:12} {_figures(runs)}" for name, runs in result.runs.items()]
    lines += [f"  {name:12} FAILED: {why.splitlines()[0]}" for name, why in result.failed.items()]
    lines += [f"  {'met    ' if bar.met else 'NOT met'} {bar.what}: {bar.shown or bar.value} (at most {bar.bound})" for bar in result.bars]
    return "\n".join([*lines, *(f"  {note}" for note in result.notes)])


def _figures(runs: Sequence[Run]) -> str:
    wall, cpu = ([getattr(run, what) for run in runs] for what in ("wall", "cpu"))
    peak = max(run.peak for run in runs) >> 20
    spread = f"{min(wall):.2f} to {max(wall):.2f}"
    return f"wall {statistics.median(wall):.2f} s ({spread}), cpu {statistics.median(cpu):.2f} s, peak {peak} MiB"


def document(results: Sequence[Result], seconds: float) -> str:
    """All of them, the bars first."""
    bars = [bar for result in results for bar in result.bars]
    met = sum(bar.met for bar in bars)
    return "\n".join(
        [
            "# syncloud beside its peers",
            "",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}, in {seconds / 60:.0f} minutes: the same jobs on the same",
            f"machine against the same server, in turn. {_machine()}. Wall seconds of such",
            "machines vary by tens of per cent from run to run; the ratios, of runs that follow one another, vary less.",
            "",
            f"## The bars: {met} of {len(bars)} met",
            "",
            "| what is measured | bar | measured: median (least to most) | |",
            "|---|---|---|---|",
            *(_row(bar) for bar in bars),
            "",
            "## The figures",
            "",
            *(line for result in results for line in _table(result)),
        ]
    )


def _row(bar: Bar) -> str:
    return f"| {bar.what} | at most {bar.bound} | {bar.shown or bar.value} | {'met' if bar.met else 'not met'} |"


def _table(result: Result) -> list[str]:
    rows = []
    for name, runs in result.runs.items():
        wall, cpu = ([getattr(run, what) for run in runs] for what in ("wall", "cpu"))
        cells = [f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in (wall, cpu)]
        rows.append(f"| {name} | {cells[0]} | {cells[1]} | {max(run.peak for run in runs) >> 20} |")
    rows += [f"| {name} | failed | {why.splitlines()[0]} | |" for name, why in result.failed.items()]
    head = ["", f"### {result.job}", ""]
    table = ["| | wall s | CPU s | peak MiB |", "|---|---|---|---|", *rows] if rows else []
    return [*head, *table, *(["", *result.notes] if result.notes else []), ""]


def _machine() -> str:
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").open() if line.startswith("model name")), "")
    return f"It has {os.cpu_count()} cores ({model or platform.machine()}), Linux {platform.release().partition('-')[0]}"
