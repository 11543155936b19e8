"""Fixtures of the tests of `local`: directories, and a tree over one."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.local.tree import LocalTree
from tests.support.acts import MTIME, OLD
from tests.support.directory import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def tree(root: Path) -> Iterator[LocalTree]:
    with opened(root) as tree:
        yield tree


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that nobody else can change: pytest's own is as private."""
    made = tmp_path.resolve() / "place"
    (made / "real").mkdir(parents=True)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory in the one that `root_fd` has open."""
    made = tmp_path / "root" / "d"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The only file in the directory that `root_fd` has open; it was not changed just now."""
    (tmp_path / "root").mkdir(exist_ok=True)
    file = tmp_path / "root" / "f"
    file.write_bytes(OLD)
    os.utime(file, ns=(MTIME, MTIME))
    time.sleep(0.02)  # the tick of its last change is over
    return file


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir(exist_ok=True)
    fd = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    return tmp_path / "outside"
