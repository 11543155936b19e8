"""Another file system, or another directory, in place of the root or a mount point.

The daemon asks, and deletes nothing. The numbers of device and inode repeat in most of these cases:
a loop device, a tmpfs, a root inode.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.namespaces import may_mount, mounted, seen_by, within
from tests.support.processes import Process
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.rig import Rig

pytestmark = pytest.mark.skipif(not may_mount(), reason="only root may mount")

FILES = {f"d{number % 3}/file {number}": b"%d" % number for number in range(20)}
"""Fewer than the guard of mass deletions ever holds back."""
MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
SIZE = {"ext4": 16, "xfs": 320, "btrfs": 200}
"""Megabytes, sparse: the least that their tools take."""


@cache
def may_loop(kind: str) -> str:
    """Why a file system of this kind cannot be mounted from an image here, or an empty string."""
    if shutil.which(MKFS[kind][0]) is None:
        return f"{MKFS[kind][0]} is not there"
    if kind not in Path("/proc/filesystems").read_text().split():
        return f"this kernel has no {kind}"
    ran = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    return "" if ran.returncode == 0 else f"no loop device: {ran.stderr.strip()}"


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system for which `mount(where)` gives the mount command of the shell.

    Each call of `new` makes another one.
    """

    rig: Rig
    kind: str
    name: str

    @property
    def image(self) -> Path:
        return self.rig.place / f"{self.name}.img"

    def mount(self, where: Path) -> str:
        if self.kind in MKFS:
            return f"mount -o loop '{self.image}' '{where}'"
        return (
            f"mount -t {self.kind} '{self.name}' '{where}' && "
            f"{{ test ! -d '{self.seed}' || cp -a '{self.seed}/.' '{where}'; }}"
        )

    @property
    def seed(self) -> Path:
        """What a file system without a disk holds from its mount on."""
        return self.rig.place / f"{self.name}.seed"

    def fill(self, files: dict[str, bytes]) -> None:
        self.seed.mkdir()
        for path, content in files.items():
            (self.seed / path).parent.mkdir(parents=True, exist_ok=True)
            (self.seed / path).write_bytes(content)
        if self.kind in MKFS:
            self.do(f"cp -a '{self.seed}/.' .")

    def do(self, command: str) -> None:
        """Run it in the root of the file system, while nobody else has it mounted."""
        where = self.rig.place / "elsewhere"
        where.mkdir(exist_ok=True)
        script = f"{self.mount(where)} && cd '{where}' && {command}"
        subprocess.run([*mounted(script), "true"], check=True, capture_output=True)


def new(rig: Rig, kind: str, name: str, files: dict[str, bytes] | None = None) -> Disk:
    made = Disk(rig, kind, name)
    if kind in MKFS:
        if reason := may_loop(kind):
            pytest.skip(reason)
        with made.image.open("wb") as file:
            file.truncate(SIZE[kind] * 1024 * 1024)
        subprocess.run([*MKFS[kind], str(made.image)], check=True, capture_output=True)
    if files is not None:
        made.fill(files)
    return made


def on(rig: Rig, disk: Disk, where: Path | None = None) -> Rig:
    """The rig whose processes have `disk` mounted at `where`, by default the pushed directory."""
    return replace(rig, start=partial(rig.start, inside=mounted(disk.mount(where or rig.out))))


@contextlib.contextmanager
def lasting(rig: Rig, command: str) -> Iterator[tuple[Rig, Process]]:
    """A namespace in which `command` has mounted a file system, and which stays.

    The processes of the rig run in there.
    """
    argv = [*mounted(command), "sh", "-c", "echo mounted >&2; exec sleep 600"]
    with Process(
        argv, directory=rig.place / "holder", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    ) as holder:
        holder.wait_for("mounted")
        entered = ["nsenter", "--mount", "--target", str(holder.pid)]
        yield replace(rig, start=partial(rig.start, inside=entered)), holder


def once(rig: Rig, role: str, code: int = 0) -> Process:
    process = (rig.push if role == "push" else rig.pull)("--once", "--delete")
    assert process.wait(timeout=90) == code, process.stderr
    return process


def resume(rig: Rig, state: Path) -> None:
    assert rig.start("resume", "--allow-deletes", "--state-dir", str(state), inside=()).wait() == 0


def root_of(rig: Rig, role: str) -> Path:
    root = rig.out if role == "push" else rig.into
    root.mkdir(exist_ok=True)
    return root


def begin(rig: Rig, role: str, kind: str) -> tuple[Disk, Path]:
    """A disk at the root of `role`, whose files are in the bucket and in the state."""
    root = root_of(rig, role)
    disk = new(rig, kind, "first", FILES)
    if role == "pull":
        for path, content in FILES.items():
            rig.bucket.put(path, content)
    once(on(rig, disk, root), role)
    assert rig.objects() == FILES
    return disk, root


def meta(state: Path, name: str, value: str | None = None) -> str:
    """What the state says of it; with a `value`, what it is to say."""
    with contextlib.closing(sqlite3.connect(state / "state.sqlite", isolation_level=None)) as db:
        if value is not None:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))
        (found,) = db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return str(found)


KINDS = ["tmpfs", "ext4", "xfs", "btrfs", "ramfs"]
"""The last has neither a UUID nor a file handle."""


# Between two runs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["push", "pull"])
def test_another_empty_file_system_at_the_root_deletes_nothing(
    rig: Rig, role: str, kind: str
) -> None:
    _, root = begin(rig, role, kind)
    other = on(rig, new(rig, kind, "second"), root)
    refused = once(other, role, code=69)
    assert "holds none of its files" in refused.stderr
    assert "resume INSTANCE --allow-deletes" in refused.stderr
    daemon = (other.push if role == "push" else other.pull)("--delete", ready=False)
    daemon.wait_event("start.waiting")
    assert not [path for path in seen_by(daemon, root).iterdir() if path.name != "lost+found"]
    assert rig.objects() == FILES


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_the_same_file_system_needs_no_familiar_file(rig: Rig, kind: str) -> None:
    """A new mount has other numbers, and the disk was emptied meanwhile.

    The UUID and the handle are enough.
    """
    disk, _ = begin(rig, "push", kind)
    disk.do("rm -rf d0 d1 d2")
    busy = new(rig, kind, "busy")
    (rig.place / "busy").mkdir()
    there = mounted(
        busy.mount(rig.place / "busy"), disk.mount(rig.out)
    )  # the device that was free is taken
    once(replace(rig, start=partial(rig.start, inside=there)), "push")
    assert rig.objects() == {}


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_restored_copy_is_recognised_by_its_files(rig: Rig, role: str, kind: str) -> None:
    disk, root = begin(rig, role, kind)
    copy = new(rig, kind, "second")
    (rig.place / "from").mkdir()
    (rig.place / "to").mkdir()
    restore = mounted(
        disk.mount(rig.place / "from"),
        copy.mount(rig.place / "to"),
        "cp -a from/. to && rm 'to/d0/file 0'",
    )
    subprocess.run([*restore, "true"], check=True, cwd=rig.place)
    told = once(on(rig, copy, root), role)
    assert told.events("directory.recognised")
    assert not once(on(rig, copy, root), role).events("directory.recognised"), "it is remembered"
    if role == "push":
        assert rig.objects() == {
            path: content for path, content in FILES.items() if path != "d0/file 0"
        }
    else:
        assert rig.objects() == FILES


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_a_tree_that_is_made_anew_in_memory_is_recognised_by_its_files(rig: Rig, kind: str) -> None:
    disk, _ = begin(rig, "push", kind)
    (disk.seed / "d0" / "file 0").unlink()
    assert bool(once(on(rig, disk), "push").events("directory.recognised")) == (kind == "tmpfs"), (
        "nothing is known of ramfs"
    )
    assert rig.objects() == {
        path: content for path, content in FILES.items() if path != "d0/file 0"
    }


@pytest.mark.parametrize("kind", ["ext4", "ramfs"])
def test_files_of_the_same_names_are_not_familiar(rig: Rig, kind: str) -> None:
    """Another generation of the disk: some of the names are there, with other bytes."""
    begin(rig, "push", kind)
    other = new(rig, kind, "second", dict.fromkeys(list(FILES)[:5], b"of another generation"))
    once(on(rig, other), "push", code=69)
    assert rig.objects() == FILES


def test_an_older_copy_of_the_image_deletes_nothing(rig: Rig) -> None:
    """UUID, handle and inode numbers are equal.

    Only the directories show that nothing was removed from them.
    """
    disk = new(rig, "ext4", "first")
    older = Disk(rig, "ext4", "older")
    shutil.copyfile(disk.image, older.image)
    disk.fill(FILES)
    once(on(rig, disk), "push")
    assert "an older copy" in once(on(rig, older), "push", code=69).stderr
    assert rig.objects() == FILES
    disk.do("rm -rf d0 d1 d2")
    once(on(rig, disk), "push")
    assert rig.objects() == {}


def test_a_new_file_system_with_the_old_uuid_deletes_nothing(rig: Rig) -> None:
    """A host that is set up anew gets the old UUID, so that its fstab goes on working.

    The handle of an ext4's root never differs.
    """
    first, second = new(rig, "ext4", "first", FILES), Disk(rig, "ext4", "second")
    once(on(rig, first), "push")
    asked = ["blkid", "-s", "UUID", "-o", "value", str(first.image)]
    uuid = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    with second.image.open("wb") as file:
        file.truncate(first.image.stat().st_size)
    subprocess.run(
        [*MKFS["ext4"], "-U", uuid.strip(), str(second.image)], check=True, capture_output=True
    )
    once(on(rig, second), "push", code=69)
    assert rig.objects() == FILES


def test_a_directory_of_the_same_inode_number_is_not_the_root(rig: Rig) -> None:
    """The inode number of a directory that was removed is given again, to the next one."""
    disk = new(rig, "ext4", "first", {f"root/{path}": content for path, content in FILES.items()})
    bind = f"mount --bind '{rig.out}/root' '{rig.out}'"
    there = mounted(disk.mount(rig.out), bind)
    once(replace(rig, start=partial(rig.start, inside=there)), "push")
    disk.do(
        "stat -c %i root >before; rm -rf root && mkdir root && "
        "stat -c %i root >after && cmp before after"
    )
    once(replace(rig, start=partial(rig.start, inside=there)), "push", code=69)
    assert rig.objects() == FILES


# Nobody can tell


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_root_that_nothing_proves_waits_until_somebody_says_that_it_is_meant(
    rig: Rig, role: str
) -> None:
    root = root_of(rig, role)
    disk = new(rig, "ramfs", "first", FILES if role == "push" else {})
    if role == "pull":
        for path, content in FILES.items():
            rig.bucket.put(path, content)
    with lasting(rig, disk.mount(root)) as (there, holder):
        once(there, role)
        within(holder, f"rm -rf '{root}'/d*")
        assert "syncloud resume INSTANCE --allow-deletes" in once(there, role, code=69).stderr
        start = partial(there.push if role == "push" else there.pull, "--delete")
        daemon = start(ready=False)
        daemon.wait_event("start.waiting")
        assert rig.objects() == FILES
        resume(rig, rig.push_state if role == "push" else rig.pull_state)
        daemon.wait_event("service.started", timeout=90)
        if role == "push":
            rig.until_pushed({})
        else:
            wait_until(lambda: (seen_by(holder, root) / "d0" / "file 0").exists(), timeout=60)
            assert rig.objects() == FILES
        assert daemon.stop() == 143
        once(there, role)


def test_a_single_pass_follows_what_somebody_has_said_for_the_root_and_below(rig: Rig) -> None:
    (rig.out / "m").mkdir()
    disk, below = new(rig, "tmpfs", "first", FILES), new(rig, "tmpfs", "below", {"inner": b"1"})
    command = [disk.mount(rig.out), f"mkdir -p '{rig.out}/m'", below.mount(rig.out / "m")]
    once(replace(rig, start=partial(rig.start, inside=mounted(*command))), "push")
    assert rig.objects() == FILES | {"m/inner": b"1"}
    other = on(rig, new(rig, "tmpfs", "second"))
    once(other, "push", code=69)
    resume(rig, rig.push_state)
    once(other, "push")
    assert rig.objects() == {}


def test_an_edit_while_nothing_can_be_proven_is_no_reason_to_wait(rig: Rig) -> None:
    disk, _ = begin(rig, "push", "ramfs")
    for path in FILES:
        (disk.seed / path).write_bytes(b"edited")
    once(on(rig, disk), "push")
    assert set(rig.objects().values()) == {b"edited"}


def test_a_root_on_a_fuse_file_system_is_recognised_by_its_files(rig: Rig) -> None:
    """No UUID is there. The handle is the same for any root, or another one with every mount."""
    if shutil.which("bindfs") is None or not Path("/dev/fuse").exists():
        pytest.skip("bindfs is not installed, or there is no /dev/fuse")
    for name in ("first", "second"):
        (rig.place / name / "root").mkdir(parents=True)
        (
            rig.place / name / "root" / "a"
        ).mkdir()  # what is below a root has a handle by the order of the looks
    for path, content in FILES.items():
        (rig.place / "first" / "root" / path).parent.mkdir(exist_ok=True)
        (rig.place / "first" / "root" / path).write_bytes(content)

    def through(name: str) -> Rig:
        bound = f"mount --bind '{rig.out}/root' '{rig.out}'"
        server = (
            f"{{ bindfs -f '{rig.place}/{name}' '{rig.out}' & }}"  # it ends with the process group
        )
        ready = f"until mountpoint -q '{rig.out}'; do sleep 0.05; done"
        there = mounted(server, ready, f"ls -R '{rig.out}' >'{rig.place}/ls'", bound)
        return replace(rig, start=partial(rig.start, inside=there))

    once(through("first"), "push")
    assert json.loads(meta(rig.push_state, "root")) == ["", ""]
    once(through("second"), "push", code=69)
    assert rig.objects() == FILES
    (rig.place / "first" / "root" / "d0" / "file 0").unlink()
    assert not once(through("first"), "push").events("directory.recognised")
    assert rig.objects() == {
        path: content for path, content in FILES.items() if path != "d0/file 0"
    }


# What earlier versions have kept


@pytest.mark.parametrize("same", [True, False])
def test_a_state_of_an_earlier_version_asks_for_familiar_files_once(rig: Rig, same: bool) -> None:
    disk, _ = begin(rig, "push", "ext4")
    kept = meta(rig.push_state, "root")
    meta(rig.push_state, "root", "2")  # the inode number of the root of every ext4
    if not same:
        once(on(rig, new(rig, "ext4", "second")), "push", code=69)
        assert rig.objects() == FILES
        assert meta(rig.push_state, "root") == "2"
    once(on(rig, disk), "push")
    assert meta(rig.push_state, "root") == kept
    disk.do("rm -rf d0 d1 d2")
    once(on(rig, disk), "push")
    assert rig.objects() == {}


@pytest.mark.parametrize("same", [True, False])
def test_a_state_of_an_earlier_version_with_mounts_asks_for_familiar_files(
    rig: Rig, same: bool
) -> None:
    m = rig.out / "m"
    m.mkdir()
    disk = new(rig, "ext4", "first", FILES)
    once(on(rig, disk, m), "push")
    pushed = {f"m/{path}": content for path, content in FILES.items()}
    kept = json.loads(meta(rig.push_state, "mounts"))
    meta(rig.push_state, "mounts", json.dumps({"m": [1792, 2]}))
    second = disk if same else new(rig, "ext4", "second")
    assert bool(once(on(rig, second, m), "push").events("path.skipped", path="m")) != same
    assert rig.objects() == pushed
    assert (json.loads(meta(rig.push_state, "mounts")) == kept) == same


# Below the root, and while it runs


@pytest.mark.parametrize("kind", KINDS)
def test_another_empty_file_system_below_the_root_deletes_nothing(rig: Rig, kind: str) -> None:
    m = rig.out / "m"
    m.mkdir()
    disk = new(rig, kind, "first", FILES)
    once(on(rig, disk, m), "push")
    pushed = {f"m/{path}": content for path, content in FILES.items()}
    assert rig.objects() == pushed
    assert once(on(rig, new(rig, kind, "second"), m), "push").events("path.skipped", path="m")
    assert rig.objects() == pushed
    once(on(rig, disk, m), "push")
    assert rig.objects() == pushed


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_the_same_file_system_below_the_root_needs_no_familiar_file(rig: Rig, kind: str) -> None:
    m = rig.out / "m"
    m.mkdir()
    disk = new(rig, kind, "first", FILES)
    once(on(rig, disk, m), "push")
    disk.do("rm -rf d0 d1 d2")
    once(on(rig, disk, m), "push")
    assert rig.objects() == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", [".", "m"])
def test_another_file_system_at_once_in_its_place_deletes_nothing(
    rig: Rig, where: str, kind: str
) -> None:
    """While a push runs: the next file system gets the numbers of the one before, or covers it."""
    place = rig.out / where
    place.mkdir(exist_ok=True)
    disk, other = new(rig, kind, "first", FILES), new(rig, kind, "second")
    push = on(rig, disk, place).push("--delete")
    pushed = {(f"m/{path}" if where == "m" else path): content for path, content in FILES.items()}
    rig.until_pushed(pushed)
    within(push, f"umount -l '{place}'; {other.mount(place)}")
    if where == "m":
        push.wait_event("path.skipped", path="m")
        push.signal(signal.SIGHUP)
        wait_until(lambda: len(push.events("reconcile.finished")) > 1, timeout=60)
    else:
        push.wait_event("start.waiting", timeout=60)
        push.wait_for(lambda: "holds none of its files" in push.stderr, timeout=60)
    assert rig.objects() == pushed
    within(push, f"umount -l '{place}'; {disk.mount(place)}")
    back = seen_by(push, place) / "back"
    back.write_bytes(b"1")
    rig.until_pushed(pushed | {"m/back" if where == "m" else "back": b"1"}, timeout=120)


def test_another_file_system_at_once_in_its_place_gets_no_download(rig: Rig) -> None:
    root, m = root_of(rig, "pull"), rig.into / "m"
    m.mkdir()
    rig.bucket.put("m/a", b"1")
    disk, other = new(rig, "tmpfs", "first"), new(rig, "tmpfs", "second")
    pull = on(rig, disk, m).pull("--delete")
    wait_until(lambda: (seen_by(pull, m) / "a").exists(), timeout=60)
    within(pull, f"umount '{m}' && {other.mount(m)}")
    rig.bucket.put("m/b", b"2")
    rig.bucket.put("plain", b"3")
    wait_until(lambda: (seen_by(pull, root) / "plain").exists(), timeout=60)
    pull.wait_event("path.skipped", path="m/b", timeout=60)
    assert not list(seen_by(pull, m).iterdir())


def test_a_mount_point_of_a_name_that_is_not_utf_8_takes_no_part_and_ends_nothing(rig: Rig) -> None:
    place = f"'{rig.out}'/$(printf 'm\\377')"
    rig.write("plain", b"1")
    made = mounted(f"mkdir -p {place}", f"mount -t tmpfs t {place}", f"echo 1 >{place}/file")
    for _ in range(2):
        once(replace(rig, start=partial(rig.start, inside=made)), "push")
    assert rig.objects() == {"plain": b"1"}
    assert meta(rig.push_state, "mounts") == "{}", "earlier versions cannot look it up"


# What an older kernel or a sandbox refuses

REFUSED = ("name_to_handle_at:error=EPERM", "statx:error=ENOSYS", "fstatfs:error=EPERM")


def refusing(*calls: str) -> list[str]:
    """The beginning of a command for which the kernel refuses these calls."""
    assert shutil.which("strace"), "the tests need strace"
    return ["strace", "-f", "-qq", "-o", "/dev/null", *(f"--inject={call}" for call in calls)]


@pytest.mark.parametrize("emptied", [False, True])
def test_a_kernel_that_tells_nothing_leaves_it_to_the_files(rig: Rig, emptied: bool) -> None:
    """An older kernel, or a filter of system calls.

    Neither case is a reason to fail, nor to accept a deletion.
    """
    m = rig.out / "m"
    m.mkdir()
    rig.write("plain", b"0")
    disk = new(rig, "ext4", "first", FILES)
    there = replace(
        rig, start=partial(rig.start, inside=[*mounted(disk.mount(m)), *refusing(*REFUSED)])
    )
    once(there, "push")
    pushed = {f"m/{path}": content for path, content in FILES.items()} | {"plain": b"0"}
    assert rig.objects() == pushed
    assert json.loads(meta(rig.push_state, "root")) == ["", ""]
    assert json.loads(meta(rig.push_state, "mounts")) == {"m": ["", ""]}
    disk.do("rm -rf d0 d1 d2" if emptied else "rm 'd0/file 0'")
    once(there, "push")
    assert rig.objects() == (
        pushed if emptied else {path: one for path, one in pushed.items() if path != "m/d0/file 0"}
    )


@pytest.mark.parametrize(
    "refused", [("statx:error=ENOSYS",), REFUSED], ids=["no number", "nothing"]
)
def test_where_mounts_have_no_numbers_the_next_one_is_asked_for_its_files(
    rig: Rig, refused: tuple[str, ...]
) -> None:
    m = rig.out / "m"
    m.mkdir()
    disk, other = new(rig, "tmpfs", "first", FILES), new(rig, "tmpfs", "second")
    push = replace(
        rig, start=partial(rig.start, inside=[*mounted(disk.mount(m)), *refusing(*refused)])
    ).push("--delete")
    pushed = {f"m/{path}": content for path, content in FILES.items()}
    rig.until_pushed(pushed)
    within(push, f"umount '{m}'; {other.mount(m)}")  # it has the same numbers of device and inode
    push.wait_event("path.skipped", path="m", timeout=60)
    rig.write("later", b"1")
    rig.until_pushed(pushed | {"later": b"1"})
