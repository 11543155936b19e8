"""`make bench` and its kin (quick, micro, curves): run the jobs, print and write the results."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import CHECKOUT
from benchmarks.jobs import arrival, commands, curves, limit, million, visible, watched
from benchmarks.probes import micro, price
from benchmarks.suite import report
from benchmarks.suite.bench import Bench, say
from benchmarks.suite.results import Result
from benchmarks.suite.servers import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Job = Callable[[Bench], Iterator[Result]]

DOCUMENT = CHECKOUT / "docs" / "BENCHMARKS.md"
BARS: dict[str, Job] = {
    "small": commands.small_files,
    "limit": limit.limit,
    "slow": commands.slow_store,
    "large": commands.large_file,
    "visible": visible.one_change,
    "arrival": arrival.bucket_to_file,
    "burst": watched.burst,
    "hot": watched.hot_file,
    "requests": price.requests,
    "idle": watched.idle,
    "million": million.million,
    "micro": micro.instructions,
}
SUITES: dict[str, list[Job]] = {
    "bars": [],
    "quick": [commands.quick],
    "curves": [curves.growth],
    "micro": [micro.instructions],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument(
        "--jobs", nargs="*", choices=BARS, default=list(BARS), help="some of the bars"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each tool runs")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="0.01 to try the jobs with a hundredth of the files",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp"), help="a directory on the disk to be measured"
    )
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}")
    given = parser.parse_args()
    if given.write and (given.scale != 1 or given.jobs != list(BARS)):
        parser.error("only a whole run is written down")
    # Stores and directories are cleared away, however it ends.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    started = time.monotonic()
    results = run(
        SUITES[given.suite] or [BARS[name] for name in given.jobs],
        given.work,
        given.rounds,
        given.scale,
    )
    if given.write:
        DOCUMENT.write_text(
            report.document(results, time.monotonic() - started, given.rounds, million.ROUNDS)
        )
    missed = [bar for result in results for bar in result.bars if not bar.met]
    print(
        f"{sum(len(result.bars) for result in results)} bars, {len(missed)} not met, "
        f"{time.monotonic() - started:.0f} s"
    )
    return 1 if missed or any("syncloud" in result.failed for result in results) else 0


def run(chosen: list[Job], work: Path, rounds: int, scale: float) -> list[Result]:
    """Each job with a store of its own: what one has left there must not slow the next one down."""
    results = []
    place = Path(tempfile.mkdtemp(prefix="syncloud-bench.", dir=work))
    try:
        for job in chosen:
            home = place / job.__name__
            home.mkdir()
            try:
                with Store(home) as store:
                    for result in job(Bench(store, home, rounds, scale)):
                        print(report.text(result), flush=True)
                        results.append(result)
            except Exception as error:  # noqa: BLE001 - the others go on; it is in the report
                say(f"FAILED: {error!r}")
                results.append(Result(job.__name__, failed={"syncloud": repr(error)}))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return results


if __name__ == "__main__":
    raise SystemExit(main())
