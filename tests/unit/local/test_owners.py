"""Whose files take part, and what the kernel says of the daemon's own rights."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Entry, ScanChunk, Side, Unknown
from syncloud.core.work_queue import QUIET_S
from syncloud.errors import Unsteady
from syncloud.local import rights, syscalls
from syncloud.local.owners import AnyOwner, SameOwner
from syncloud.local.tree import LocalTree
from tests.support.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[LocalTree]:
    made = LocalTree(tmp_path, nonce="0123456789abcdef", owners=SameOwner)
    yield made
    made.close()


def look(tree: LocalTree, path: str, *, deadline_passed: bool = False) -> Side:
    return asyncio.run(tree.observe(path, None, None, deadline_passed=deadline_passed))


def test_the_kernel_alone_decides_where_no_owner_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    os.link(tmp_path / "f", tmp_path / "g")
    status = (tmp_path / "f").stat()
    assert AnyOwner().refusal(status) is None
    assert not AnyOwner().awaits(status)


def test_a_file_of_another_user_says_whose_it_is(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    status = (tmp_path / "f").stat()
    owner = status.st_uid
    assert SameOwner(owner).refusal(status) is None
    assert SameOwner(owner + 1).refusal(status) == (
        f"belongs to user {owner}, and the directory to user {owner + 1} (--any-owner publishes such files)"
    )


def test_a_second_name_of_a_moment_is_waited_for(tree: LocalTree, tmp_path: Path) -> None:
    """Also by the walk, which would not come again for an hour."""
    (tmp_path / "f").write_text("x")
    os.link(tmp_path / "f", tmp_path / "g")
    assert [seen[0] for run in tree.scan() if isinstance(run, ScanChunk) for seen in run.records] == ["f", "g"]
    with pytest.raises(Unsteady, match="2 names"):
        look(tree, "f")
    assert isinstance(look(tree, "f", deadline_passed=True), Unknown), "it has lasted until the deadline"
    (tmp_path / "g").unlink()
    assert isinstance(look(tree, "f"), Entry)


def test_a_second_name_that_stays_is_left_out_at_once(tree: LocalTree, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    os.link(tmp_path / "f", tmp_path / "g")
    made = time.monotonic()
    wait_until(lambda: time.monotonic() - made > QUIET_S + 0.1, timeout=QUIET_S + 10)
    for side in (*tree.scan(), look(tree, "g")):
        assert isinstance(side, Unknown)
        assert "has 2 names" in side.reason


def test_the_umask_is_what_the_next_file_is_made_with(tmp_path: Path) -> None:
    for mask in (0o000, 0o022, 0o077):
        before = os.umask(mask)
        try:
            assert rights.umask() == mask
            assert rights.umask() == mask, "to ask changes nothing"
        finally:
            os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
@pytest.mark.parametrize(
    ("dropped", "reads"),
    [("", True), ("-dac_override", True), ("-dac_override,-dac_read_search", False), ("-all", False)],
)
def test_who_reads_everything_is_known_by_capabilities_not_by_the_user(dropped: str, reads: bool) -> None:
    argv = ["setpriv", *([f"--bounding-set={dropped}", f"--inh-caps={dropped}"] if dropped else [])]
    code = "from syncloud.local import rights; print(rights.reads_everything())"
    done = subprocess.run([*argv, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(reads)


def test_a_directory_is_never_made_writable_for_everybody(tmp_path: Path) -> None:
    before, fd = os.umask(0), os.open(tmp_path, os.O_RDONLY)
    try:
        syscalls.make_directories(fd, "a/b", [])
    finally:
        os.umask(before)
        os.close(fd)
    assert {stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("a", "a/b")} == {0o775}


def test_a_number_that_many_users_share_is_nobodys() -> None:
    assert rights.knows(65534), "here it is a user of its own"
    code = "from syncloud.local import rights; print(rights.knows(65534), rights.knows(0))"
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode and not done.stdout:
        pytest.skip("user namespaces are not allowed here")
    assert done.stdout.split() == ["False", "True"]
