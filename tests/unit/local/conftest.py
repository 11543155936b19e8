"""Fixtures of the tests of `local`: directories, and a tree over one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syncloud.local.tree import LocalTree
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
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    return tmp_path / "outside"
