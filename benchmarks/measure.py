"""One command, measured: wall and CPU seconds, peak memory. A run that fails, or whose result is wrong, has no time."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TICKS = os.sysconf("SC_CLK_TCK")


class Wrong(Exception):
    """The job did not do what it should have."""


@dataclass(frozen=True, slots=True)
class Run:
    """`wall` and `cpu` in seconds, `peak` in bytes (the largest process; at least what this harness itself has)."""

    wall: float
    cpu: float = 0.0
    peak: int = 0


def run(argv: Sequence[str], env: Mapping[str, str], *, timeout: float = 3600) -> Run:
    """Runs a command to its end. Raises Wrong, with the end of what it said, where it fails."""
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        process = subprocess.Popen(list(argv), env=dict(env), stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode or wall > timeout:
            said.seek(0)
            raise Wrong(f"{argv[0]}: exit code {process.returncode} after {wall:.0f} s: {said.read()[-2000:].decode()}")
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def cpu_of(pid: int) -> float:
    """CPU seconds that a running process has used: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_of(pid: int) -> int:
    """The most memory that a running process has had, in bytes: VmHWM of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def median(runs: Sequence[Run], what: str) -> float:
    return statistics.median(getattr(run, what) for run in runs)


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
