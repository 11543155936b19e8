"""One bad path concerns itself alone.

No value, name, depth or leftover ends a daemon, its start or its memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.core import names
from tests.support.namespaces import as_its_owner_may, may_mount, mounted, seen_by, within
from tests.support.trees import deep, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.rig import Rig
    from tests.support.processes import Process

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
needs_mount = pytest.mark.skipif(not may_mount(), reason="only root may mount")


def well(process: Process) -> None:
    """It lives, and nothing was unforeseen."""
    assert process.running
    assert not process.events("internal.error")
    assert "Traceback" not in process.stderr


def page(rig: Rig, state: Path) -> tuple[int, dict[str, object]]:
    asked = rig.start("status", "--json", "--state-dir", str(state))
    code = asked.wait()
    assert (
        rig.start(
            "status",
            "--state-dir",
            str(state),
            env={"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"},
        ).wait()
        == code
    )
    return code, json.loads(asked.stdout)


def rows(state: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{state}/state.sqlite?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT path, mtime_ns FROM base"))


# Values


TIMES = {
    "the zero of Windows": -11_644_473_600 * 10**9,
    "year 1": -62_135_596_800 * 10**9,
    "below 64 bits": -(2**63) - 1,
    "above 64 bits": 2**63,
    "year 9999": 253_402_214_400 * 10**9,
    "year 1969": -1,
}


@pytest.fixture
def in_memory(rig: Rig) -> Iterator[Rig]:
    """On a file system that holds any time; a disk may clamp it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        made = replace(rig, place=Path(place))
        made.out.mkdir()
        os.utime(made.write("probe", b""), ns=(0, TIMES["year 1"]))
        if (made.out / "probe").stat().st_mtime_ns != TIMES["year 1"]:
            pytest.skip("no tmpfs at /dev/shm")
        (made.out / "probe").unlink()
        yield made


def test_no_time_of_a_file_ends_a_daemon(in_memory: Rig) -> None:
    rig = in_memory
    push = rig.push()
    wanted: dict[str, bytes] = {}
    for name, mtime in TIMES.items():
        os.utime(rig.write(name, name.encode()), ns=(0, mtime))
        rig.write(f"after {name}", b"1")
        wanted |= {name: name.encode(), f"after {name}": b"1"}
        rig.until_pushed(wanted)
    wait_until(lambda: rows(rig.push_state).keys() == wanted.keys(), timeout=30)
    well(push)
    assert push.stop() == 143
    again = rig.push("--once")
    assert again.wait() == 0, again.stderr
    assert not [event for event in again.events() if event["event"].startswith("push.")], (
        "each row has the time that it had"
    )
    assert {
        name: rig.bucket.head(name)["Metadata"]["mtime"].partition(".")[0]
        for name in ("year 1", "year 9999")
    } == {
        "year 1": "-62135596800",
        "year 9999": "253402214400",
    }
    pull = rig.pull()
    rig.until_pulled(wanted)
    well(pull)
    assert pull.stop() == 143
    last = rig.pull("--once")
    assert last.wait() == 0, last.stderr
    assert not last.events("pull.written")
    assert not last.events("pull.touched")


# The database


def damage(file: Path) -> None:
    with file.open("r+b") as written:
        for number in range(4, file.stat().st_size // 4096):
            written.seek(number * 4096)
            written.write(b"\xa5" * 4096)


def written_through(state: Path) -> None:
    """All of it in the file itself: what is in the log beside it does not ask the file."""
    with closing(sqlite3.connect(state / "state.sqlite")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize("role", ["push", "pull"])
def test_pages_that_are_damaged_while_it_runs_are_found_and_the_state_is_built_anew(
    rig: Rig, role: str
) -> None:
    files = {f"{number:03}/{'n' * 100}": b"%d" % number for number in range(400)}
    for path, content in files.items():
        rig.write(path, content) if role == "push" else rig.bucket.put(path, content)
    start = rig.push if role == "push" else rig.pull
    state = rig.push_state if role == "push" else rig.pull_state
    arrived = rig.until_pushed if role == "push" else rig.until_pulled
    daemon = start("--delete", "--reconcile-interval", "2s")
    arrived(files)
    wait_until(lambda: len(rows(state)) == len(files), timeout=30)
    written_through(state)
    damage(state / "state.sqlite")
    rebuilt = daemon.wait_event("state.rebuilt", timeout=60)
    assert "nothing is deleted" in rebuilt["message"]
    assert daemon.wait_event("start.waiting", timeout=10)["message"].startswith(
        "degraded: the state"
    )
    for path in ("new", "000/new"):
        files[path] = b"2"
        rig.write(path, b"2") if role == "push" else rig.bucket.put(path, b"2")
    arrived(files)
    wait_until(lambda: len(rows(state)) == len(files), timeout=60)
    wait_until(lambda: page(rig, state)[0] == 0, timeout=60, every=1)
    well(daemon)
    assert not [path for path in (*rig.objects(), *rig.pulled()) if ".conflict-" in path]
    assert (state / "state.sqlite.broken").exists()
    assert daemon.stop() == 143


def test_a_page_that_is_damaged_at_the_end_is_found_by_the_start_after_the_next(rig: Rig) -> None:
    """A clean end says that nothing need be read through: so what a call has met is remembered."""
    files = {f"{number:03}/{'n' * 100}": b"%d" % number for number in range(400)}
    for path, content in files.items():
        rig.write(path, content)
    assert rig.push("--once").wait() == 0
    damage(rig.push_state / "state.sqlite")
    first = rig.push("--once", "--delete")
    if first.wait():
        assert first.wait() == 69, first.stderr
        assert "the next start sets the database aside" in first.stderr
    rig.write("new", b"2")
    second = rig.push("--once", "--delete")
    assert second.wait() == 0, second.stderr
    assert first.events("state.rebuilt") or second.events("state.rebuilt")
    rig.until_pushed({**files, "new": b"2"})
    for push in (first, second):
        assert "Traceback" not in push.stderr


@pytest.mark.parametrize("what", ["state.sqlite", "state.sqlite-wal", "."])
def test_a_state_that_is_removed_under_a_daemon_is_missed_and_made_anew(
    rig: Rig, what: str
) -> None:
    rig.write("a", b"1")
    push = rig.push("--delete")
    rig.until_pushed({"a": b"1"})
    wait_until(lambda: "a" in rows(rig.push_state), timeout=30)
    away = rig.place / "away"
    (rig.push_state / what).resolve().rename(away)
    assert "removed or replaced" in push.wait_event("start.waiting", timeout=30)["message"]
    rig.write("b", b"2")
    rig.until_pushed({"a": b"1", "b": b"2"})
    wait_until(
        lambda: (
            (rig.push_state / "state.sqlite").exists() and rows(rig.push_state).keys() == {"a", "b"}
        ),
        timeout=60,
    )
    wait_until(lambda: page(rig, rig.push_state)[0] == 0, timeout=60, every=1)
    well(push)
    assert push.stop() == 143


@needs_mount
def test_a_disk_that_is_full_for_the_state_is_waited_for(rig: Rig) -> None:
    state, ballast = rig.push_state, rig.push_state / "ballast"
    small = f"mkdir -p '{state}' && mount -t tmpfs -o size=600k,mode=0700 tmpfs '{state}'"
    rig.write("a", b"1")
    push = replace(rig, start=partial(rig.start, inside=mounted(small))).push()
    rig.until_pushed({"a": b"1"})
    within(push, f"dd if=/dev/zero of='{ballast}' bs=4k 2>/dev/null; test -s '{ballast}'")
    wanted = {"a": b"1"}
    for number in range(300):
        wanted[f"{number}/{'n' * 200}"] = b"2"
        rig.write(f"{number}/{'n' * 200}", b"2")
    assert push.wait_event("state.unwritable", timeout=60)
    within(push, f"rm '{ballast}' && mount -o remount,size=20m '{state}'")
    push.wait_event("state.writable", timeout=60)
    rig.until_pushed(wanted)
    well(push)
    assert push.stop() == 143


# Depth


@contextlib.contextmanager
def bottomless(root: Path, levels: int) -> Iterator[None]:
    """Gone in the end: pytest's own way of removing it recurses."""
    root.mkdir(parents=True, exist_ok=True)
    deep(root, levels)
    try:
        yield
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=True)


@pytest.mark.parametrize("levels", [500, 1_500, 5_000])
@pytest.mark.parametrize("when", ["before the start", "while it runs"])
def test_push_goes_on_beside_a_tree_of_any_depth(rig: Rig, levels: int, when: str) -> None:
    rig.write("a", b"1")
    with contextlib.ExitStack() as stack:
        if when == "before the start":
            stack.enter_context(bottomless(rig.out / "theirs", levels))
        push = rig.push("--delete")
        if when == "while it runs":
            stack.enter_context(bottomless(rig.out / "theirs", levels))
        wanted = {"a": b"1", "b/c": b"2"} | (
            {"theirs/" + "d/" * levels + "f": b""} if levels == 500 else {}
        )
        rig.write("b/c", b"2")
        rig.until_pushed(wanted)
        (rig.out / "theirs" / "d" / "g").write_bytes(b"3")
        rig.until_pushed({**wanted, "theirs/d/g": b"3"})
        code, told = page(rig, rig.push_state)
        assert (code, told["trouble"]) == (0, "")
        assert told["left_out_count"] == (0 if levels == 500 else 1)
        well(push)
    rig.until_pushed({"a": b"1", "b/c": b"2"}, timeout=90)
    well(push)
    assert push.stop() == 143


@pytest.mark.parametrize("levels", [500, 5_000])
def test_pull_starts_and_goes_on_in_a_tree_of_any_depth(rig: Rig, levels: int) -> None:
    with bottomless(rig.into / "theirs", levels):
        rig.bucket.put("a", b"1")
        key = "k/" * 500 + "f"
        rig.bucket.put(key, b"2")
        pull = rig.pull("--delete")
        wait_until(lambda: (rig.into / "a").exists() and (rig.into / key).exists(), timeout=60)
        rig.bucket.put("b", b"3")
        wait_until(lambda: (rig.into / "b").exists(), timeout=60)
        rig.bucket.delete(key)
        wait_until(lambda: not (rig.into / "k").exists(), timeout=60)
        well(pull)
        assert (rig.into / "theirs" / "d").is_dir()
        assert pull.stop() == 143


# Names


def no_utf8(root: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(root) + b"/" + name))


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
def test_a_directory_whose_name_is_no_utf_8_is_left_out_in_every_list(rig: Rig, when: str) -> None:
    for number in range(50):
        rig.write(f"{'azé'[number % 3]}{number}/f", b"1")
    wanted = {path.relative_to(rig.out).as_posix(): b"1" for path in rig.out.rglob("f")}
    push = None if when == "before the start" else rig.push("--delete")
    if push is not None:
        rig.until_pushed(wanted)
    odd = [no_utf8(rig.out, name) for name in (b"caf\xe9", b"\xff\xfe", b"b\x80z")]
    for place in odd:
        (place / "in").mkdir(parents=True)
        (place / "in" / "f").write_bytes(b"2")
        (place / "g").write_bytes(b"3")
        place.with_name(place.name + ".txt").write_bytes(b"4")
    push = push or rig.push("--delete")
    rig.until_pushed(wanted)
    rig.write("later/f", b"5")
    rig.until_pushed(wanted := {**wanted, "later/f": b"5"})
    (rig.out / "a0" / "f").unlink()
    del wanted["a0/f"]
    rig.until_pushed(wanted)
    wait_until(lambda: len(rows(rig.push_state)) == len(wanted), timeout=30)
    wait_until(
        lambda: {"caf\\xe9", "\\xff\\xfe", "b\\x80z", "caf\\xe9.txt"} <= set(left_out(rig)),
        timeout=30,
    )
    code, told = page(rig, rig.push_state)
    assert (code, told["trouble"]) == (0, "")
    odd[0].rename(rig.out / "fine")
    rig.until_pushed(wanted := {**wanted, "fine/in/f": b"2", "fine/g": b"3"})
    (rig.out / "z1").rename(no_utf8(rig.out, b"z\xe9"))
    del wanted["z1/f"]
    rig.until_pushed(wanted, timeout=90)
    no_utf8(rig.out, b"late\xe9").mkdir()
    (no_utf8(rig.out, b"late\xe9") / "f").write_bytes(b"6")
    rig.write("at the end", b"7")
    well(push)
    assert push.stop() == 143
    rig.until_pushed({**wanted, "at the end": b"7"})
    assert rig.push("--once", "--delete").wait() == 0
    again = rig.push("--once", "--delete")
    assert again.wait() == 0
    looks = again.events("reconcile.finished")
    assert looks[0]["message"].endswith(" 0 to settle")
    known = left_out(rig)
    assert rig.push("--once").wait() == 0
    assert left_out(rig) == known, "a second look forgets none of them"


def test_a_root_whose_name_is_no_utf_8_is_served_and_shown(rig: Rig) -> None:
    root = no_utf8(rig.place, b"caf\xe9")
    root.mkdir()
    (root / "a").write_bytes(b"1")
    there = [
        "--directory",
        str(root),
        "--bucket",
        rig.bucket.name,
        "--state-dir",
        str(rig.push_state),
        "--log-format",
        "json",
    ]
    push = rig.start("push", *there, endpoint=rig.meddler.endpoint)
    rig.until_pushed({"a": b"1"})
    wait_until(lambda: page(rig, rig.push_state)[0] == 0, timeout=30, every=1)
    root.rename(rig.place / "away")
    push.wait_event("start.waiting", timeout=30)
    wait_until(lambda: page(rig, rig.push_state)[0] == 1, timeout=30, every=1)
    well(push)
    assert push.stop() == 143


def left_out(rig: Rig) -> list[str]:
    with closing(sqlite3.connect(f"file:{rig.push_state}/state.sqlite?mode=ro", uri=True)) as db:
        return [path for (path,) in db.execute("SELECT path FROM unsyncable ORDER BY path")]


@needs_mount
@pytest.mark.parametrize("when", ["before the start", "while it runs"])
@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_mount_whose_name_is_no_utf_8_ends_nothing(rig: Rig, role: str, when: str) -> None:
    """The shell gets its name by printf: the command of the namespace is UTF-8."""
    root = rig.out if role == "push" else rig.into
    root.mkdir(exist_ok=True)
    mount = (
        f"""m="$(printf '{root}/m\\377')" && mkdir -p "$m" """
        """&& mount -t tmpfs none "$m" && touch "$m/f" """
    )
    inside = mounted(mount) if when == "before the start" else mounted("true")
    there = replace(rig, start=partial(rig.start, inside=inside))
    daemon = there.push() if role == "push" else there.pull()
    if when == "while it runs":
        within(daemon, mount)
        time.sleep(3)
    for number in range(2):
        rig.write(f"{number}", b"1") if role == "push" else rig.bucket.put(f"{number}", b"1")
        if role == "push":
            wait_until(lambda: f"{number}" in rig.objects(), timeout=30)  # noqa: B023
        else:
            wait_until(lambda: (seen_by(daemon, root) / f"{number}").exists(), timeout=30)  # noqa: B023
    well(daemon)
    within(daemon, f"""umount "$(printf '{root}/m\\377')" """)
    time.sleep(3)
    well(daemon)
    assert daemon.stop() == 143
    assert (there.push if role == "push" else there.pull)("--once").wait() == 0


# Leftovers


def hidden(number: int) -> str:
    return f".syncloud-tmp-{number:016x}-{number:016x}"


@needs_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is part of util-linux")
def test_leftovers_that_may_not_be_removed_stay_and_the_start_goes_on(rig: Rig) -> None:
    """Hidden names: in a foreign directory, a directory, a link, a pipe, and a removable file."""
    theirs, ours = rig.into / "theirs", rig.into / "ours"
    theirs.mkdir(parents=True)
    ours.mkdir()
    for number in range(20):
        (theirs / hidden(number)).write_bytes(b"1")
    no_utf8(theirs, b"\xe9").mkdir()
    (no_utf8(theirs, b"\xe9") / hidden(1)).write_bytes(b"1")
    os.chown(theirs, 65534, 65534)
    (ours / hidden(1)).mkdir()
    (ours / hidden(2)).symlink_to(theirs)
    os.mkfifo(ours / hidden(3))
    (ours / hidden(4)).write_bytes(b"kept")
    before = sorted(os.listdir(theirs))
    rig.bucket.put("a", b"1")
    pull = replace(rig, start=partial(rig.start, inside=as_its_owner_may())).pull()
    wait_until(lambda: (rig.into / "a").exists(), timeout=30)
    assert sorted(os.listdir(theirs)) == before
    assert sorted(name for name in os.listdir(ours) if name.startswith(".syncloud")) == [
        hidden(1),
        hidden(2),
        hidden(3),
    ]
    (kept,) = ours.glob("recovered.conflict-*")
    assert kept.read_bytes() == b"kept"
    told = pull.events("leftover.stays")
    assert [event["error_code"] for event in told] == ["EACCES"], "once, and then counted"
    well(pull)
    assert pull.stop() == 143


def test_thousands_of_leftovers_are_cleaned_up_while_others_take_them_away(rig: Rig) -> None:
    place = rig.into / "place"
    place.mkdir(parents=True)
    for number in range(3_000):
        (place / hidden(number)).write_bytes(b"1")
    rig.bucket.put("a", b"1")
    pull = rig.pull(ready=False)
    wait_until(
        lambda: any("recovered" in name for name in os.listdir(place)) or not pull.running,
        timeout=60,
        every=0.01,
    )
    for name in os.listdir(place):
        if name.startswith(".syncloud"):
            with contextlib.suppress(FileNotFoundError):
                (place / name).unlink()
    wait_until(lambda: (rig.into / "a").exists() or not pull.running, timeout=60)
    well(pull)
    assert not [name for name in os.listdir(place) if names.is_hidden(name)]
    assert pull.stop() == 143
