"""A mount at the root or below it goes, comes back, or is another one.

Nothing is deleted because of that.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.namespaces import may_mount, mounted, seen_by, within
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.rig import Rig
    from tests.support.processes import Process

pytestmark = pytest.mark.skipif(not may_mount(), reason="only root may mount")

DISK = {"m/a": b"1", "m/deep/b": b"2"}
"""What is on the disk that is mounted at `m`."""


@pytest.fixture
def disk(rig: Rig) -> Path:
    """The directory that stands for a disk.

    Like a disk, it has the same contents and identity after each mount.
    """
    made = rig.place / "disk"
    (made / "deep").mkdir(parents=True)
    (made / "a").write_bytes(DISK["m/a"])
    (made / "deep" / "b").write_bytes(DISK["m/deep/b"])
    (rig.place / "empty").mkdir()
    return made


def inside(rig: Rig, *commands: str) -> Rig:
    """The rig whose daemons run where `commands` have mounted something."""
    return replace(rig, start=partial(rig.start, inside=mounted(*commands)))


def bound(what: Path, where: Path) -> str:
    return f"mount --bind '{what}' '{where}'"


def once(rig: Rig, role: str) -> Process:
    process = rig.push("--once", "--delete") if role == "push" else rig.pull("--once", "--delete")
    assert process.wait(timeout=60) == 0, process.stderr
    return process


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_root_that_is_unmounted_is_waited_for(rig: Rig, disk: Path, role: str) -> None:
    root = rig.out if role == "push" else rig.into
    root.mkdir(exist_ok=True)
    for path, content in DISK.items():
        rig.bucket.put(path.removeprefix("m/"), content)
    there = inside(rig, bound(disk, root))
    start = there.push if role == "push" else there.pull
    process = start("--delete")
    process.wait_event("reconcile.finished")
    within(process, f"umount -l '{root}'")
    process.wait_event("start.waiting")
    process.wait_for(lambda: "holds none of its files" in process.stderr, timeout=60)
    (disk / "a").unlink()  # what happens on the disk meanwhile is for later
    rig.bucket.put("from-elsewhere", b"3")
    assert rig.bucket.keys() == ["a", "deep/b", "from-elsewhere"]
    assert not list(root.iterdir())
    within(process, bound(disk, root))
    if role == "push":
        rig.until_pushed({"deep/b": b"2", "from-elsewhere": b"3"})
    else:
        wait_until(lambda: (disk / "from-elsewhere").exists(), timeout=60)
    assert process.stop() == 143


FAULTS = {
    "gone": ("umount -l '{m}'", "true"),
    "replaced": ("umount -l '{m}' && mount --bind '{empty}' '{m}'", "umount -l '{m}'"),
    "covered": ("mount -t tmpfs tmpfs '{m}'", "umount '{m}' && umount -l '{m}'"),
}
"""What happens to the mount at `m`, and what must be done before it can be mounted again."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mount_below_the_root_that_goes_deletes_nothing(rig: Rig, disk: Path, fault: str) -> None:
    m = rig.out / "m"
    m.mkdir()
    rig.write("plain", b"0")
    push = inside(rig, bound(disk, m)).push("--delete")
    rig.until_pushed({"plain": b"0", **DISK})
    broken, cleared = (command.format(m=m, empty=rig.place / "empty") for command in FAULTS[fault])
    within(push, broken)
    push.wait_event("path.skipped", path="m")
    (rig.out / "plain").unlink()
    push.signal(signal.SIGHUP)
    rig.until_pushed(DISK)  # the rest of the tree goes on, deletions included
    wait_until(lambda: "m: " in _status(rig), timeout=60, every=1)
    within(push, f"{cleared} && {bound(disk, m)}")
    (disk / "deep" / "b").unlink()
    (disk / "c").write_bytes(b"3")
    rig.until_pushed({"m/a": b"1", "m/c": b"3"})
    wait_until(lambda: "trouble         none" in _status(rig), timeout=60, every=1)
    (disk / "d").write_bytes(b"4")
    rig.until_pushed({"m/a": b"1", "m/c": b"3", "m/d": b"4"})


def _status(rig: Rig) -> str:
    page = rig.start("status", "--state-dir", str(rig.push_state), inside=())
    page.wait()
    return page.stdout


@pytest.mark.parametrize("fault", ["gone", "replaced"])
def test_a_mount_that_is_missing_after_a_restart_deletes_nothing(
    rig: Rig, disk: Path, fault: str
) -> None:
    m = rig.out / "m"
    m.mkdir()
    there = inside(rig, bound(disk, m))
    once(there, "push")
    assert rig.objects() == DISK
    without = rig if fault == "gone" else inside(rig, bound(rig.place / "empty", m))
    rig.write("plain", b"0")
    said = once(without, "push")
    assert said.events("path.skipped", path="m")
    assert rig.objects() == {"plain": b"0", **DISK}
    m.rmdir()  # even its mount point is gone
    once(rig, "push")
    assert rig.objects() == {"plain": b"0", **DISK}
    m.mkdir()
    (disk / "a").unlink()
    once(there, "push")
    assert rig.objects() == {"plain": b"0", "m/deep/b": b"2"}


def test_a_file_system_that_covers_files_deletes_nothing(rig: Rig, disk: Path) -> None:
    """A directory that was none of the mount points becomes one: its files are below, not gone."""
    for path, content in DISK.items():
        rig.write(path, content)
    push = inside(rig, "true").push("--delete")
    rig.until_pushed(DISK)
    within(push, bound(rig.place / "empty", rig.out / "m"))
    push.wait_event("path.skipped", path="m")
    assert rig.objects() == DISK
    within(push, f"umount -l '{rig.out / 'm'}'")
    (rig.out / "m" / "a").unlink()
    rig.until_pushed({"m/deep/b": b"2"})


def test_a_mount_that_is_meant_to_be_gone_is_so_after_resume(rig: Rig, disk: Path) -> None:
    (rig.out / "m").mkdir()
    push = inside(rig, bound(disk, rig.out / "m")).push("--delete")
    rig.until_pushed(DISK)
    within(push, f"umount -l '{rig.out / 'm'}'")
    push.wait_event("path.skipped", path="m")
    assert rig.start("resume", "--allow-deletes", "--state-dir", str(rig.push_state)).wait() == 0
    rig.until_pushed({})


def test_nothing_is_pulled_into_a_mount_point_without_its_disk(rig: Rig, disk: Path) -> None:
    for path, content in DISK.items():
        rig.bucket.put(path, content)
    m = rig.into / "m"
    m.mkdir(parents=True)
    pull = inside(rig, bound(disk, m)).pull("--delete")
    pull.wait_event("reconcile.finished")
    within(pull, f"umount -l '{m}'")
    pull.wait_event("path.skipped", path="m")
    rig.bucket.put("m/new", b"3")
    rig.bucket.put("m/a", b"changed")
    rig.bucket.put("plain", b"0")
    pull.wait_event("pull.written", path="plain")
    wait_until(lambda: rig.bucket.messages() == 0, timeout=30, every=0.5)
    assert not list(seen_by(pull, m).iterdir())
    assert [event["path"] for event in pull.events("path.skipped")][-1] == "m"
    within(pull, bound(disk, m))
    wait_until(
        lambda: (disk / "new").exists() and (disk / "a").read_bytes() == b"changed", timeout=60
    )


def test_the_kernels_own_file_systems_are_no_files(rig: Rig) -> None:
    (rig.out / "proc").mkdir()
    rig.write("file", b"1")
    said = once(inside(rig, f"mount -t proc proc '{rig.out / 'proc'}'"), "push")
    assert rig.objects() == {"file": b"1"}
    assert [event["path"] for event in said.events("path.skipped")] == ["proc"]
