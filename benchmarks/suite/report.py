"""Results as text for a terminal, and as docs/BENCHMARKS.md."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import CHECKOUT
from benchmarks.peers.tools import versions
from benchmarks.suite.asked import shown
from benchmarks.suite.measure import spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.suite.measure import ScanChunk
    from benchmarks.suite.results import Bar, Result

_READING = (
    (
        "Wall seconds of such machines vary by tens of per cent from run to run; "
        "the ratios, of runs that follow one another,"
    ),
    (
        "vary less. A figure is a median, with the least and the most in brackets; "
        "a tool that lost a file has none. Requests are"
    ),
    (
        "those of a run of its own, with at most 1,000 files. "
        "Where tools take turns, the disk is given before each of them what"
    ),
    "the one before has left in the page cache.",
)


def text(result: Result) -> str:
    """One job, for people who wait for it."""
    lines = [f"== {result.job}"]
    lines += [f"  {name:12} {_figures(runs)}" for name, runs in result.runs.items()]
    lines += [f"  {name:12} FAILED: {_first_line(why)}" for name, why in result.failed.items()]
    lines += [f"  {' | '.join(row)}" for row in result.table]
    lines += [
        f"  {'met    ' if bar.met else 'NOT met'} {bar.what}: {_shown(bar)} (at most {bar.bound:g})"
        for bar in result.bars
    ]
    return "\n".join([*lines, *(f"  {note}" for note in result.notes)])


def _figures(runs: Sequence[ScanChunk]) -> str:
    peak = max(run.peak for run in runs) / 1e6
    wall, cpu = spread([run.wall for run in runs]), spread([run.cpu for run in runs])
    return f"wall {wall} s, cpu {cpu} s, peak {peak:.0f} MB"


def document(results: Sequence[Result], seconds: float, rounds: int, rounds_of_million: int) -> str:
    """All of them, the bars first."""
    bars = [bar for result in results for bar in result.bars]
    met = sum(bar.met for bar in bars)
    return "\n".join(
        [
            "# syncloud beside its peers",
            "",
            (
                f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}, "
                f"in {seconds / 60:.0f} minutes, at commit {_commit()}:"
            ),
            f"the same jobs on the same machine against the same server, in turn, {rounds} times",
            f"({rounds_of_million} times with a million files).",
            f"{_machine()}. {_versions()}.",
            *_READING,
            "",
            f"## The bars: {met} of {len(bars)} met",
            "",
            "| what is measured | bar | measured | |",
            "|---|---|---|---|",
            *(
                f"| {bar.what} | at most {bar.bound:g} | {_shown(bar)} "
                f"| {'met' if bar.met else 'not met'} |"
                for bar in bars
            ),
            "",
            "What those are made of that are not met: [LIMITS.md](LIMITS.md).",
            "",
            "## The figures",
            *(line for result in results for line in _section(result)),
        ]
    )


def _shown(bar: Bar) -> str:
    return bar.shown or f"{bar.value:g}"


def _section(result: Result) -> Iterator[str]:
    yield from ("", f"### {result.job}")
    rows = [_row(result, name) for name in result.runs]
    rows += [
        (name, f"failed: {_first_line(why)}", "", "", "") for name, why in result.failed.items()
    ]
    if rows:
        yield from ("", *table([("", "wall s", "CPU s", "peak MB", "requests"), *rows]))
    if result.table:
        yield from ("", *table(result.table))
    if result.notes:
        yield from ("", *(f"- {note}" for note in result.notes))


def _row(result: Result, name: str) -> tuple[str, ...]:
    runs = result.runs[name]
    peak = f"{max(run.peak for run in runs) / 1e6:.0f}"
    requests = shown(result.requests[name]) if name in result.requests else ""
    return (
        name,
        spread([run.wall for run in runs]),
        spread([run.cpu for run in runs]),
        peak,
        requests,
    )


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """In Markdown; the first row is the head."""
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        yield f"| {' | '.join(row)} |"


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0].replace("|", "/")[:200]


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    system = f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    return f"It has {os.cpu_count()} cores ({model}), {memory:.0f} GB, {system}"


def _versions() -> str:
    libraries = (f"{name} {metadata.version(name)}" for name in ("awscrt", "boto3"))
    return f"{', '.join(versions())}; syncloud with {' and '.join(libraries)}"


def _commit() -> str:
    """The commit, with `-dirty` where the measured tree differs from it.

    The report of an earlier run does not count as a difference.
    """
    commit = _git("describe", "--always") or "unknown"
    return (
        f"{commit}-dirty"
        if _git("status", "--porcelain", "--untracked-files=no", "--", ":!docs")
        else commit
    )


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
    ).stdout.strip()
