"""What a tool asks of the store for a job, counted in a run of its own: counting costs time."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from benchmarks.suite.bench import say
from benchmarks.suite.measure import Wrong
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from benchmarks.peers.tools import Tool
    from benchmarks.suite.bench import Bench
    from benchmarks.suite.job import Job
    from benchmarks.suite.results import Result

FILES = 1_000


def by_each(bench: Bench, result: Result, job: Job, tools: Sequence[Tool]) -> None:
    """Note in `result` what each tool asked for."""
    for tool in tools:
        place = bench.fresh(f"asked {tool.name}")
        with Recorder(bench.store.endpoint) as recorder:
            try:
                if job.repeated:
                    job.once(tool, place, recorder.endpoint)
                    recorder.reset()
                job.once(tool, place, recorder.endpoint)
            except Wrong as wrong:
                result.notes.append(
                    f"Requests not counted: {tool.name}: {str(wrong).splitlines()[0]}"
                )
            else:
                counts = result.requests[tool.name] = recorder.counts()
                say(f"{tool.name:12} asked {shown(counts)}")
        shutil.rmtree(place, ignore_errors=True)


def shown(counts: Counter[tuple[str, str]]) -> str:
    """Like `1,001: 1,000 PutObject, 1 ListObjectsV2`."""
    each = ", ".join(f"{count:,} {operation}" for (_, operation), count in counts.most_common())
    return f"{counts.total():,}: {each}" if each else "0"
