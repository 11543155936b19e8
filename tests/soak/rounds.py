"""Rounds of large files among small ones, whatever happens to their parts.

`python -m tests.soak.rounds [--rounds N] [--seed WORD]` runs them. Each round is one pass of push
or pull with a fresh state.

Parts are refused, cut and slow, the disk is slow and sometimes full, files change meanwhile. Many
passes are ended by SIGTERM.

Then every file, or every version of every object, must be one of the intended contents. A hash that
syncloud did not compute decides that. The exit code is 0 only where all of them are.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from syncloud.core import checksum, names
from tests.support.emulator import Bucket, Emulator
from tests.support.environment import isolated
from tests.support.faults import FAULTS, Fault, Storm, late, refuse, slow
from tests.support.meddler import Meddler
from tests.support.processes import Process
from tests.support.throttle import throttled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.meddler import Answer, Asked, Forward

LARGE = [f"big-{number}" for number in range(7)]
"""More than syncloud carries at a time, so that one that is given up makes room for the next."""
SMALL = [f"small-{number:02}" for number in range(60)]
"""They come and go while the large ones are on their way, each with a descriptor."""
SIZES = {"big": (17 << 20, 33 << 20), "small": (1, 64 << 10)}
STORMY = 1.5
"""Seconds of faults in each round, from its first part on."""
_OF_PARTS = frozenset({"GetObject", "UploadPart", "CompleteMultipartUpload"})
_NAMES = frozenset(
    {"reset", "hang up", "truncated", "shortened", "corrupted", "500", "200 with an error", "404"}
)
_REFUSALS = (
    Fault("412 of a part", refuse(412, "PreconditionFailed"), frozenset({"GetObject"})),
    Fault("late 400 of a part", late(0.3, refuse(400, "InvalidRequest")), frozenset({"GetObject"})),
    Fault("later 416 of a part", late(0.8, refuse(416, "InvalidRange")), frozenset({"GetObject"})),
    Fault("404 of an upload", refuse(404, "NoSuchUpload"), frozenset({"UploadPart"})),
    Fault("slow part", slow(0.4), _OF_PARTS),
)
_COMMON = [
    replace(fault, operations=fault.operations & _OF_PARTS)
    for fault in FAULTS
    if fault.name in _NAMES
]
WEATHER = (*_COMMON, *_REFUSALS, *_REFUSALS, *_REFUSALS)
"""More than half of all faults refuse a part or hold it up.

A late refusal meets siblings whose bytes are on their way to the disk.
"""


class Rounds:
    """All rounds of one seed; `wrong` says what nobody has meant, `did` what happened."""

    def __init__(self, place: Path, seed: str) -> None:
        self._place = place
        self._seed = seed
        self._emulator = Emulator(place / "aws")
        self._bucket = Bucket.make(self._emulator)
        self._meant: dict[str, set[str]] = {}
        self._begun = threading.Event()
        self.wrong: list[str] = []
        self.did: Counter[str] = Counter()

    def close(self) -> None:
        self._emulator.close()

    def run(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        with contextlib.redirect_stdout(io.StringIO()):  # the seed is told once
            storm = Storm(f"{self._seed} {number}", probability=0.3, faults=WEATHER)
        meddler: Meddler
        self._begun.clear()

        def meddle(asked: Asked, forward: Forward) -> Answer | None:
            meddler.asked.clear()  # they hold their bodies
            if asked.name in _OF_PARTS:
                self._begun.set()
            return storm(asked, forward)

        home = self._place / f"round-{number}"
        (home / "tree").mkdir(parents=True)
        with Meddler(self._emulator.endpoint, meddle) as meddler:
            (self._pull if number % 2 else self._push)(
                number, home, chance, storm, meddler.endpoint
            )
        self.did += storm.did
        shutil.rmtree(home)

    def _pull(
        self, number: int, home: Path, chance: random.Random, storm: Storm, endpoint: str
    ) -> None:
        if number == 1:
            for name in (*LARGE, *SMALL):
                self._put(chance, name)
        room = chance.choice([0, 0, 0, chance.randint(17 << 20, 99 << 20)])
        env = throttled(
            write_us=chance.choice([0, 200_000, 300_000]),
            every=chance.choice([5, 8, 13]),
            room=room,
        )
        process = self._start("pull", home, "", env, endpoint)
        self._live(process, chance, storm, lambda: self._put(chance, chance.choice(LARGE)))
        for file in (home / "tree").rglob("*"):
            if not names.is_hidden(file.name):
                self._judge(number, file.name, file.read_bytes())

    def _push(
        self, number: int, home: Path, chance: random.Random, storm: Storm, endpoint: str
    ) -> None:
        prefix = f"round-{number}/"
        for name in (*LARGE, *SMALL):
            body = _content(chance, name)
            self._meant.setdefault(prefix + name, set()).add(_digest(body))
            (home / "tree" / name).write_bytes(body)
        env = throttled(
            read_us=chance.choice([0, 60_000, 100_000]), every=chance.choice([5, 8, 13])
        )
        process = self._start("push", home, prefix, env, endpoint)
        self._live(process, chance, storm, lambda: self._edit(home / "tree", prefix, chance))
        for name, version, body in self._versions(prefix):
            self._judge(number, name, body)
            self._emulator.client("s3").delete_object(
                Bucket=self._bucket.name, Key=name, VersionId=version
            )

    def _put(self, chance: random.Random, name: str) -> None:
        body = _content(chance, name)
        self._meant.setdefault(name, set()).add(_digest(body))
        # As S3 itself adds it: without one nobody can tell that a bit has turned on the way.
        crc = checksum.encode(checksum.update(body))
        self._emulator.client("s3").put_object(
            Bucket=self._bucket.name, Key=name, Body=body, ChecksumCRC64NVME=crc
        )

    def _edit(self, tree: Path, prefix: str, chance: random.Random) -> None:
        """By a program that renames the new file over the old one, or writes into it."""
        name = chance.choice(LARGE)
        body = _content(chance, name)
        self._meant[prefix + name].add(_digest(body))
        in_place = chance.random() < 0.5
        with open(
            tree / name if in_place else tree.parent / "new", "r+b" if in_place else "wb"
        ) as file:
            file.truncate(len(body))
            file.write(body)
        if not in_place:
            os.replace(tree.parent / "new", tree / name)

    def _start(
        self, role: str, home: Path, prefix: str, env: dict[str, str], endpoint: str
    ) -> Process:
        argv = [
            sys.executable,
            "-m",
            "syncloud",
            role,
            "--once",
            "--directory",
            str(home / "tree"),
            "--bucket",
            self._bucket.name,
        ]
        argv += [
            "--state-dir",
            str(home / "state"),
            "--log-format",
            "json",
            *(["--prefix", prefix] if prefix else []),
        ]
        environ = self._emulator.environment(endpoint=endpoint) | env | {"HOME": str(home)}
        return Process(argv, directory=home / "log", env=environ, cwd=Path.cwd())

    def _live(
        self, process: Process, chance: random.Random, storm: Storm, change: Callable[[], None]
    ) -> None:
        """Change files in the middle of a pass, then end the process.

        Some passes end by themselves once the weather is calm.
        """
        calm = threading.Timer(STORMY, storm.calm)
        with process:
            self._begun.wait(30)
            calm.start()
            for _ in range(chance.choice([0, 0, 1, 3])):
                time.sleep(chance.uniform(0.0, 0.7))
                change()
            if chance.random() < 0.4:
                time.sleep(chance.uniform(0.0, 2.5))
                if process.running:
                    process.stop(timeout=60)
                    self.did["ended by SIGTERM"] += 1
            code = process.wait(timeout=120)
            self.did[f"exit {code}"] += 1
        calm.join()

    def _judge(self, number: int, key: str, body: bytes) -> None:
        self.did[f"contents compared of {'pull' if number % 2 else 'push'}"] += 1
        if _digest(body) not in self._meant.get(key, ()):
            self.wrong.append(
                f"round {number}: {key} has {len(body):,} bytes that nobody has meant"
            )
            print(
                f"  {self.wrong[-1]}", flush=True
            )  # at once: a run that is cut off has still said it

    def _versions(self, prefix: str) -> Iterator[tuple[str, str, bytes]]:
        s3 = self._emulator.client("s3")
        page = s3.list_object_versions(Bucket=self._bucket.name, Prefix=prefix)
        for row in page.get("Versions", ()):
            if names.is_hidden(row["Key"].removeprefix(prefix)):
                continue
            with s3.get_object(
                Bucket=self._bucket.name, Key=row["Key"], VersionId=row["VersionId"]
            )["Body"] as body:
                yield row["Key"], row["VersionId"], body.read()


def _content(chance: random.Random, name: str) -> bytes:
    return chance.randbytes(chance.randint(*SIZES[name.partition("-")[0]]))


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="every other one is a push")
    parser.add_argument("--seed", default="")
    asked = parser.parse_args()
    seed = asked.seed or secrets.token_hex(4)
    print(f"rounds: SOAK_SEED={seed} SOAK_ROUNDS={asked.rounds}", flush=True)
    os.environ.update(clean := isolated(os.environ))
    for name in os.environ.keys() - clean.keys():
        del os.environ[name]
    place = Path(tempfile.mkdtemp(prefix="syncloud-rounds-"))
    rounds = Rounds(place, seed)
    try:
        for number in range(1, asked.rounds + 1):
            rounds.run(number)
    finally:
        rounds.close()
        shutil.rmtree(place, ignore_errors=True)
    print("  " + ", ".join(f"{count:,} {name}" for name, count in sorted(rounds.did.items())))
    print(f"rounds: {asked.rounds} done, {len(rounds.wrong)} wrong contents", flush=True)
    compared = all(
        rounds.did[f"contents compared of {role}"] for role in ("pull", "push")[: asked.rounds]
    )
    if not compared:
        print("rounds: nothing was carried, so nothing was compared", flush=True)
    return 0 if compared and not rounds.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
