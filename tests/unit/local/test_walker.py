"""The walk over a directory: its order, its depth, the names and directories that take no part."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.core import names
from syncloud.core.diff import flat
from syncloud.core.model import Entry, Unknown
from syncloud.local.tree import LocalTree
from tests.support.directory import NONCE, look, opened, paths
from tests.support.nobody import NOBODY, as_nobody
from tests.support.trees import deep

if TYPE_CHECKING:
    from pathlib import Path


def test_a_scan_comes_in_the_order_of_the_bytes(tree: LocalTree, root: Path) -> None:
    made = [
        "a",
        "a!",
        "a-b",
        "a0",
        "b/a",
        "b/a/",
        "b.c",
        "b0",
        "A",
        "\u00e9",
        "z",
        "\U0001f600",
        "\ufffd",
        "e\u0301",
        "b!/x",
    ]
    wanted = []
    for path in made:
        file = root / (path + "x" if path.endswith("/") else path)
        if file.parent.is_file():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_dir():
            file.touch()
            wanted.append(str(file.relative_to(root)))
    for path in ("d", "d!", "d.e"):
        (root / path).mkdir()
        (root / path / "b").touch()
        wanted.append(f"{path}/b")
    found = paths(tree)
    assert sorted(found) == sorted(wanted)
    assert [path.encode() for path in found] == sorted(path.encode() for path in found)


def test_a_file_and_a_folder_that_share_a_beginning_are_in_order(
    tree: LocalTree, root: Path
) -> None:
    (root / "a").mkdir()
    for name in ("a/b", "a!", "a0"):
        (root / name).touch()
    assert paths(tree) == ["a!", "a/b", "a0"]


def test_a_directory_of_many_is_in_order_with_what_is_between(tree: LocalTree, root: Path) -> None:
    for name in [*(f"{number:04}" for number in range(1_200)), "0300-d/x", "0700.d/y", "zz/a"]:
        file = root / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (root / "0500-link").symlink_to("0500")
    found = paths(tree)
    assert found == sorted(found)
    assert len(found) == 1_204


def test_a_part_is_scanned_alone(tree: LocalTree, root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    for name in ("a/x", "a/b/y", "z"):
        (root / name).touch()
    assert paths(tree, "a") == ["a/b/y", "a/x"]
    assert paths(tree, "a/b") == ["a/b/y"]
    assert paths(tree, "no") == []
    assert paths(tree, "z") == []


def test_pruned_folders_and_our_own_files_are_not_seen(root: Path) -> None:
    (root / "skip").mkdir()
    (root / "skip" / "x").touch()
    for kind in ("tmp", "old", "probe"):
        (root / names.hidden(kind, NONCE)).touch()
    (root / ".syncloud-notes").touch()
    with opened(root, ignored=lambda path: path == "skip") as tree:
        assert paths(tree) == [".syncloud-notes"]


def test_special_files_are_told_and_block_nobody(tree: LocalTree, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to("file")
    (root / "dead").symlink_to("nowhere")
    (root / "folder-link").symlink_to(".")
    (root / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as plug:
        here = os.getcwd()
        os.chdir(root)
        plug.bind("socket")
        os.chdir(here)
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o600 | 0o020000, os.makedev(1, 3))
    began = time.monotonic()
    by_scan = {side.path: side for side in flat(tree.scan())}
    for path in os.listdir(root):
        if path != "file":
            assert isinstance(by_scan[path], Unknown), path
            assert look(tree, path) == by_scan[path]
    assert isinstance(by_scan["file"], Entry)
    assert time.monotonic() - began < 5


def test_names_that_no_key_can_be_are_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in (b"bad-\xff", b"dir-\xff"):
        os.mkdir(os.fsencode(root) + b"/" + name) if name.startswith(b"dir") else None
    with open(os.fsencode(root) + b"/bad-\xff", "w"), open(os.fsencode(root) + b"/dir-\xff/x", "w"):
        pass
    (root / "good").touch()
    with opened(root) as tree:
        sides = {side.path: side for side in flat(tree.scan())}
        assert isinstance(sides.pop("good"), Entry)
        assert sorted(sides) == ["bad-\udcff", "dir-\udcff"]
        for path, side in sides.items():
            assert isinstance(side, Unknown)
            assert side.subtree == path.startswith("dir")
            assert look(tree, path) == Unknown(path, side.reason)


def test_a_key_that_would_be_too_long_is_told(root: Path) -> None:
    deep = "/".join(["d" * 200] * 4)
    (root / deep).mkdir(parents=True)
    (root / deep / "f").touch()
    with opened(root, prefix="p" * 300 + "/") as tree:
        (side,) = flat(tree.scan())
        assert isinstance(side, Unknown)
        assert "1024" in side.reason
        assert isinstance(look(tree, f"{deep}/f"), Unknown)
    with opened(root, prefix="p/") as tree:
        assert isinstance(look(tree, f"{deep}/f"), Entry)


def test_what_cannot_be_read_is_unknown_with_all_that_is_below(root: Path) -> None:
    for name, mode in {"closed": 0o000, "listed": 0o444, "passed": 0o111}.items():
        (root / name).mkdir()
        (root / name / "f").write_text("x")
        (root / name).chmod(mode)
    (root / "secret").touch(mode=0o000)
    if os.geteuid() == 0:
        for path in ("closed", "listed", "passed", "secret"):
            os.chown(root / path, NOBODY, NOBODY)
    said = as_nobody(root, "closed/f", "closed/no", "secret", "no")
    assert said == [
        "Unknown closed True",
        "Unknown listed/f False",
        "Unknown passed True",
        "Entry secret ",
        "Unknown closed/f",
        "Unknown closed/no",
        "Unknown secret",
        "Absent no",
    ]


@pytest.mark.parametrize("levels", [400, 511, 512, 1_500, 3_000])
def test_a_tree_of_any_depth_is_seen_as_far_as_a_key_is_long(
    tree: LocalTree, root: Path, levels: int
) -> None:
    """And no deeper: at most one line tells of all that is below."""
    deep(root, levels)
    (root / "z").touch()
    try:
        seen = list(flat(tree.scan()))
        assert isinstance(seen[-1], Entry)
        if levels <= 511:
            assert [side.path for side in seen] == ["d/" * levels + "f", "z"]
        else:
            assert seen[:-1] == [
                Unknown(
                    "/".join("d" * 512),
                    "every key below it would be longer than 1024 bytes",
                    subtree=True,
                )
            ]
            assert list(tree.scan("/".join("d" * 1_000))) == seen[:-1], (
                "an event may name any of them"
            )
        assert list(tree.leftovers()) == []
    finally:
        subprocess.run(["rm", "-rf", str(root / "d")], check=True)


def test_ten_thousand_folders_are_seen(tree: LocalTree, root: Path) -> None:
    for number in range(10_000):
        (root / f"{number:05}").mkdir()
    (root / "09999" / "f").touch()
    assert [side.path for side in flat(tree.scan())] == ["09999/f"]


@pytest.mark.parametrize("name", ["caf\udce9", "\udcff", "a\udc80z"])
def test_a_name_that_is_no_utf_8_is_told_in_its_place_and_not_looked_into(
    tree: LocalTree, root: Path, name: str
) -> None:
    """The order is that of the paths: a merge would take everything behind it for new and gone."""
    (root / name / "in").mkdir(parents=True)
    (root / name / "in" / "f").touch()
    (root / f"{name}.txt").touch()
    for other in ("a", "b", "z", "\u00e9", "\U0001f600"):
        (root / other).touch()
    seen = list(flat(tree.scan()))
    refused = [
        Unknown(f"{name}.txt", "the name is not valid UTF-8"),
        Unknown(name, "the name is not valid UTF-8", subtree=True),
    ]
    assert [side for side in seen if isinstance(side, Unknown)] == refused
    places = [
        f"{side.path}/" if isinstance(side, Unknown) and side.subtree else side.path
        for side in seen
    ]
    assert places == sorted(places)
    assert list(tree.scan(name)) == refused[1:]
    assert list(tree.scan(f"{name}/in")) == refused[1:], "one line tells of all that is below"
