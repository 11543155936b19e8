"""Hidden files of a crash: the service's own are removed, the others get a conflict name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum, names
from syncloud.local import entries
from syncloud.local.tree import LocalTree
from tests.support.directory import NONCE
from tests.support.nobody import NOBODY

if TYPE_CHECKING:
    from pathlib import Path


def test_a_hidden_name_that_is_no_file_is_nobodys_leftover(tree: LocalTree, root: Path) -> None:
    (root / "file").write_text("1")
    (root / names.hidden("tmp", NONCE)).symlink_to(root / "file")
    os.mkfifo(root / names.hidden("tmp", NONCE))
    (root / names.hidden("old", NONCE)).mkdir()
    (root / names.hidden("old", NONCE) / "x").parent.mkdir()
    odd = root / "caf\udce9"
    odd.mkdir()
    (odd / names.hidden("tmp", "f" * 16)).touch()
    before = sorted(root.rglob("*"))
    for path in list(tree.leftovers()):
        assert tree.recover(path, {}) is None
    assert sorted(root.rglob("*")) == before
    assert (root / "file").read_text() == "1"


def test_a_leftover_that_has_gone_concerns_itself_alone(tree: LocalTree, root: Path) -> None:
    gone = names.hidden("tmp", NONCE)
    with pytest.raises(FileNotFoundError):
        tree.recover(gone, {})
    with pytest.raises(FileNotFoundError):
        tree.recover(f"none/{gone}", {})


def test_leftovers_are_ours_or_kept(tree: LocalTree, root: Path) -> None:
    (root / "d").mkdir()
    temporary, foreign = names.hidden("tmp", NONCE), names.hidden("tmp", "f" * 16)
    old, edited = names.hidden("old", NONCE), names.hidden("old", NONCE)
    for name in (temporary, foreign, old, edited):
        (root / "d" / name).write_text(name)
    (root / "d" / "visible").touch()
    known = {
        entries.tag_of((root / "d" / name).stat())[:3]: checksum.update(old.encode())
        for name in (old, edited)
    }
    assert sorted(tree.leftovers()) == sorted(
        f"d/{name}" for name in (temporary, foreign, old, edited)
    )
    kept = {path: tree.recover(path, known) for path in list(tree.leftovers())}
    assert kept[f"d/{temporary}"] is None
    assert kept[f"d/{old}"] is None
    assert {(root / str(kept[f"d/{name}"])).read_text() for name in (foreign, edited)} == {
        foreign,
        edited,
    }
    assert list(tree.leftovers()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another owner")
def test_a_leftover_of_another_user_is_not_removed_because_of_its_name(
    tree: LocalTree, root: Path
) -> None:
    """Who may read the bucket knows the nonce that our names have."""
    mine, theirs = names.hidden("tmp", NONCE), names.hidden("tmp", NONCE)
    for name in (mine, theirs):
        (root / name).write_text(name)
    os.chown(root / theirs, NOBODY, NOBODY)
    assert tree.recover(mine, {}) is None
    aside = tree.recover(theirs, {})
    assert aside is not None
    assert sorted(os.listdir(root)) == [aside]
    assert (root / aside).read_text() == theirs
