"""Fixtures of the tests of the state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.states import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from syncloud.state.store import State


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[State]:
    with opened(tmp_path / "state") as made:
        yield made
