"""`python -m tests.soak [--minutes N] [--seed WORD]`: the soak as a command.

The exit code is 0 only where nothing was lost and no partial content was seen.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soak.account import Account, Excuses
from tests.soak.daemons import Daemon, memory
from tests.soak.disk import Disk
from tests.soak.door import Door
from tests.soak.schedule import PULLS, schedule
from tests.soak.storm import Storm
from tests.soak.writer import Writer
from tests.support.emulator import Bucket, Emulator
from tests.support.environment import isolated
from tests.support.processes import Process
from tests.support.trees import differences, snapshot

if TYPE_CHECKING:
    from types import TracebackType

CALM = 420.0
"""Seconds after the last blow in which all must be equal.

A path that failed often may wait for five minutes.
"""
ROOM = 192 << 20
"""Bytes of the small disk: what is pulled, the big files twice."""
RECONCILE = "30s"
"""What a purged queue or a lost message costs at most."""


def main() -> int:
    asked = _arguments()
    if not asked.inside:
        print(f"soak: SOAK_SEED={asked.seed} SOAK_MINUTES={asked.minutes:g}", flush=True)
        _enter(asked.seed, asked.minutes)
    os.environ.update(clean := isolated(os.environ))
    for name in os.environ.keys() - clean.keys():
        del os.environ[name]
    place = Path(tempfile.mkdtemp(prefix="syncloud-soak-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("soak: ended from outside"))
    account = Account()
    try:
        with Soak(place, asked.seed, asked.minutes * 60, mounts=asked.inside == "mounts") as soak:
            soak.run(account)
    finally:
        print(account, flush=True)
        if sys.exc_info()[0] is not None or account.faults:
            print(f"soak: again with SOAK_SEED={asked.seed}; logs are in {place}", flush=True)
        else:
            shutil.rmtree(place, ignore_errors=True)
    return 1 if account.faults else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.seed = asked.seed or secrets.token_hex(4)
    return asked


def _enter(seed: str, minutes: float) -> None:
    """Go on in namespaces of our own.

    The namespaces end with all their contents: no process and no mount outlives the soak.
    """
    own = [
        sys.executable,
        "-m",
        "tests.soak",
        "--seed",
        seed,
        "--minutes",
        str(minutes),
        "--inside",
    ]
    for inside, more in (("mounts", []), ("mounts", ["--user", "--map-root-user"])):
        argv = ["unshare", *more, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*argv, "true"], check=False, capture_output=True).returncode == 0:
            os.execvp(argv[0], [*argv, *own, inside])
    print("soak: namespaces are not allowed here: the disk will not be filled", flush=True)
    os.execv(own[0], [*own, "plain"])


class Soak:
    """Everything that is running; what it has seen goes into the account."""

    def __init__(self, place: Path, seed: str, seconds: float, *, mounts: bool) -> None:
        self._place = place
        self._seed = seed
        self._seconds = seconds
        self._out = place / "out"
        aside = place / "aside"
        for directory in (self._out, aside):
            directory.mkdir()
        self._emulator = Emulator(place / "aws")
        self._door = Door(self._emulator.endpoint)
        self._bucket = Bucket.make(self._emulator)
        self._disk = Disk(place / "disk", size=ROOM) if mounts else None
        self._into = {name: place / name / "tree" for name in PULLS}
        if self._disk is not None:
            self._into[PULLS[-1]] = self._disk.room / "tree"
        queues = dict(zip(PULLS, self._bucket.fan_out(len(PULLS)), strict=True))
        self._daemons = {
            name: self._daemon(name, queues.get(name, "")) for name in ("push", *PULLS)
        }
        blows = schedule(seed, seconds)
        bursts = [blow.at + 1.0 for blow in blows if blow.kind == "burst"]
        self._writer = Writer(self._out, aside, seed=seed, seconds=seconds, bursts=bursts)
        self._blows = blows
        self._queues = queues

    def __enter__(self) -> Soak:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for daemon in self._daemons.values():
            daemon.kill()
        self._door.close()
        self._emulator.close()

    def _daemon(self, name: str, queue: str) -> Daemon:
        tree = self._into.get(name, self._out)
        common = [
            "--directory",
            str(tree),
            "--bucket",
            self._bucket.name,
            "--state-dir",
            str(self._place / name / "state"),
        ]
        common += ["--delete", "--max-delete", "100", "--log-format", "json"]
        if queue:
            url = queue.replace(self._emulator.endpoint, self._door.endpoint)
            common += [
                "--queue-url",
                url,
                "--visibility-timeout",
                "10s",
                "--reconcile-interval",
                RECONCILE,
            ]
        env = self._emulator.environment(endpoint=self._door.endpoint) | {
            "HOME": str(self._place / "home")
        }
        directory = self._place / name / "lives"
        return Daemon(name, ["pull" if queue else "push", *common], directory=directory, env=env)

    def run(self, account: Account) -> None:
        began = time.monotonic()
        for daemon in self._daemons.values():
            daemon.start()
        storm = Storm(
            self._blows,
            self._daemons,
            seed=self._seed,
            emulator=self._emulator,
            door=self._door,
            disk=self._disk,
            queues=self._queues,
            states={name: str(self._place / name / "state") for name in self._daemons},
        )
        argv = [sys.executable, "-m", "tests.soak.reader", *map(str, self._into.values())]
        reader = Process(argv, directory=self._place / "reader", env=os.environ, cwd=Path.cwd())
        self._writer.start()
        while self._writer.running or not storm.over:
            storm.turn()
        end = time.monotonic()
        calm = self._settle(storm)
        self._until_stopped(account)
        reader.stop()
        account.say("seed, minutes", f"{self._seed}, {self._seconds / 60:g}")
        account.say(
            "steps of the writer, writes closed", f"{self._writer.steps:,}, {self._writer.writes:,}"
        )
        account.say("  the writer came late by at most", f"{self._writer.late} s")
        source = snapshot(self._out)
        versions = account.of_versions(self._bucket, self._writer.holdings)
        account.of_writes(self._writer.holdings, versions, source, storm.calm, end + calm)
        account.say("seconds until all were equal", round(calm))
        excuses = Excuses(self._writer.holdings, storm.kills)
        account.of_trees(
            source, {name: snapshot(tree) for name, tree in self._into.items()}, excuses
        )
        account.of_reader(json.loads(reader.stdout))
        account.say("seconds of calm for push", round(storm.calm.total(began, end)))
        account.say(
            "blows", ", ".join(f"{count} {kind}" for kind, count in sorted(storm.done.items()))
        )
        account.say("requests", self._door.requests)
        account.say(
            "  meddled with",
            ", ".join(f"{count:,} {name}" for name, count in sorted(self._door.did.items())),
        )
        for daemon in self._daemons.values():
            account.of_daemon(daemon)
        account.say("the store's memory", f"{memory(self._emulator.pid)[1] >> 20} MiB at most")
        account.blame(storm.died)
        if self._writer.failure is not None:
            raise self._writer.failure

    def _settle(self, storm: Storm) -> float:
        """Calm, until all three trees are equal twice in a row, or for `CALM` seconds.

        The result is its length.
        """
        began, equal, looked = time.monotonic(), 0, 0.0
        excuses = Excuses(self._writer.holdings, storm.kills)
        while equal < 2 and (now := time.monotonic()) - began < CALM:
            storm.turn()
            if now - looked > 4.0:
                looked = now
                source = snapshot(self._out)
                trees = {name: snapshot(tree) for name, tree in self._into.items()}
                unequal = any(
                    differences(source, excuses.without(name, source, tree))
                    for name, tree in trees.items()
                )
                equal = 0 if unequal else equal + 1
        return time.monotonic() - began

    def _until_stopped(self, account: Account) -> None:
        for daemon in self._daemons.values():
            code = daemon.stop()
            if code != 128 + signal.SIGTERM:
                account.blame([f"{daemon.name} ended with {code} when it was asked to end"])


if __name__ == "__main__":
    sys.exit(main())
