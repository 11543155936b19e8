"""A daemon with more rights than other users.

The tests cover the files that it publishes, and the modes and names that it changes.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_attacker import SECRET, Home, attack, home
from tests.support.nobody import NOBODY
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.faults.rig import Rig

__all__ = ["home"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights that others lack")

WITHOUT = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
)
"""Root, but its files alone are open to it."""


def mine(home: Home, name: str, body: bytes = b"mine") -> None:
    home.write(name, body)
    os.chown(home.out / name, NOBODY, NOBODY)


def secret(home: Home, name: str, mode: int = 0o600, owner: int = 0) -> Path:
    """A file of root's, in a folder of the other user, as a service leaves it there."""
    file = home.out.parent / name
    file.write_bytes(SECRET)
    file.chmod(mode)
    os.chown(file, owner, owner)
    return file


def left_out(home: Home, name: str) -> str:
    """What the status says of it."""
    status = home.start("status", "--state-dir", str(home.push_state))
    status.wait()
    return next((line for line in status.stdout.splitlines() if name in line), "")


MOVED = "mv secret dir/secret"
IN_A_FOLDER = "mkdir made; mv secret made; mv made dir"
OVER = "mv secret dir/first"


@pytest.mark.parametrize(("mode", "owner"), [(0o600, 0), (0o644, 0), (0o640, 1)])
@pytest.mark.parametrize(
    "play", [MOVED, IN_A_FOLDER, OVER], ids=["moved", "in a folder", "over a file"]
)
def test_what_belongs_to_others_is_not_published_for_who_owns_the_directory(
    home: Home, play: str, mode: int, owner: int
) -> None:
    mine(home, "first")
    secret(home, "secret", mode, owner)
    push = home.push()
    home.until_pushed({"first": b"mine"})
    attack(home, play)
    mine(home, "second")
    wait_until(lambda: home.carried("push", "second"), timeout=30)
    time.sleep(4)
    assert SECRET not in home.objects().values()
    name = "first" if play == OVER else "secret"
    wait_until(lambda: f"belongs to user {owner}" in left_out(home, name), timeout=30)
    assert push.stop() == 143
    assert home.push("--once").wait() in (0, 1)
    assert SECRET not in home.objects().values()


def test_a_second_name_of_a_file_is_not_published(home: Home) -> None:
    """A user may link a file that the user may read and write.

    Where fs.protected_hardlinks is 0, any file may be linked.
    """
    mine(home, "first")
    secret(home, "secret", 0o666, NOBODY)
    push = home.push()
    attack(home, "ln secret dir/linked")
    wait_until(lambda: "has 2 names" in left_out(home, "linked"), timeout=30)
    assert home.objects() == {"first": b"mine"}
    attack(home, "rm secret")
    assert push.stop() == 143
    assert home.push("--once").wait() == 0
    assert home.objects() == {"first": b"mine", "linked": SECRET}, (
        "by its only name it is the other user's own"
    )


def test_a_save_by_link_and_unlink_is_published(home: Home) -> None:
    mine(home, "first")
    home.push()
    home.until_pushed({"first": b"mine"})
    for number in range(20):
        attack(
            home, f"echo {number} > dir/.tmp; ln dir/.tmp dir/saved{number}; sleep 0.1; rm dir/.tmp"
        )
    wait_until(lambda: sum(key.startswith("saved") for key in home.objects()) == 20, timeout=60)


@pytest.mark.parametrize("way", [(), ("--once",)], ids=["daemon", "once"])
def test_the_operator_may_have_all_of_it_published(home: Home, way: Sequence[str]) -> None:
    mine(home, "first")
    secret(home, "secret")
    secret(home, "linked", 0o666, NOBODY)
    attack(home, "mv secret dir/secret; ln linked dir/linked")
    push = home.push("--any-owner", *way)
    if way:
        assert push.wait() == 0
    home.until_pushed({"first": b"mine", "secret": SECRET, "linked": SECRET})


def test_a_daemon_of_no_special_rights_publishes_what_it_may_read(home: Home) -> None:
    mine(home, "first")
    secret(home, "theirs", 0o644, 1)
    attack(home, "mv theirs dir/theirs; ln dir/first dir/linked")
    pair = [
        "--directory",
        str(home.out),
        "--bucket",
        home.bucket.name,
        "--state-dir",
        str(home.push_state),
        "--once",
    ]
    push = home.start("push", *pair, endpoint=home.meddler.endpoint, inside=WITHOUT)
    assert push.wait() == 0, push.stderr
    assert home.objects() == {"first": b"mine", "linked": b"mine", "theirs": SECRET}


# Modes, which who may write to the bucket chooses


def pulled(rig: Rig, umask: int, *more: str) -> dict[str, int]:
    """The modes of all that a pull with this umask makes."""
    before = os.umask(umask)
    try:
        pull = rig.pull("--once", *more)
    finally:
        os.umask(before)
    assert pull.wait(timeout=60) == 0, pull.stderr
    found = (path for path in rig.into.rglob("*") if not path.name.startswith("."))
    return {str(path.relative_to(rig.into)): stat.S_IMODE(path.stat().st_mode) for path in found}


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_metadata_gives_no_more_than_the_umask_and_nothing_to_everybody(
    rig: Rig, umask: int
) -> None:
    for mode in ("0777", "0666", "0662", "0600", "0755", "106666", "0444", "7777"):
        rig.bucket.put(f"d/{mode}", b"1", mode=mode)
    rig.bucket.put("d/none", b"1")
    rig.bucket.put("d/large", bytes(9 << 20), mode="0666")
    modes = pulled(rig, umask)
    assert modes.pop("d") == 0o775 & ~umask
    asked = {
        name: int(name.removeprefix("d/"), 8) & 0o777
        for name in modes
        if name not in ("d/none", "d/large")
    }
    asked |= {"d/none": 0o644, "d/large": 0o666}
    assert modes == {name: mode & ~umask & ~0o002 for name, mode in asked.items()}


def test_what_everybody_may_write_is_made_where_umask_and_option_allow_it(rig: Rig) -> None:
    rig.bucket.put("shared", b"1", mode="0666")
    assert pulled(rig, 0o022, "--world-writable") == {"shared": 0o644}
    rig.bucket.put("shared", b"22", mode="0666")
    assert pulled(rig, 0o000, "--world-writable") == {"shared": 0o666}
    rig.bucket.put("shared", b"333", mode="0666")
    assert pulled(rig, 0o000) == {"shared": 0o664}


def test_a_mode_that_changes_later_gives_no_more_either(rig: Rig) -> None:
    rig.bucket.put("file", b"1", mode="0600")
    rig.pull()
    rig.until_pulled({"file": b"1"})
    rig.bucket.put("file", b"1", mode="0777")
    wait_until(lambda: stat.S_IMODE((rig.into / "file").stat().st_mode) == 0o755, timeout=30)


def test_agreed_modes_are_settled_work(rig: Rig) -> None:
    """The mode that counts is the one that the file can have: a second pass has nothing to do."""
    rig.bucket.put("file", b"1", mode="0777")
    assert pulled(rig, 0o022) == {"file": 0o755}
    before = (rig.into / "file").stat()
    rig.meddler.asked.clear()
    assert pulled(rig, 0o022) == {"file": 0o755}
    assert not [asked for asked in rig.meddler.asked if asked.name == "GetObject"]
    assert (rig.into / "file").stat().st_ctime_ns == before.st_ctime_ns


# Second names


@pytest.mark.parametrize("change", ["mode", "mtime", "both"])
def test_a_pulled_files_other_name_keeps_its_mode_and_mtime(rig: Rig, change: str) -> None:
    rig.bucket.put("file", b"1", mode="0640", mtime="1000000000.000000000")
    rig.pull()
    rig.until_pulled({"file": b"1"})
    other = rig.place / "other"
    os.link(rig.into / "file", other)
    before = other.stat()
    mode = "0640" if change == "mtime" else "0604"
    mtime = "1000000000.000000000" if change == "mode" else "1000000001.000000000"
    rig.bucket.put("file", b"1", mode=mode, mtime=mtime)

    def touched() -> bool:
        now = (rig.into / "file").stat()
        return (stat.S_IMODE(now.st_mode), now.st_mtime) == (int(mode, 8), float(mtime))

    wait_until(touched, timeout=30)
    after = other.stat()
    assert (after.st_mode, after.st_mtime_ns, other.read_bytes()) == (
        before.st_mode,
        before.st_mtime_ns,
        b"1",
    )
    assert (rig.into / "file").stat().st_nlink == 1
    assert [path.name for path in rig.into.iterdir()] == ["file"]
