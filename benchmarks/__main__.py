"""`make bench`, `make bench-quick`: run the jobs, print what comes of them, write docs/BENCHMARKS.md."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import jobs, report
from benchmarks.servers import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Job = Callable[[jobs.Bench], Iterator[jobs.Result]]

DOCUMENT = Path(__file__).parent.parent / "docs" / "BENCHMARKS.md"
BARS: dict[str, Job] = {"small": jobs.small_files, "slow": jobs.slow_store, "large": jobs.large_file}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suite", choices=["bars", "quick"])
    parser.add_argument("--jobs", nargs="*", choices=list(BARS), default=list(BARS), help="some of the bars")
    parser.add_argument("--rounds", type=int, default=3, help="how often each tool runs")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="a directory on the disk to be measured")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}")
    given = parser.parse_args()
    chosen = [jobs.quick] if given.suite == "quick" else [BARS[name] for name in given.jobs]
    results, started = [], time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.work) as work, Store(Path(work)) as store:
        bench = jobs.Bench(store, Path(work), given.rounds)
        for job in chosen:
            for result in job(bench):
                print(report.text(result), flush=True)
                results.append(result)
    if given.write:
        DOCUMENT.write_text(report.document(results, time.monotonic() - started))
    return 0 if all(bar.met for result in results for bar in result.bars) else 1


if __name__ == "__main__":
    raise SystemExit(main())
