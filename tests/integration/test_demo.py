"""The demo: one round with real processes, what it leaves behind (nothing), and what it calls different."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from syncloud import demo
from syncloud.demo.child import environment
from syncloud.demo.journey import Event, Journey, Seen, differences, took, tree
from syncloud.demo.signals import Signals
from tests.support.environment import isolated
from tests.support.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., Process]

FILE = Seen(size=3, mtime_ns=1_700_000_000_000_000_001, mode=0o100644, digest="abc")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `syncloud demo`, whose temporary files are in `tmp_path / "tmp"`."""
    (tmp_path / "tmp").mkdir()
    started: list[Process] = []

    def make(*arguments: str, python: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Process:
        argv = [sys.executable, *python, "-m", "syncloud", "demo", *arguments]
        home = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
        started.append(Process(argv, directory=tmp_path / "demo", env=isolated(os.environ) | home | (env or {})))
        return started[-1]

    yield make
    for process in started:
        process.kill()
    for pid in children_below(tmp_path):
        os.kill(pid, signal.SIGKILL)


def children_below(directory: Path) -> list[int]:
    """The processes that work in `directory`: those of a demo are in groups of their own, so its end is not theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(directory):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def assert_nothing_is_left(tmp_path: Path) -> None:
    assert children_below(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_one_round_not_on_a_terminal(start: Start, tmp_path: Path) -> None:
    """The user's own AWS and syncloud settings are not for it: a profile that does not exist would stop every client."""
    process = start(env={"AWS_PROFILE": "nobody", "HTTP_PROXY": "http://127.0.0.1:9"})
    assert process.wait(timeout=110) == 0, process.stdout + process.stderr
    assert "names, bytes, mtime and mode are equal" in process.stdout
    assert process.stderr == ""
    for step in ("new file", "large file", "touched", "renamed", "deleted", "burst", "rewritten", "permissions", "directory"):
        (row,) = [line for line in process.stdout.splitlines() if line.startswith(f"  {step}")]
        assert row.count(" ms") + row.count(" s ") + row.endswith(" s") == 3, row
    assert_nothing_is_left(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_leaves_nothing(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start()
    process.wait_for(lambda: "syncloud pull" in process.stdout)
    assert len(children_below(tmp_path)) >= 2
    process.signal(number)
    assert process.wait(timeout=20) == 128 + number
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("number", "ends"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)]
)
def test_a_signal_interrupts_nothing_and_is_obeyed_where_it_is_asked_for(
    number: signal.Signals, ends: type[BaseException]
) -> None:
    """One that raises in the middle of `Popen.poll()` can leave its lock taken, and then the end waits for ever."""
    before = signal.getsignal(number)
    with Signals() as signals:
        signals.obey()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(2):
            with pytest.raises(ends):
                signals.obey()
    assert signal.getsignal(number) == before


@pytest.mark.slow
def test_the_emulators_death_ends_it(start: Start, tmp_path: Path) -> None:
    process = start()
    process.wait_for(lambda: "syncloud push" in process.stdout)
    (emulator,) = [pid for pid in children_below(tmp_path) if b"ministack" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(emulator, signal.SIGKILL)
    assert process.wait(timeout=30) == 69
    assert process.stderr.startswith("syncloud: ministack ended with -9")
    assert_nothing_is_left(tmp_path)


def test_without_the_emulator_it_says_what_to_install(start: Start, tmp_path: Path) -> None:
    """-S: without site-packages there is no ministack; what syncloud itself needs is brought back by the path."""
    package = tmp_path / "only"
    package.mkdir()
    for place in map(Path, sys.path):
        for entry in place.iterdir() if place.name in ("site-packages", "dist-packages") else ():
            if not entry.name.startswith("ministack") and not (package / entry.name).exists():
                (package / entry.name).symlink_to(entry)
    checkout = str(Path(demo.__file__).parents[2])
    process = start(python=("-S",), env={"PYTHONPATH": f"{checkout}:{package}"})
    assert process.wait() == 69, process.stderr
    assert "needs ministack" in process.stderr
    assert "make demo" in process.stderr
    assert_nothing_is_left(tmp_path)


def test_children_get_nothing_of_the_users_own(tmp_path: Path) -> None:
    mine = {
        "PATH": "/bin",
        "LANG": "C",
        "AWS_PROFILE": "me",
        "SYNCLOUD_BUCKET": "mine",
        "https_proxy": "x",
        "NOTIFY_SOCKET": "s",
    }
    given = environment(mine, home=tmp_path)
    assert given.keys() & mine.keys() == {"PATH", "LANG"}
    assert (given["AWS_CONFIG_FILE"], given["AWS_SHARED_CREDENTIALS_FILE"], given["AWS_ACCESS_KEY_ID"]) == (
        os.devnull,
        os.devnull,
        "test",
    )


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        ({}, {}, []),
        ({"a": FILE}, {"a": FILE}, []),
        ({"a": FILE}, {}, ["a: only in host-a"]),
        ({}, {"a": FILE}, ["a: only in host-b"]),
        ({"a": FILE}, {"a": FILE._replace(digest="abd")}, ["a: bytes differ"]),
        ({"a": FILE}, {"a": FILE._replace(mtime_ns=FILE.mtime_ns + 1)}, ["a: mtime_ns differ"]),
        ({"a": FILE}, {"a": FILE._replace(mode=0o100600, size=4)}, ["a: size and mode differ"]),
        ({"b": FILE, "a": FILE}, {"c": FILE}, ["a: only in host-a", "b: only in host-a", "c: only in host-b"]),
    ],
)
def test_what_differs(left: dict[str, Seen], right: dict[str, Seen], told: list[str]) -> None:
    assert differences(left, right) == told


def test_a_tree_is_seen_whole(tmp_path: Path) -> None:
    """A hidden temporary that pull left would be a difference, and a link is not what it points to."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.hidden").write_text("abc")
    (tmp_path / "link").symlink_to("d/.hidden")
    seen = tree(tmp_path)
    assert seen.keys() == {"d/.hidden", "link"}
    assert (seen["d/.hidden"].size, seen["link"].digest) == (3, "")


class Way:
    """Two directories, and a journey of `a` between them that began at second 100."""

    def __init__(self, home: Path) -> None:
        self.source, self.target = home / "a", home / "b"
        self.source.mkdir()
        self.target.mkdir()

    def journey(self) -> Journey:
        return Journey.of(self.source, self.target, ["a"], 100.0)

    def copy(self) -> None:
        (self.target / "a").write_bytes((self.source / "a").read_bytes())
        found = (self.source / "a").stat()
        os.utime(self.target / "a", ns=(0, found.st_mtime_ns))
        (self.target / "a").chmod(found.st_mode)


@pytest.fixture
def way(tmp_path: Path) -> Way:
    return Way(tmp_path)


def event(role: str, name: str, *, at: float = 101.0, **fields: Any) -> Event:
    return Event.of(at, role, {"event": f"{role}.{name}", "path": "a", "level": "info", "message": "", **fields})


def test_a_journey_is_complete_when_all_three_have_seen_it(way: Way) -> None:
    (way.source / "a").write_text("abc")
    journey = way.journey()
    journey.note(event("push", "uploaded", at=100.25, size=3))
    journey.note(event("pull", "written", at=101.5, size=3))
    assert journey.missing() == ["a: not seen by the reader of host-b"]
    way.copy()
    before = time.time()
    journey.look()
    assert journey.complete()
    assert journey.read["a"] >= before
    assert journey.cells()[:4] == ["uploaded", "250 ms", "written", "1.50 s"]


def test_an_older_content_is_not_this_journey(way: Way) -> None:
    (way.source / "a").write_text("abc")
    journey = way.journey()
    journey.note(event("push", "uploaded", size=2))
    journey.note(event("push", "deleted"))
    journey.note(event("ministack", "uploaded", size=3))
    assert journey.hops["push"] == {}


def test_the_reader_wants_bytes_mtime_and_mode(way: Way) -> None:
    (way.source / "a").write_text("abc")
    way.copy()
    for spoil in (
        lambda: (way.target / "a").chmod(0o600),
        lambda: os.utime(way.target / "a"),
        lambda: (way.target / "a").write_text("abd"),
    ):
        spoil()
        journey = way.journey()
        journey.look()
        assert not journey.read
        way.copy()


def test_a_deletion_is_seen_when_the_file_is_gone(way: Way) -> None:
    (way.target / "a").write_text("abc")
    journey = way.journey()
    journey.look()
    assert not journey.read
    (way.target / "a").unlink()
    journey.note(event("push", "deleted"))
    journey.note(event("pull", "deleted"))
    journey.look()
    assert journey.complete()


def test_times_are_for_people() -> None:
    assert [took(moment, 100.0) for moment in (None, 100.0, 100.012, 101.25)] == ["-", "-", "12 ms", "1.25 s"]
