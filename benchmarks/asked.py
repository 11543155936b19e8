"""What a tool asks of the store for a job, counted in a run of its own: counting costs time."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.bench import say
from benchmarks.measure import Wrong
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench
    from benchmarks.jobs import Job
    from benchmarks.tools import Tool

FILES = 1_000


def by_each(bench: Bench, job: Job, tools: Sequence[Tool]) -> dict[str, str]:
    """By the tool's name, what it asked for, like `1,001: 1,000 PutObject, 1 ListObjectsV2`."""
    told = {}
    for tool in tools:
        place = bench.fresh(f"asked {tool.name}")
        with Recorder(bench.store.endpoint) as recorder:
            try:
                if job.repeated:
                    job.once(tool, place, recorder.endpoint)
                    recorder.reset()
                job.once(tool, place, recorder.endpoint)
            except Wrong as wrong:
                told[tool.name] = f"failed: {str(wrong).splitlines()[0]}"
            else:
                told[tool.name] = shown(recorder.counts())
        say(f"{tool.name:12} asked {told[tool.name]}")
        shutil.rmtree(place, ignore_errors=True)
    return told


def shown(counts: Counter[tuple[str, str]]) -> str:
    each = ", ".join(f"{count:,} {operation}" for (_, operation), count in counts.most_common())
    return f"{counts.total():,}: {each}" if each else "0"
