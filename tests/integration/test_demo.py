"""The demo: one round with real processes, and what it leaves behind (nothing)."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud import demo
from tests.support.environment import isolated
from tests.support.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `syncloud demo`, whose temporary files are in `tmp_path / "tmp"`."""
    (tmp_path / "tmp").mkdir()
    started: list[Process] = []

    def make(
        *arguments: str, python: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> Process:
        argv = [sys.executable, *python, "-m", "syncloud", "demo", *arguments]
        home = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
        started.append(
            Process(
                argv, directory=tmp_path / "demo", env=isolated(os.environ) | home | (env or {})
            )
        )
        return started[-1]

    yield make
    for process in started:
        process.kill()
    for pid in children_below(tmp_path):
        os.kill(pid, signal.SIGKILL)


def children_below(directory: Path) -> list[int]:
    """The processes that work in `directory`.

    The processes of a demo are in groups of their own, so its end is not theirs.
    """
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
    """The demo ignores the user's own AWS and syncloud settings.

    A profile that does not exist would stop every client.
    """
    process = start(env={"AWS_PROFILE": "nobody", "HTTP_PROXY": "http://127.0.0.1:9"})
    assert process.wait(timeout=110) == 0, process.stdout + process.stderr
    assert "names, bytes, mtime and mode are equal" in process.stdout
    assert process.stderr == ""
    for step in (
        "new file",
        "large file",
        "touched",
        "renamed",
        "deleted",
        "burst",
        "rewritten",
        "permissions",
        "directory",
    ):
        (row,) = [line for line in process.stdout.splitlines() if line.startswith(f"  {step}")]
        assert row.count(" ms") + row.count(" s ") + row.endswith(" s") == 3, row
    assert_nothing_is_left(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_leaves_nothing(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    process = start()
    process.wait_for(lambda: "syncloud pull" in process.stdout)
    assert len(children_below(tmp_path)) >= 2
    process.signal(number)
    assert process.wait(timeout=20) == 128 + number
    assert_nothing_is_left(tmp_path)


@pytest.mark.slow
def test_the_emulators_death_ends_it(start: Start, tmp_path: Path) -> None:
    process = start()
    process.wait_for(lambda: "syncloud push" in process.stdout)
    (emulator,) = [
        pid
        for pid in children_below(tmp_path)
        if b"ministack" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(emulator, signal.SIGKILL)
    assert process.wait(timeout=30) == 69
    assert process.stderr.startswith("syncloud: ministack ended with -9")
    assert_nothing_is_left(tmp_path)


def test_without_the_emulator_it_says_what_to_install(start: Start, tmp_path: Path) -> None:
    """-S: without site-packages there is no ministack.

    The path brings back the dependencies of syncloud itself.
    """
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
