"""States of tests: opened as a service opens its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar, overload

from syncloud.service import state_directory
from syncloud.state.store import Pair, State

if TYPE_CHECKING:
    from pathlib import Path

StateKind = TypeVar("StateKind", bound=State)


@overload
def opened_state(directory: Path, pair: Pair) -> State: ...


@overload
def opened_state(directory: Path, pair: Pair, kind: type[StateKind]) -> StateKind: ...


def opened_state(directory: Path, pair: Pair, kind: type[State] = State) -> State:
    """A state of this kind in `directory`, which is made where it is missing."""
    at = state_directory.opened(directory)
    try:
        return kind(directory, pair, at)
    finally:
        os.close(at)
