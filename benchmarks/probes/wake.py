"""The cost of work that is done after a sleep: `python -m benchmarks.probes.wake`.

A service at rest wakes, does a little and sleeps again. On some virtual machines the same work then
costs ten times its CPU time. Caches and page tables are cold, or the host has given the core to
another machine.
"""

from __future__ import annotations

import argparse
import statistics
import time

from syncloud.core import timing

TIMES = 5
_STEPS = 20_000


def price() -> tuple[float, float]:
    """Milliseconds of CPU of the same work: at once, and after a sleep.

    The sleep is as long as syncloud's at rest.
    """
    for _ in range(TIMES):
        _work()
    at_once, after = (
        [_timed(pause) for _ in range(TIMES)] for pause in (0.0, timing.IDLE_INTERVAL_S)
    )
    return statistics.median(at_once), statistics.median(after)


def told() -> str:
    """The same as a sentence."""
    at_once, after = price()
    return (
        f"Here what takes {at_once:.1f} ms of CPU at once takes {after:.1f} ms "
        f"after a sleep of {timing.IDLE_INTERVAL_S:.0f} s."
    )


def _timed(pause: float) -> float:
    time.sleep(pause)
    before = time.thread_time()
    _work()
    return (time.thread_time() - before) * 1e3


def _work() -> int:
    return sum(number * number for number in range(_STEPS))


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m benchmarks.probes.wake", description=__doc__
    ).parse_args()
    print(told())
