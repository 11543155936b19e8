"""Parents of a file: made durably, removed when empty, and named where they are in the way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import Blocked
from syncloud.local import parents, syscalls
from tests.support.directory import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from syncloud.local.tree import LocalTree


def test_a_file_in_the_way_is_named(tree: LocalTree, root: Path) -> None:
    write(tree, "a")
    write(tree, "d/e")
    for path, blocker in {
        "a/b": "a",
        "a/b/c/d": "a",
        "d/e/f": "d/e",
        "a/b/": "a",
        "a/": "a",
    }.items():
        with pytest.raises(Blocked) as caught:
            write(tree, path)
        assert (caught.value.path, caught.value.blocker) == (path, blocker)
    with pytest.raises(Blocked) as caught:
        write(tree, "d")
    assert caught.value.blocker == "d"
    assert sorted(os.listdir(root)) == ["a", "d"]


def test_a_chain_of_directories_is_made_before_it_is_synced_and_removed_before_that(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key may have 490 levels, and a journal has them in one commit.

    Removed directories need no sync.
    """
    order = list[str]()
    real = {name: getattr(os, name) for name in ("mkdir", "fsync", "rmdir")}

    def noting(name: str) -> Callable[..., None]:
        def call(*arguments: object, **more: object) -> None:
            order.append(name)
            real[name](*arguments, **more)

        return call

    for name in real:
        monkeypatch.setattr(os, name, noting(name))
    path = "/".join("a" * 50)
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syscalls.make_directories(at, path, [])
        assert order == ["mkdir"] * 50 + ["fsync"] * 50
        order.clear()
        parents.remove_emptied(at, path)
        assert order == ["rmdir"] * 50 + ["fsync"]
    finally:
        os.close(at)
