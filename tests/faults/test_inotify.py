"""Faults of inotify and watchdog, seen from a running push.

Changes that the kernel does not report still arrive, or the fault is logged.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.local import mountinfo
from tests.support.processes import Process
from tests.support.systemd import Systemd
from tests.support.trees import wait_until
from tests.support.watch import limited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.emulator import Emulator

# Deletions travel, and as many as there are: what must stay would go if it could.
DELETING = ("--delete", "--max-delete", "100")


def _contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def _until_published(rig: Rig, *, timeout: float = 60) -> None:
    """Wait until the bucket holds exactly the contents of `out`.

    The names come first, because an object may be deleted while it is read.
    """
    wanted = _contents(rig.out)
    wait_until(lambda: set(rig.bucket.keys()) == set(wanted), timeout=timeout)
    rig.until_pushed(wanted)


# 91: the queue is full


def test_a_full_queue_ends_in_everything_being_published(rig: Rig) -> None:
    """The reader stands still while 20,000 files are made.

    Most are gone again; the last ones came when no thread read the events.
    """
    for number in range(50):
        rig.write(f"known/{number}", b"old")
    push = rig.push(*DELETING)
    wait_until(lambda: len(rig.bucket.keys()) == 50, timeout=60)
    push.signal(signal.SIGSTOP)
    (rig.out / "many").mkdir()
    for number in range(20_000):
        os.close(os.open(rig.out / "many" / str(number), os.O_WRONLY | os.O_CREAT))
    for number in range(19_800):
        (rig.out / "many" / str(number)).unlink()
    # In a directory that is watched: nothing but the burst itself says that something was missed.
    for number in range(50):
        rig.write(f"known/late-{number}", b"new")
        (rig.out / "known" / str(number)).unlink()
    push.signal(signal.SIGCONT)
    _until_published(rig, timeout=120)
    rig.write("known/again", b"heard")
    _until_published(rig)


# 92: no more watches


def _push_below(rig: Rig, server: Emulator, *command: str, env: dict[str, str]) -> Process:
    """A push that `command` executes."""
    push = [
        sys.executable,
        "-m",
        "syncloud",
        "push",
        "--directory",
        str(rig.out),
        "--bucket",
        rig.bucket.name,
    ]
    more = ["--state-dir", str(rig.push_state), "--log-format", "json"]
    env = server.environment() | env | {"HOME": str(rig.place)}
    return Process([*command, *push, *more], directory=rig.place / "process", env=env)


def _limited(rig: Rig, server: Emulator, systemd: Systemd, watches: int) -> Process:
    """A push that may have so many inotify watches."""
    limit = 'echo "$0" >/proc/sys/user/max_inotify_watches && exec "$@"'
    return _push_below(
        rig, server, "unshare", "-Ur", "sh", "-c", limit, str(watches), env=systemd.environment
    )


def _raise_limit(pid: int) -> None:
    enter = ["nsenter", f"--target={pid}", "--user", "--preserve-credentials"]
    subprocess.run(
        [*enter, "sh", "-c", "echo 1000 >/proc/sys/user/max_inotify_watches"], check=True
    )


def _status(rig: Rig) -> dict[str, Any]:
    asked = rig.start("status", "--json", "--state-dir", str(rig.push_state))
    asked.wait()
    told: dict[str, Any] = json.loads(asked.stdout)
    return told


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(tmp_path) as made:
        yield made


@limited
@pytest.mark.slow
@pytest.mark.timeout(300)  # it is polled once a minute
@pytest.mark.parametrize("watches", [5, 0], ids=["some", "none"])
def test_what_cannot_be_watched_is_polled_counted_and_told_until_the_limit_is_raised(
    rig: Rig, aws_server: Emulator, systemd: Systemd, watches: int
) -> None:
    for number in range(10):
        rig.write(f"d{number}/file", b"1")
    with _limited(rig, aws_server, systemd, watches) as push:
        push.wait_event("service.ready", timeout=60)
        _until_published(rig)
        told = push.wait_event("watch.partial")
        assert told["level"] == "error"
        wait_until(lambda: _status(rig)["trouble"], timeout=30, every=1)
        page = _status(rig)
        assert not page["healthy"]
        assert "directories cannot be watched" in page["trouble"]
        assert "max_user_watches" in page["trouble"]
        wait_until(lambda: systemd.status().startswith("degraded: "), timeout=10)
        for number in range(10):
            rig.write(f"d{number}/file", b"unheard")
        assert not push.events("watch.whole"), "nothing else is said meanwhile"
        _raise_limit(push.pid)
        push.wait_event("watch.whole", timeout=100)
        _until_published(rig)
        wait_until(lambda: not systemd.status().startswith("degraded: "), timeout=10)
        wait_until(lambda: _status(rig)["healthy"], timeout=60, every=1)
        rig.write("d9/heard", b"1")
        _until_published(rig, timeout=20)
        assert push.stop() == 143


@limited
def test_a_directory_beyond_the_limit_is_told_at_once(
    rig: Rig, aws_server: Emulator, systemd: Systemd
) -> None:
    with _limited(rig, aws_server, systemd, 5) as push:
        push.wait_event("service.ready", timeout=60)
        for number in range(10):
            rig.write(f"d{number}/deep/file", b"1")
        push.wait_event("watch.partial")
        _until_published(rig)
        wait_until(lambda: "directories cannot be watched" in systemd.status(), timeout=10)
        assert push.running


# 95: directories that come and go faster than they can be watched


_MAKER = """
import os, sys
root, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    top = f"{root}/{number % 40}-{number}"
    try:
        os.makedirs(f"{top}/a/b/c")
        for depth in ("a", "a/b", "a/b/c"):
            with open(f"{top}/{depth}/file", "w") as file:
                file.write(f"{number} {depth}")
    except FileNotFoundError:
        assert number % 10, "nobody removes these"
"""


@pytest.mark.slow
def test_directories_filled_at_once_are_published_while_others_are_removed(rig: Rig) -> None:
    """4,000 of them; nine in ten go again, often before anybody has looked."""
    rig.push(*DELETING, "--transfers", "32")
    count = 4_000
    with subprocess.Popen([sys.executable, "-c", _MAKER, str(rig.out), str(count)]) as maker:
        while (running := maker.poll() is None) or len(os.listdir(rig.out)) > count // 10:
            for name in os.listdir(rig.out):
                if int(name.partition("-")[2]) % 10:
                    shutil.rmtree(rig.out / name, ignore_errors=running)
    assert maker.returncode == 0
    assert len(_contents(rig.out)) == 3 * count // 10
    _until_published(rig, timeout=180)


# 96 to 98: directories that move


def test_a_directory_moved_in_is_followed_and_one_moved_out_is_not(rig: Rig) -> None:
    """The objects of a moved directory are deleted once.

    Later changes outside are skipped, and may not come back under the old name.
    """
    away = rig.place / "away"
    (away / "come/sub").mkdir(parents=True)
    (away / "come/sub/file").write_bytes(b"1")
    rig.push(*DELETING)
    (away / "come").rename(rig.out / "in")
    rig.until_pushed({"in/sub/file": b"1"})
    (rig.out / "in/sub/file").write_bytes(b"edited")
    (rig.out / "in/sub/new").write_bytes(b"2")
    rig.until_pushed({"in/sub/file": b"edited", "in/sub/new": b"2"})
    (rig.out / "in").rename(away / "gone")
    (away / "gone/sub/file").write_bytes(b"edited outside at once")
    wait_until(lambda: not rig.bucket.keys(), timeout=30)
    before = len(rig.meddler.asked)
    for number in range(20):
        (away / "gone/sub/file").write_bytes(b"edited outside %d" % number)
        (away / "gone/sub" / f"made-{number}").write_bytes(b"3")
    rig.write("last", b"1")
    rig.until_pushed({"last": b"1"})
    time.sleep(3)
    assert [asked.name for asked in rig.meddler.asked[before:]] == ["PutObject"]
    deleted = [
        asked.target
        for asked in rig.meddler.asked
        if asked.name == "DeleteObject" and "/in/" in asked.target
    ]
    assert len(deleted) == len(set(deleted)) == 2


def test_a_big_directory_renamed_twice_arrives_under_its_last_name_alone(rig: Rig) -> None:
    """`a/a/x` has its own name in its path: what is renamed must be the first one."""
    for number in range(500):
        rig.write(f"a/a/x{number % 10}/{number}", b"%d" % number)
    rig.push(*DELETING, "--transfers", "32")
    wait_until(lambda: len(rig.bucket.keys()) == 500, timeout=120)
    (rig.out / "a").rename(rig.out / "b")
    (rig.out / "b").rename(rig.out / "c")
    _until_published(rig, timeout=120)
    (rig.out / "c/a/x1/1").write_bytes(b"heard under its last name")
    _until_published(rig)


# 99: the clock is set back


_STEPPED = """
import os, runpy, sys, time
really, really_ns = time.time, time.time_ns
back = lambda: 3600 if os.path.exists(sys.argv[1]) else 0
time.time = lambda: really() - back()
time.time_ns = lambda: really_ns() - back() * 10**9
sys.argv[1:] = sys.argv[2:]
runpy.run_module("syncloud", run_name="__main__")
"""


def test_a_clock_set_back_an_hour_delays_nothing(rig: Rig, aws_server: Emulator) -> None:
    stepped = rig.place / "stepped"
    argv = [
        sys.executable,
        "-c",
        _STEPPED,
        str(stepped),
        "push",
        "--directory",
        str(rig.out),
        "--bucket",
        rig.bucket.name,
    ]
    env = aws_server.environment() | {"HOME": str(rig.place)}
    argv += ["--state-dir", str(rig.push_state), "--log-format", "json", *DELETING]
    with Process(argv, directory=rig.place / "process", env=env) as push:
        push.wait_event("service.ready")
        rig.write("before", b"1")
        push.wait_event("push.uploaded", path="before")
        stepped.touch()
        rig.write("before", b"2")
        rig.write("sub/after", b"1")
        rig.until_pushed({"before": b"2", "sub/after": b"1"}, timeout=30)
        (rig.out / "sub").rename(rig.out / "moved")
        (rig.out / "before").unlink()
        _until_published(rig, timeout=30)
        assert push.stop() == 143


# 100: file systems of others


@limited
def test_a_push_of_a_file_system_of_others_says_so(rig: Rig, aws_server: Emulator) -> None:
    """The kernel's table of mounts, as it would be: a real one takes another host."""
    table = (
        'sed "s/ - [^ ]* / - nfs4 /" /proc/self/mountinfo >"$0" && '
        'mount --bind "$0" /proc/$$/mountinfo && exec "$@"'
    )
    with _push_below(
        rig, aws_server, "unshare", "-Urm", "sh", "-c", table, str(rig.place / "table"), env={}
    ) as push:
        told = push.wait_event("watch.remote")
        assert (told["level"], told["path"]) == ("warning", str(rig.out))
        assert "is on nfs4" in told["message"]
        rig.write("file", b"1")
        rig.until_pushed({"file": b"1"})
        assert push.stop() == 143


def test_a_disk_of_this_host_is_no_reason_for_a_warning(rig: Rig) -> None:
    fd = os.open(rig.out, os.O_RDONLY)
    try:
        assert mountinfo.remote(fd) == []
    finally:
        os.close(fd)
    push = rig.push()
    assert not push.events("watch.remote")
