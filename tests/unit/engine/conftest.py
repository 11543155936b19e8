"""A state for the tests of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syncloud.state.store import Pair
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from syncloud.state.store import State


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = opened_state(tmp_path / "state", Pair("push", "d", "b", ""))
    yield made
    made.close()
