"""MountGuard: files below a lost mount are not absent.

A new mount proves that it is the old one.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core.model import Absent, Unknown
from syncloud.local import mount_guard
from syncloud.local.mount_guard import MountGuard
from tests.support.namespaces import may_mount, mounted
from tests.support.trees import opened

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator
    from pathlib import Path

    from syncloud.core.model import Side, Tag

needs_mounts = pytest.mark.skipif(not may_mount(), reason="only root may mount")
LOST = {"m/disk": ("fsid:a", "1")}
"""The note of a state about a mount that is not there."""


@contextmanager
def guarded(root: Path, *files: str) -> Iterator[MountGuard]:
    """The guard of `root`, with these files in the base, and a disk at m/disk earlier."""

    def known(under: str, beside: Collection[str]) -> Generator[tuple[str, Tag], None, None]:
        yield from (
            (path, ("1", "2", "3", "4"))
            for path in files
            if path.startswith(f"{under}/" if under else "")
        )

    with opened(root) as fd:
        guard = MountGuard(root, fd, known=known, ignored=lambda _: False)
        guard.load(LOST)
        try:
            yield guard
        finally:
            guard.close()


def test_below_a_mount_that_has_gone_nothing_is_absent_until_somebody_says_so(
    tmp_path: Path,
) -> None:
    with guarded(tmp_path, "m/disk/file", "plain") as guard:
        guard.look()
        assert guard.consume_change()
        assert not guard.consume_change(), "it is told once"
        for path in ("m/disk/file", "m/disk/", "m/disk/deep/er"):
            assert (
                guard.doubt_absence(path)
                == "m/disk: the file system of this mount point is not mounted"
            )
        for path in ("plain", "m/", "m/disk", "m/disk2/file", "m"):
            assert guard.doubt_absence(path) is None, (
                "its place is a directory like any other, and so is the rest"
            )
        assert str(tmp_path / "m/disk") in str(guard.trouble())
        assert (
            [side.path for side in guard.skipped("")]
            == [side.path for side in guard.skipped("m")]
            == ["m/disk"]
        )
        assert guard.skipped("m/disk") == guard.skipped("plain") == []
        assert guard.dump() == LOST, "it is asked for after a restart, too"
        guard.look(accept=True)
        assert (guard.doubt_absence("m/disk/file"), guard.trouble(), guard.dump()) == (
            None,
            None,
            {},
        )


def test_a_mount_of_which_the_base_has_no_file_is_not_missed(tmp_path: Path) -> None:
    with guarded(tmp_path, "m/disk2/file", "plain") as guard:
        guard.look()
        assert (guard.doubt_absence("m/disk/file"), guard.trouble(), guard.dump()) == (
            None,
            None,
            {},
        )


def test_where_nothing_is_or_was_mounted_nobody_asks(tmp_path: Path) -> None:
    with guarded(tmp_path) as guard:
        guard.load({})
        guard.look()
        assert not guard.any
        assert not guard.consume_change()


PATHS = st.lists(st.sampled_from(["a", "a!", "a0", "b", "\u00e9"]), min_size=1, max_size=3).map(
    "/".join
)


@given(st.sets(PATHS), st.sets(PATHS))
def test_what_is_left_out_comes_in_its_place_among_the_files(
    closed: set[str], files: set[str]
) -> None:
    """The order is that of the files: a directory that is left out stands where its files would."""

    def place(side: Side) -> str:
        return f"{side.path}/" if isinstance(side, Unknown) else side.path

    left_out = sorted((Unknown(path, "", subtree=True) for path in closed), key=place)
    told = list(mount_guard.merged(left_out, [Absent(path) for path in sorted(files)]))
    assert list(map(place, told)) == sorted([*(f"{path}/" for path in closed), *files])


# Real mounts


CONTINUITY = """
import os, subprocess, sys
from pathlib import Path
from syncloud.local import entries
from syncloud.local.mount_guard import MountGuard
root = Path(sys.argv[1])
m, elsewhere = root / "m", root / "elsewhere"
def do(*command): subprocess.run(list(map(str, command)), check=True)
do("mount", "-t", sys.argv[2], "first", m)
(m / "file").write_bytes(b"1")
rows = [("m/file", entries.tag_of((m / "file").stat()))]
known = lambda under, beside: (row for row in rows)
places = MountGuard(root, os.open(root, os.O_RDONLY), known=known, ignored=lambda _: False)
places.look()
(m / "file").unlink()
do("mount", "-t", "tmpfs", "other", elsewhere)
places.refresh()
assert places.doubt_absence("m/file") is None, "the same mount, whatever it is: the deletion counts"
do("umount", m)
do("mount", "-t", sys.argv[2], "second", m)
assert places.doubt_absence("m/file"), "another mount, whatever its numbers are"
assert places.trouble()
(m / "file").write_bytes(b"1")
os.utime(m / "file", ns=(int(rows[0][1][2]),) * 2)
places.look()
assert places.trouble() is None, "it has the file"
places.load(places.dump())
"""


@needs_mounts
@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_the_same_mount_needs_no_proof_and_the_next_one_does(tmp_path: Path, kind: str) -> None:
    for name in ("m", "elsewhere"):
        (tmp_path / name).mkdir()
    argv = [*mounted("true"), sys.executable, "-c", CONTINUITY, str(tmp_path), kind]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


ASKERS = """
import os, subprocess, sys
from pathlib import Path
from syncloud.local.mount_guard import MountGuard, nothing
root = Path(sys.argv[1])
places = MountGuard(root, os.open(root, os.O_PATH), known=nothing, ignored=lambda _: False)
places.look()
places.consume_change(), places.changed()
assert not places.changed()
for command in (["mount", "-t", "tmpfs", "tmpfs", str(root / "m")], ["umount", str(root / "m")]):
    subprocess.run(command, check=True)
    places.refresh()  # as whoever doubts an absence does
    assert places.consume_change() and places.changed() and not places.changed()
    with places._lock:  # a look that a frozen disk does not end
        assert not places.changed()
assert places.dump() == {}
"""


@needs_mounts
def test_who_doubts_an_absence_takes_no_news_of_a_mount_from_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    ran = subprocess.run(
        [*mounted("true"), sys.executable, "-c", ASKERS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
