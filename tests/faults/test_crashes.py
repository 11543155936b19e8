"""Kills at every changing system call and every request.

Nothing is lost, and the next start converges.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.faults.crashes import READS, Point, ScanChunk, Stage, undurable
from tests.support import strace
from tests.support.forks import Forks
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.crashes import Files
    from tests.faults.rig import Rig
    from tests.support.emulator import Emulator
    from tests.support.forks import Fork
    from tests.support.meddler import Answer, Asked, Forward

    Change = Callable[[Stage, str], object]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not strace.works(), reason="strace is not there, or may not trace"),
]

LARGE = 9 * 1024 * 1024
"""Bytes: more than one part."""
SPARE = 8
"""Files beside one for each point: for what ended elsewhere than it should have."""
TRIES = 4
MTIME = "1600000000.123456789"


@pytest.fixture(scope="module")
def forks(aws_server: Emulator) -> Iterator[Forks]:
    with Forks(aws_server.environment()) as made:
        yield made


# What both sides agreed on, what then happens at the source, and what must be there at last


@dataclass(frozen=True, slots=True)
class Scenario:
    """`old` and `new` are the contents of NAME/file; None where there is none.

    `steps` are the required calls and requests of a kill. `whole` includes the places where the
    state is opened and closed.
    """

    role: str
    change: Change
    steps: tuple[str, ...]
    old: bytes | None = b"old"
    new: bytes | None = b"new"
    moved: bool = False
    theirs: bytes | None = None
    whole: bool = False

    @property
    def at(self) -> str:
        return "moved" if self.moved else "file"

    def before(self, name: str) -> Files:
        return {} if self.old is None else {f"{name}/file": of(name, self.old)}

    def after(self, name: str) -> Files:
        if self.new is None:
            return {}
        return {f"{name}/{self.at}": of(name, self.new)}


def of(name: str, what: bytes) -> bytes:
    """Contents of its own for each file."""
    unit = b"%s of %s\n" % (what, name.encode())
    return (unit * (LARGE // len(unit) + 1))[:LARGE] if what.startswith(b"large") else unit


def put(
    stage: Stage, name: str, what: bytes, mtime: str = "1700000000.5", at: str = "file"
) -> None:
    """At the source, as its own writer does it."""
    if stage.role == "push":
        stage.rig.write(f"{name}/{at}", of(name, what))
    else:
        stage.rig.bucket.put(f"{name}/{at}", of(name, what), mtime=mtime)


def write(what: bytes) -> Change:
    return lambda stage, name: put(stage, name, what)


def touch(stage: Stage, name: str) -> None:
    if stage.role == "push":
        os.utime(stage.rig.out / name / "file", ns=(10**18, 10**18 + 1))
    else:
        time.sleep(1.1)  # a listing tells two writes of the same bytes apart only by their seconds
        put(stage, name, b"old", mtime=MTIME)


def remove(stage: Stage, name: str) -> None:
    if stage.role == "push":
        (stage.rig.out / name / "file").unlink()
    else:
        stage.rig.bucket.delete(f"{name}/file")


def rename(stage: Stage, name: str) -> None:
    (stage.rig.out / name / "file").rename(stage.rig.out / name / "moved")


def conflict(stage: Stage, name: str) -> None:
    """Somebody changes the target, the source changes as well."""
    if stage.role == "push":
        stage.rig.bucket.put(f"{name}/file", of(name, b"theirs"))
    else:
        (stage.rig.into / name / "file").write_bytes(of(name, b"theirs"))
    put(stage, name, b"new")


def crash_in_a_replacement(stage: Stage, name: str) -> None:
    """A start that has to clean up: a temporary, and the hidden link to what was to be replaced."""
    put(stage, name, b"new")
    assert stage.once(Point("renameat", 1, late=True)).killed
    assert sum(".syncloud-" in path for path in stage.on_disk(name)) == 2


STAGING = ("openat", "pwrite64", "fsetxattr", "fchmod", "utimensat", "fsync")
REPLACING = (*STAGING, "linkat", "renameat", "unlinkat")
UPLOADING = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")

SCENARIOS = {
    "new file up": Scenario("push", write(b"new"), ("PutObject",), old=None, whole=True),
    "changed file up": Scenario("push", write(b"new"), ("PutObject",)),
    "touched file up": Scenario("push", touch, ("PutObject",), new=b"old"),
    "deleted file up": Scenario("push", remove, ("DeleteObject",), new=None),
    "renamed file up": Scenario(
        "push", rename, ("PutObject", "DeleteObject"), new=b"old", moved=True
    ),
    "large file up": Scenario("push", write(b"large"), UPLOADING, old=None, new=b"large"),
    "conflict up": Scenario("push", conflict, ("HeadObject", "PutObject"), theirs=b"theirs"),
    "new file down": Scenario(
        "pull", write(b"new"), (*STAGING, "mkdirat", "renameat2"), old=None, whole=True
    ),
    "replaced file down": Scenario("pull", write(b"new"), REPLACING),
    "touched file down": Scenario("pull", touch, ("fchmod", "utimensat", "fsync"), new=b"old"),
    "deleted file down": Scenario("pull", remove, ("renameat", "unlinkat", "fsync"), new=None),
    "large file down": Scenario("pull", write(b"large"), REPLACING, new=b"large"),
    "conflict down": Scenario("pull", conflict, REPLACING, theirs=b"theirs"),
    "cleaning up": Scenario("pull", crash_in_a_replacement, REPLACING),
}


class Names:
    """Names of files on which both sides agree; more of them when they are used up."""

    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage, self._scenario = stage, scenario
        self._ready: list[str] = []
        self._made = 0
        put(stage, "first", b"so that every run has a memory, and asks for the same")

    def prepare(self, count: int) -> None:
        fresh = [f"n{number:03}" for number in range(self._made, self._made + count)]
        self._made += count
        self._ready += fresh
        if self._scenario.old is not None:
            for name in fresh:
                put(self._stage, name, self._scenario.old)
        assert self._stage.once().code == 0

    def take(self) -> str:
        if not self._ready:
            self.prepare(SPARE)
        name = self._ready.pop(0)
        self._scenario.change(self._stage, name)
        return name


def visible(files: Files) -> Files:
    """Without hidden files and conflict copies."""
    return {
        path: body
        for path, body in files.items()
        if ".syncloud-" not in path and ".conflict-" not in path
    }


def torn(stage: Stage, scenario: Scenario, name: str) -> list[str]:
    """Complaints about the traces of the crash.

    Visible files must be whole, and foreign writes must be there.
    """
    there, before, after = stage.target(name), scenario.before(name), scenario.after(name)
    theirs = None if scenario.theirs is None else of(name, scenario.theirs)
    told = []
    for path in before.keys() | after.keys():
        allowed = (
            {before.get(path), after.get(path)} if theirs is None else {theirs, after.get(path)}
        )
        if visible(there).get(path) not in allowed:
            told.append(f"{path} is {_short(there.get(path))} after the crash")
    told += [
        f"{path} is there after the crash"
        for path in visible(there).keys() - before.keys() - after.keys()
    ]
    if theirs is not None and theirs not in there.values():
        told.append("the other writer's bytes are gone after the crash")
    return told


def unsettled(stage: Stage, scenario: Scenario, name: str, run: ScanChunk) -> list[str]:
    """Complaints about what the next start has made of it."""
    told = [f"the next start ended with {run.code}"] if run.code else []
    source, target, wanted = stage.source(name), stage.target(name), scenario.after(name)
    for side, files in (("source", source), ("target", target)):
        if visible(files) != wanted:
            told.append(f"{side} has { {path: _short(body) for path, body in files.items()} }")
    hidden = [path for path in {**source, **target} if ".syncloud-" in path]
    copies = [body for path, body in {**source, **target}.items() if ".conflict-" in path]
    told += [f"{path} is left over" for path in hidden]
    if set(copies) != (set() if scenario.theirs is None else {of(name, scenario.theirs)}):
        told.append(f"conflict copies: {list(map(_short, copies))}")
    return told + (_unlike(stage, wanted) if not told else [])


def _unlike(stage: Stage, wanted: Files) -> list[str]:
    """Where an mtime has not travelled."""
    told = []
    for path in wanted:
        noted = Decimal(stage.rig.bucket.head(path)["Metadata"]["mtime"]) * 10**9
        if noted != (stage.folder / path).stat().st_mtime_ns:
            told.append(f"the mtime of {path} is {noted} there")
    return told


def _short(body: bytes | None) -> str:
    return "absent" if body is None else f"{body[:20]!r} ({len(body)} bytes)"


def may_leave_an_upload(point: Point) -> bool:
    """Whether the point lies between the making of an upload and the commit that notes it.

    Between the two the bucket's lifecycle ends the upload.
    """
    return (
        "CreateMultipartUpload" in point.call
        if point.answered
        else point.about == "state.sqlite-wal"
    )


def hit(
    point: Point, attempt: Callable[[Point], tuple[ScanChunk, list[str]]], met: set[str]
) -> list[str]:
    """Attempts with one file after the other, until a run has ended at `point`: their complaints.

    `met` gets the point.
    """
    lacking = True
    for _ in range(TRIES):
        run, told = attempt(point)
        if told or run.end(point):
            met.add(run.end(point))
            return [f"{point}: {complaint}" for complaint in told]
        lacking = lacking and run.lacks(point)
    return [] if lacking else [f"{point}: no run has ended there"]


def crashed(
    stage: Stage, scenario: Scenario, names: Names, point: Point
) -> tuple[ScanChunk, list[str]]:
    """A run that is killed at `point`, and a next start: the complaints after each of them."""
    name = names.take()
    run = stage.once(point.of(name))
    told = torn(stage, scenario, name) if run.killed else []
    told += unsettled(stage, scenario, name, stage.once())
    if not may_leave_an_upload(point):
        told += [
            f"an upload of {key} is left over"
            for key in stage.uploads()
            if key.startswith(f"{name}/")
        ]
    return run, told


@pytest.mark.parametrize("what", SCENARIOS)
def test_a_crash_at_any_call_or_request_loses_nothing_and_the_next_start_converges(
    rig: Rig, forks: Forks, what: str
) -> None:
    scenario = SCENARIOS[what]
    stage = Stage(rig, forks, scenario.role)
    names = Names(stage, scenario)
    names.prepare(1)
    names.take()
    run = stage.once(traced=True)
    assert run.code == 0
    points = stage.points(run, whole=scenario.whole)
    names.prepare(len(points) + SPARE)
    met: set[str] = set()
    told = [
        line
        for point in points
        for line in hit(point, partial(crashed, stage, scenario, names), met)
    ]
    assert not told, "\n".join(told)
    assert {*scenario.steps, "pwrite64 state.sqlite-wal"} <= met, (
        "every step of the protocol is among them"
    )
    # A push that lists nothing asks whether one object is there.
    asked = stage.once().asked
    assert set(asked) <= READS - {"GetObject"}, "there is nothing left to do"
    assert asked.count("HeadObject") <= (scenario.role == "push"), "nor to look at"


@pytest.mark.parametrize("what", SCENARIOS)
def test_nothing_is_relied_on_that_a_power_cut_could_take(
    rig: Rig, forks: Forks, what: str
) -> None:
    scenario = SCENARIOS[what]
    stage = Stage(rig, forks, scenario.role)
    names = Names(stage, scenario)
    names.prepare(1)
    names.take()
    run = stage.once(traced=True)
    assert run.code == 0
    assert undurable(run.calls, stage.folder, stage.state) == []


def cut_the_power(stage: Stage, run: ScanChunk) -> None:
    """Cut the power at the end of a run like `run`.

    Synced writes are there; of the state only its last checkpoint is.
    """
    # After the first request the checkpoint of its closing alone writes into the database itself.
    writes = [
        point
        for point in stage.points(run)
        if (point.call, point.about) == ("pwrite64", "state.sqlite") and point.late
    ]
    assert stage.once(writes[0]).killed
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{stage.state}/state.sqlite{suffix}")


@pytest.mark.parametrize("again", [False, True], ids=["", "and a change"])
@pytest.mark.parametrize("what", SCENARIOS)
def test_what_a_power_cut_takes_from_the_state_is_found_out_again(
    rig: Rig, forks: Forks, what: str, again: bool
) -> None:
    scenario = SCENARIOS[what]
    stage = Stage(rig, forks, scenario.role)
    names = Names(stage, scenario)
    names.prepare(2)
    names.take()
    run = stage.once(traced=True)
    name = names.take()
    cut_the_power(stage, run)
    if again and scenario.new is not None:
        put(stage, name, b"newer", at=scenario.at)
        scenario = replace(scenario, new=b"newer")
    assert unsettled(stage, scenario, name, stage.once()) == []


@pytest.mark.parametrize("role", ["push", "pull"])
def test_what_a_first_start_has_written_is_known_as_ours_after_a_power_cut(
    rig: Rig, forks: Forks, role: str
) -> None:
    """Without a row, the mark of this state identifies a written file.

    The mark is durable before the row.
    """
    stage = Stage(rig, forks, role)
    put(stage, "n000", b"old")
    run = stage.once(traced=True)
    shutil.rmtree(stage.state)
    put(stage, "n001", b"old")
    cut_the_power(stage, run)
    assert stage.target("n001") == {"n001/file": of("n001", b"old")}
    put(stage, "n001", b"new")
    assert unsettled(stage, Scenario(role, write(b"new"), ()), "n001", stage.once()) == []


# A daemon, and the message that it works on


def short_polls(asked: Asked, forward: Forward) -> Answer | None:
    """A long poll of a daemon that is dead would take the next one's message."""
    if asked.name == "ReceiveMessage":
        time.sleep(0.05)
        wanted = json.loads(asked.body) | {"WaitTimeSeconds": 0, "VisibilityTimeout": 1}
        asked = replace(asked, body=json.dumps(wanted).encode())
    return forward(asked)


def serving(stage: Stage) -> Fork:
    """A daemon that has looked at everything and waits for messages."""
    fork = stage.start()
    fork.go()
    wait_until(
        lambda: fork.told("service.ready") and fork.told("reconcile.finished"),
        timeout=60,
        every=0.02,
    )
    wait_until(lambda: not stage.messages(), timeout=60, every=0.05)
    return fork


def message_handled(stage: Stage, name: str, point: Point | None) -> ScanChunk:
    """A daemon replaces NAME/file because of a message.

    The daemon is killed at `point`, or ended afterwards.
    """
    fork = serving(stage)
    before = len(stage.rig.meddler.asked)
    stage.arm(fork, point and point.of(name), traced=True)
    put(stage, name, b"newer")

    def is_over() -> bool:
        return fork.ended or (stage.target(name) == stage.source(name) and not stage.messages())

    wait_until(is_over, timeout=60, every=0.05)
    fork.kill(signal.SIGTERM)
    return stage.ended(fork, before)


def forgotten(stage: Stage, name: str) -> list[str]:
    """Complaints about a message that has gone although what it said can still be lost."""
    if stage.messages():
        return []
    path, body = f"{name}/file", of(name, b"newer")
    told = (
        []
        if stage.on_disk(name) == {path: body}
        else ["the message has gone before its file was there"]
    )
    return told + (
        []
        if stage.rows().get(path) == len(body)
        else ["the message has gone before its row was there"]
    )


def until_deleted(stage: Stage, run: ScanChunk) -> list[Point]:
    """What can be broken off from the coming of the message to its end."""
    last = max(
        call.began
        for call in run.calls
        if call.name in strace.SENDS and "DeleteMessage" in call.arguments
    )
    run.calls = [call for call in run.calls if call.began < last]
    points = [replace(point, late=False) for point in stage.points(run)]
    return [
        point
        for point in points
        if not point.request or point.call in {"GetObject", "DeleteMessageBatch"}
    ]


def test_a_message_is_deleted_only_when_what_it_said_survives_a_crash(
    rig: Rig, forks: Forks
) -> None:
    scenario = Scenario("pull", write(b"newer"), REPLACING, new=b"newer")
    stage = Stage(rig, forks, "pull")
    stage.through = short_polls
    names = [f"n{number:03}" for number in range(60)]
    for name in names:
        put(stage, name, b"old")
    assert stage.once().code == 0
    rig.bucket.receive_all()
    run = message_handled(stage, names.pop(), None)
    assert undurable(run.calls, stage.folder, stage.state) == []
    points, met = until_deleted(stage, run), set[str]()

    def attempt(point: Point) -> tuple[ScanChunk, list[str]]:
        run = message_handled(stage, name := names.pop(), point)
        told = torn(stage, scenario, name) + forgotten(stage, name) if run.killed else []
        restarted = serving(stage)
        restarted.kill()
        restarted.wait()
        return run, told + unsettled(stage, scenario, name, ScanChunk(0, []))

    told = [line for point in points for line in hit(point, attempt, met)]
    assert not told, "\n".join(told)
    assert {*REPLACING, "DeleteMessageBatch", "pwrite64 state.sqlite-wal"} <= met
