"""Whose files take part, and what the kernel says of the daemon's own rights."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Entry, ScanChunk, Side, Unknown
from syncloud.core.work_queue import QUIET_S
from syncloud.errors import Unsteady
from syncloud.local import syscalls
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
        f"belongs to user {owner}, and the directory to user {owner + 1} "
        "(--any-owner publishes such files)"
    )


def test_a_second_name_of_a_moment_is_waited_for(tree: LocalTree, tmp_path: Path) -> None:
    """Also by the walk, which would not come again for an hour."""
    (tmp_path / "f").write_text("x")
    os.link(tmp_path / "f", tmp_path / "g")
    assert [
        seen[0] for run in tree.scan() if isinstance(run, ScanChunk) for seen in run.records
    ] == ["f", "g"]
    with pytest.raises(Unsteady, match="2 names"):
        look(tree, "f")
    assert isinstance(look(tree, "f", deadline_passed=True), Unknown), (
        "it has lasted until the deadline"
    )
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


def test_a_directory_is_never_made_writable_for_everybody(tmp_path: Path) -> None:
    before, fd = os.umask(0), os.open(tmp_path, os.O_RDONLY)
    try:
        syscalls.make_directories(fd, "a/b", [])
    finally:
        os.umask(before)
        os.close(fd)
    assert {stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("a", "a/b")} == {0o775}
