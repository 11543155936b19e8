"""One command, measured: wall and CPU seconds, peak memory.

A run that fails, or whose result is wrong, has no time.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TICKS = os.sysconf("SC_CLK_TCK")

# A process starts with the peak of the one that it was forked from, so that must be a small one,
# not this harness.
_LAUNCH = """
import json, os, sys, time
started = time.monotonic()
child = os.fork()
if not child:
    os.execvp(sys.argv[2], sys.argv[2:])
_, status, used = os.wait4(child, 0)
said = [os.waitstatus_to_exitcode(status), time.monotonic() - started, \
used.ru_utime + used.ru_stime, used.ru_maxrss]
os.write(int(sys.argv[1]), json.dumps(said).encode())
"""


class Wrong(Exception):
    """The job did not do what it should have."""


@dataclass(frozen=True, slots=True)
class ScanChunk:
    """`wall` and `cpu` in seconds; `peak` in bytes.

    The peak is that of the largest process, and at least the 10 MB of a bare Python.
    """

    wall: float
    cpu: float = 0.0
    peak: int = 0


def run(argv: Sequence[str], env: Mapping[str, str], *, timeout: float = 3600) -> ScanChunk:
    """Runs a command to its end. Raises Wrong, with the end of what it said, where it fails."""
    told, tell = os.pipe()
    with tempfile.TemporaryFile() as said, open(told, "rb") as answer:
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(tell), *argv]
        process = subprocess.Popen(
            launch,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=[tell],
            start_new_session=True,
        )
        os.close(tell)
        try:
            process.wait(timeout)
        except BaseException as error:
            os.killpg(
                process.pid, signal.SIGKILL
            )  # not yet waited for: the number is still its own
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise Wrong(f"{argv[0]}: still runs after {timeout:.0f} s") from None
        code, wall, cpu, peak = json.loads(answer.read() or b"[127, 0, 0, 0]")
        if code:
            said.seek(0)
            raise Wrong(
                f"{Path(argv[0]).name}: exit code {code} after {wall:.0f} s: "
                f"{said.read()[-2000:].decode()}"
            )
    return ScanChunk(wall, cpu, peak * 1024)


def cpu_of(pid: int) -> float:
    """CPU seconds that a running process has used: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def exact_cpu_of(pid: int) -> float:
    """The CPU seconds of the living threads of a process, to the nanosecond.

    The source is /proc/PID/task/TID/schedstat, which is finer than the clock's tick.
    """
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def memory_of(pid: int, what: str = "VmHWM") -> int:
    """The peak memory of a running process in bytes, or the memory now (VmRSS).

    See proc_pid_status(5).
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many per cent of the others are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How ours is to theirs, round by round: below 1 is better."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        """Of pairs from the same round; the middle is that of the medians."""
        each = [a / b for a, b in zip(ours, theirs, strict=True)]
        return cls(min(each), statistics.median(ours) / statistics.median(theirs), max(each))

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and from least to most."""
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"
