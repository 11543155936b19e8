"""A push and two pulls that are killed and started again.

The costs and log lines are kept over all lives.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.support.processes import Process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class Daemon:
    """`syncloud ARGUMENTS...`, started over and over.

    Each life has a directory of its own below `directory`.
    """

    def __init__(
        self, name: str, arguments: list[str], *, directory: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self._argv = [sys.executable, "-m", "syncloud", *arguments]
        self._directory = directory
        self._env = env
        self._process: Process | None = None
        self._log: _Log | None = None
        self._cpu_before = self._cpu = 0.0
        self._born = self._thawed = 0.0
        self.lives = 0
        self.peak = 0
        """The most memory that any of its lives had, in bytes (VmHWM)."""
        self.memory: list[tuple[float, int]] = []
        """Over the longest life: its age in seconds, and bytes resident (VmRSS)."""
        self._life: list[tuple[float, int]] = []
        self.events: Counter[str] = Counter()
        self.told: list[str] = []
        """Log lines that nobody should see."""

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def ready(self) -> bool:
        """Whether its present life has come so far that it listens."""
        return self.alive and self._log is not None and "service.ready" in self._log.seen

    @property
    def last_words(self) -> str:
        """The end of what it has said, where it has ended by itself."""
        if self._process is None:
            return "it was never started"
        return f"exit code {self._process.wait()}, {self._process.stderr[-600:]}"

    @property
    def cpu(self) -> float:
        """Seconds, over all lives."""
        return self._cpu_before + self._cpu

    def start(self) -> None:
        directory = self._directory / f"{self.lives:03}"
        self._process = Process(self._argv, directory=directory, env=self._env)
        self._log = _Log(directory / "stderr")
        self._life, self._cpu, self._born = [], 0.0, time.monotonic()
        self.lives += 1

    def kill(self) -> None:
        """kill -9, as a crash does it."""
        self._end()
        if self._process is not None:
            self._process.kill()
            self.read_log()
            self._process = None

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        assert self._process is not None
        self._end()
        code = self._process.stop(timeout=60)
        self.read_log()
        return code

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self._thawed = time.monotonic()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.running:
            self._process.signal(number)

    def _end(self) -> None:
        self.weigh()
        self._cpu_before, self._cpu = self.cpu, 0.0

    def weigh(self) -> None:
        """Note what it costs now."""
        if self._process is None:
            return
        with suppress(OSError, ValueError):
            now, peak = memory(self._process.pid)
            self.peak = max(self.peak, peak)
            self._life.append((time.monotonic() - self._born, now))
            ticks = _lines(f"/proc/{self._process.pid}/stat")[0].rpartition(")")[2].split()
            self._cpu = (int(ticks[11]) + int(ticks[12])) / _TICKS
        if not self.memory or (self._life[-1:] and self._life[-1][0] > self.memory[-1][0]):
            self.memory = self._life

    def read_log(self) -> None:
        """Take in what it has said since."""
        for event in self._log.new() if self._log is not None else ():
            self.events[event["event"]] += 1
            frozen = (
                event["event"] == "watchdog.withheld" and time.monotonic() - self._thawed < _AWAKE
            )
            if event["event"] in _ALARMING and not frozen:
                self.told.append(f"{self.name}: {event.get('message', '')}")


_AWAKE = 10.0
"""Seconds after a freeze in which a daemon may still find that it had been frozen."""
_ALARMING = frozenset(
    {"internal.error", "library.asyncio", "watchdog.withheld", "conflict.kept", "path.given_up"}
)


class _Log:
    """The events of a growing file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""
        self.seen: set[str] = set()

    def new(self) -> list[dict[str, Any]]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        found = []
        for line in lines:
            with suppress(ValueError):
                event = json.loads(line[line.find(b"{") :])
                if "event" in event:
                    self.seen.add(event["event"])
                    found.append(event)
        return found


def memory(pid: int) -> tuple[int, int]:
    """Bytes resident now, and at most so far."""
    fields = dict(line.split(":", 1) for line in _lines(f"/proc/{pid}/status"))
    return _bytes(fields["VmRSS"]), _bytes(fields["VmHWM"])


def _lines(path: str) -> list[str]:
    with open(path) as file:
        return [line for line in file.read().split("\n") if line]


def _bytes(field: str) -> int:
    return int(field.split()[0]) * 1024
