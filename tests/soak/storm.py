"""The storm that carries out the schedule.

Kills, freezes, fills, purges, hangs and shuts come, and each damage is repaired afterwards.
"""

from __future__ import annotations

import heapq
import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.soak.calm import Calm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.soak.daemons import Daemon
    from tests.soak.disk import Disk
    from tests.soak.door import Door
    from tests.soak.schedule import Blow
    from tests.support.emulator import Emulator

TICK = 0.05
OUTAGE_OVER = 40.0
"""Seconds after an outage in which push may still wait for its next try (outage.RETRY).

Push then works off the waiting changes.
"""
STARTED = 6.0
"""Seconds after a start or a freeze for the look at everything."""


class Storm:
    """The schedule's blows, on the thread that makes the storm.

    The thread must live as long as the daemons, because the kernel kills daemons whose parent
    thread ends.
    """

    def __init__(
        self,
        blows: Sequence[Blow],
        daemons: Mapping[str, Daemon],
        *,
        seed: str,
        emulator: Emulator,
        door: Door,
        disk: Disk | None,
        queues: Mapping[str, str],
        states: Mapping[str, str],
    ) -> None:
        self._daemons = daemons
        self._seed = seed
        self._emulator = emulator
        self._door = door
        self._disk = disk
        self._queues = queues
        self._states = states
        self._started = time.monotonic()
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._held: Counter[str] = Counter()
        self._held_back = dict.fromkeys(daemons, 0)
        self._expected_dead: set[str] = set()
        self._looked_at = 0.0
        self.calm = Calm()
        self.done: Counter[str] = Counter()
        self.died: list[str] = []
        self.kills: list[tuple[str, float]] = []
        for blow in blows:
            self._plan(self._started + blow.at, lambda blow=blow: self._strike(blow))  # type: ignore[misc]

    def _plan(self, at: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), act))

    @property
    def over(self) -> bool:
        return not self._due

    def turn(self) -> None:
        """Whatever is due; to be called all the time."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
            self._note()
        self._note()
        if now - self._looked_at >= 1.0:
            self._looked_at = now
            for daemon in self._daemons.values():
                self._look_after(daemon)
        time.sleep(TICK)

    def _note(self) -> None:
        """What hinders push now."""
        hindrance = None
        if self._held["push"] or not self._daemons["push"].ready:
            hindrance = STARTED
        if self._held["store"] or self._door.weather is not None:
            hindrance = OUTAGE_OVER
        self.calm.note(time.monotonic(), hindrance)

    def _look_after(self, daemon: Daemon) -> None:
        """Look after a daemon as its operator does.

        The log and the costs are read, held deletions are allowed, and the daemon should not have
        ended.
        """
        daemon.read_log()
        daemon.weigh()
        if daemon.events["guard.held"] > self._held_back[daemon.name]:
            self._held_back[daemon.name] = daemon.events["guard.held"]
            self.done["held deletions allowed"] += 1
            argv = [
                sys.executable,
                "-m",
                "syncloud",
                "resume",
                "--allow-deletes",
                "--state-dir",
                self._states[daemon.name],
            ]
            subprocess.run(argv, env=self._emulator.environment(), check=True)
        if not daemon.alive and daemon.name not in self._expected_dead:
            self.died.append(f"{daemon.name} ended by itself: {daemon.last_words}")
            daemon.start()

    # The blows

    def _strike(self, blow: Blow) -> None:
        until = time.monotonic() + blow.lasting
        strike: Callable[[Blow, float], bool] = getattr(self, "_" + blow.kind.replace(" ", "_"))
        if strike(blow, until):
            who = f" {blow.whom}" if blow.whom else ""
            self.done[blow.kind] += 1
            print(
                f"{time.monotonic() - self._started:7.1f}  {blow.kind}{who}, {blow.lasting:.1f} s",
                flush=True,
            )

    def _kill(self, blow: Blow, until: float) -> bool:
        daemon = self._daemons[blow.whom]
        if not daemon.alive:
            return False
        self._expected_dead.add(blow.whom)
        daemon.kill()
        self.kills.append((blow.whom, time.monotonic()))
        self._plan(until, lambda: self._start(blow.whom))
        return True

    def _start(self, name: str) -> None:
        self._daemons[name].start()
        self._expected_dead.discard(name)

    def _freeze(self, blow: Blow, until: float) -> bool:
        self._held[blow.whom] += 1
        self._daemons[blow.whom].freeze()
        self._plan(until, lambda: self._thaw(blow.whom))
        return True

    def _thaw(self, name: str) -> None:
        self._held[name] -= 1
        if not self._held[name]:
            self._daemons[name].thaw()

    _burst = _freeze

    def _full_disk(self, blow: Blow, until: float) -> bool:
        if self._disk is None:
            return False
        self._held["disk"] += 1
        self._disk.fill()
        self._plan(until, self._free)
        return True

    def _free(self) -> None:
        self._held["disk"] -= 1
        if not self._held["disk"] and self._disk is not None:
            self._disk.free()

    def _purge(self, blow: Blow, until: float) -> bool:
        if self._held["hang"]:
            self._plan(until + 1.0, lambda: self._strike(blow))
            return False
        self._emulator.client("sqs").purge_queue(QueueUrl=self._queues[blow.whom])
        return True

    def _hang(self, blow: Blow, until: float) -> bool:
        self._held["store"] += 1
        self._held["hang"] += 1
        self._emulator.pause()
        self._plan(until, self._go_on)
        return True

    def _go_on(self) -> None:
        self._held["store"] -= 1
        self._held["hang"] -= 1
        if not self._held["hang"]:
            self._emulator.go_on()

    def _closed_port(self, blow: Blow, until: float) -> bool:
        self._held["store"] += 1
        self._door.shut()
        self._plan(until, self._open)
        return True

    def _open(self) -> None:
        self._held["store"] -= 1
        self._door.open()

    def _bad_weather(self, blow: Blow, until: float) -> bool:
        weather = self._door.storm(f"{self._seed} {blow.at:.1f}")
        self._plan(until, lambda: self._door.clear(weather))
        return True

    def _bad_post(self, blow: Blow, until: float) -> bool:
        post = self._door.muddle(f"{self._seed} {blow.at:.1f}")
        self._plan(until, lambda: self._door.deliver(post))
        return True
