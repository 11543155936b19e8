"""A sync that is killed at every changing system call and at every request.

The module is the stage for test_crashes.py. The kernel's side is strace's: SIGKILL at the entry of
the n-th call of a thread. Requests are cut in front of the store: before it has seen one, or after
it has obeyed and before the answer is there. A run without a kill shows the points.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.support import strace
from tests.support.trees import snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.forks import Fork, Forks
    from tests.support.meddler import Answer, Asked, Forward, Meddle
    from tests.support.strace import Call

    Files = dict[str, bytes]

_NAME = re.compile(r"(?<=/)n\d{3}$")
"""The folder of a file on its way, in the path of a directory."""
LOOKS = frozenset({"GetObject", "HeadObject"})
READS = LOOKS | {"ListObjectsV2", "ReceiveMessage", "GetQueueAttributes", "GetQueueUrl"}
_RANDOM = re.compile(r"(?<=\.syncloud-)(old|tmp)-[0-9a-f]{16}-[0-9a-f]{16}|\d{8}T\d{6}Z|n\d{3}")


@dataclass(frozen=True, slots=True)
class Point:
    """The end of a run: the `nth` `call` of a thread or the `nth` request of this name.

    `paths`, if given, restricts the calls. `late`: calls are counted from the first check of an
    object on. At that time the threads that will change the tree have done nothing yet. `answered`:
    after the store has obeyed.
    """

    call: str
    nth: int
    about: str = ""
    paths: tuple[str, ...] = ()
    late: bool = False
    state: bool = False
    request: bool = False
    answered: bool = False

    def of(self, name: str) -> Point:
        """The same point on the way of the file NAME/..., which is not the one of the trace."""
        return replace(self, paths=tuple(_NAME.sub(name, path) for path in self.paths))

    def __str__(self) -> str:
        if self.request:
            return f"{'after' if self.answered else 'before'} {self.call} {self.nth}"
        return f"{self.call} {self.nth} about {self.about}"


@dataclass(slots=True)
class ScanChunk:
    """The result of one run: exit code, requests, and the trace, if there is one.

    `thread` is the control thread.
    """

    code: int
    asked: list[str]
    calls: list[Call] = field(default_factory=list)
    thread: int = 0

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def end(self, point: Point) -> str:
        """The point of the kill that was meant for `point`; empty where no kill has come.

        The rows that share a transaction depend on timing, so the `nth` write of the state may be
        another one than before.
        """
        if not self.killed:
            return ""
        if point.request:
            return point.call
        cut = [call for call in self.calls if call.result == "?" and call.name == point.call]
        met = [
            call
            for call in cut
            if (call.concerns(point.paths) if point.state else about(call) == point.about)
        ]
        return (
            f"{met[0].name} {about(met[0])}" if point.state and met else point.call if met else ""
        )

    def lacks(self, point: Point) -> bool:
        """Whether this run, which ended by itself, provably made fewer such calls.

        Fewer calls are no fault of the state's, nor of the parts of a large file. The thread of
        each part depends on timing.
        """
        if self.killed or not (point.state or point.call == "pwrite64"):
            return False
        alike = [call for call in self.calls if call.name == point.call]
        if point.state:
            return sum(call.concerns(point.paths) for call in alike) < point.nth
        by_thread = Counter(call.thread for call in alike if about(call) == point.about)
        return max(by_thread.values(), default=0) < point.nth


class Stage:
    """Single passes of `role` between the two sides of `rig`."""

    def __init__(self, rig: Rig, forks: Forks, role: str) -> None:
        self.rig = rig
        self.role = role
        self._forks = forks
        self._tracer: subprocess.Popen[str] | None = None
        self._runs = 0
        self.through: Meddle = _pass
        (rig.place / "in").mkdir(exist_ok=True)

    @property
    def folder(self) -> Path:
        """The directory of this role."""
        return self.rig.out if self.role == "push" else self.rig.into

    @property
    def state(self) -> Path:
        return self.rig.push_state if self.role == "push" else self.rig.pull_state

    # The two sides

    def on_disk(self, name: str = "") -> Files:
        """What is in the directory below `name`, hidden files included."""
        return {
            os.path.join(name, path): file[0] for path, file in snapshot(self.folder / name).items()
        }

    def in_bucket(self, name: str = "") -> Files:
        bucket = self.rig.bucket
        return {key: bucket.get(key) for key in bucket.keys(f"{name}/" if name else "")}

    def target(self, name: str = "") -> Files:
        return self.in_bucket(name) if self.role == "push" else self.on_disk(name)

    def source(self, name: str = "") -> Files:
        return self.on_disk(name) if self.role == "push" else self.in_bucket(name)

    def uploads(self) -> list[str]:
        """The keys of the multipart uploads that nobody has ended."""
        s3 = self.rig.bucket.server.client("s3")
        return [
            upload["Key"]
            for upload in s3.list_multipart_uploads(Bucket=self.rig.bucket.name).get("Uploads", ())
        ]

    def messages(self) -> int:
        """How many the queue has, those that somebody is at work on included."""
        return self.rig.bucket.messages()

    def rows(self) -> dict[str, int]:
        """The sizes of the files on which both sides agree.

        A start would read them from the state now.
        """
        with tempfile.TemporaryDirectory() as place:
            for file in self.state.glob("state.sqlite*"):
                shutil.copy(file, place)
            with contextlib.closing(sqlite3.connect(f"{place}/state.sqlite")) as db:
                return dict(db.execute("SELECT path, size FROM base"))

    # Runs

    def start(self, *more: str) -> Fork:
        """A run that waits for `go`."""
        self._runs += 1
        rig = self.rig
        argv = [
            self.role,
            "--directory",
            str(self.folder),
            "--bucket",
            rig.bucket.name,
            "--state-dir",
            str(self.state),
        ]
        if self.role == "pull":
            argv += [
                "--queue-url",
                rig.bucket.queue_url.replace(rig.bucket.server.endpoint, rig.meddler.endpoint),
            ]
        env = rig.bucket.server.environment(endpoint=rig.meddler.endpoint) | {
            "HOME": str(rig.place)
        }
        log = rig.place / "logs" / str(self._runs)
        log.parent.mkdir(exist_ok=True)
        return self._forks.start(
            [*argv, "--delete", "--log-format", "json", *more], env=env, log=log
        )

    def once(self, point: Point | None = None, *, traced: bool = False) -> ScanChunk:
        """One pass; killed at `point`."""
        fork, before = self.start("--once"), len(self.rig.meddler.asked)
        self.arm(fork, point, traced=traced)
        fork.go()
        return self.ended(fork, before)

    def arm(self, fork: Fork, point: Point | None, *, traced: bool = False) -> None:
        """From now on what `fork` does leads to `point`, or is traced."""
        (self.rig.place / "trace").unlink(missing_ok=True)
        self.rig.meddler.meddle = self.through
        if point is None:
            if traced:
                self._attach(fork)
        elif point.request:
            self.rig.meddler.meddle = self._kill_at_request(fork, point)
        elif point.late:
            self.rig.meddler.meddle = self._attach_at_look(fork, point)
        else:
            self._attach(fork, *strace.killing(point.call, point.nth, point.paths))

    def ended(self, fork: Fork, asked_before: int) -> ScanChunk:
        """`fork` has ended, or does so soon."""
        code = fork.wait()
        asked, calls = self.rig.meddler.names()[asked_before:], []
        self.rig.meddler.meddle = self.through
        if self._tracer is not None:
            self._tracer.communicate(timeout=30)
            self._tracer = None
            calls = strace.read(self.rig.place / "trace")
        return ScanChunk(code, asked, calls, fork.pid)

    def _attach(self, fork: Fork, *more: str) -> None:
        self._tracer = strace.attach(fork.pid, self.rig.place / "trace", *more)

    def _attach_at_look(self, fork: Fork, point: Point) -> Meddle:
        once = threading.Lock()

        def meddle(asked: Asked, forward: Forward) -> Answer | None:
            with once:  # requests come side by side
                if (point.state or asked.name in LOOKS) and self._tracer is None:
                    self._attach(fork, *strace.killing(point.call, point.nth, point.paths))
            return self.through(asked, forward)

        return meddle

    def _kill_at_request(self, fork: Fork, point: Point) -> Meddle:
        count = 0

        def meddle(asked: Asked, forward: Forward) -> Answer | None:
            nonlocal count
            count += asked.name == point.call
            if (asked.name, count) != (point.call, point.nth):
                return self.through(asked, forward)
            if point.answered:
                self.through(asked, forward)
            fork.kill()
            return None

        return meddle

    # Points

    def points(self, run: ScanChunk, *, whole: bool = True) -> list[Point]:
        """Every place where `run`, which was traced, can be broken off.

        The calls of the state when it is opened and closed are the same in every run, so they count
        only with `whole`. Threads of their own open and close it, and strace counts by thread. So
        files are kept apart, and calls after the first request are counted from there.
        """
        sends = [
            call for call in run.calls if call.name in strace.SENDS and " HTTP/1." in call.arguments
        ]
        looks = [
            call
            for call in sends
            if re.match(r'\d+<[^>]*>, "(GET|HEAD) /[^/? ]+/[^? ]', call.arguments)
        ]
        first = sends[0].began if sends else 0
        look = looks[0].began if looks else len(run.calls) ** 2
        found = []
        for call in run.calls:
            if not call.changes:
                continue
            if self._is_below(call, self.state):
                recording = (
                    call.began > first
                    and call.name == "pwrite64"
                    and about(call) == "state.sqlite-wal"
                )
                if whole or (recording and call.thread == run.thread):
                    since = first if call.began > first > 0 else -1
                    found.append(
                        replace(_point(run, call, tuple(call.paths[-1:]), since=since), state=True)
                    )
            elif self._is_below(call, self.folder):
                found.append(
                    _point(run, call, _directories(call), since=look if call.began > look else -1)
                )
        return found + _requests(run)

    def _is_below(self, call: Call, place: Path) -> bool:
        return any(path == str(place) or path.startswith(f"{place}/") for path in call.paths)


def about(call: Call) -> str:
    """The file's name, without what differs from run to run."""
    return _RANDOM.sub("*", os.path.basename(call.paths[-1])) if call.paths else ""


def _directories(call: Call) -> tuple[str, ...]:
    """The directories of an `at` call, where -P can match them.

    The directories distinguish this call from the same call elsewhere.
    """
    if call.name not in strace.NAMES:
        return ()
    return (call.paths[-1] if call.name == "mkdir" else os.path.dirname(call.paths[-1]),)


def _point(run: ScanChunk, call: Call, paths: tuple[str, ...], since: int = -1) -> Point:
    alike = [
        other
        for other in run.calls
        if other.name == call.name
        and other.thread == call.thread
        and since < other.began <= call.began
    ]
    nth = sum(not paths or other.concerns(paths) for other in alike)
    return Point(call.name, nth, about(call), paths, late=since >= 0)


def _requests(run: ScanChunk) -> list[Point]:
    found = []
    for number, name in enumerate(run.asked, 1):
        nth = run.asked[:number].count(name)
        found.append(Point(name, nth, request=True))
        if name not in READS:
            found.append(Point(name, nth, request=True, answered=True))
    return found


def _pass(asked: Asked, forward: Forward) -> Answer | None:
    return forward(asked)


def undurable(calls: Sequence[Call], place: Path, state: Path) -> list[str]:
    """Writes that a power cut could take although a later step relies on them.

    The result is complaints about the order of the calls below `place`. A file gets a visible name
    only when its bytes, mode, mtime and mark are synced. When the state records that, or a message
    is deleted because of it, the directory is synced, too.
    """
    told: list[str] = []
    dirty: set[str] = set()
    recorded = True
    for call in calls:
        path = call.paths[-1] if call.paths else ""
        if path.startswith(str(state)) and path.endswith("-wal") and call.name in strace.DATA:
            told += [f"recorded before the sync of {file}" for file in sorted(dirty)]
            recorded = True
        elif call.name in strace.SENDS and "DeleteMessage" in call.arguments:
            told += [f"acknowledged before the sync of {file}" for file in sorted(dirty)]
            told += [] if recorded else ["acknowledged before it is recorded"]
        elif path.startswith(str(place)) and call.done and call.name in strace.SYNCS:
            dirty.discard(path)
        elif path.startswith(str(place)) and call.done and call.changes:
            if (
                len(call.paths) > 1
                and call.paths[0] in dirty
                and not os.path.basename(path).startswith(".syncloud-")
            ):
                told.append(f"{path} is visible before its bytes are synced")
            recorded = False
            dirty.add(path if call.name in strace.DATA else os.path.dirname(path))
    return told
