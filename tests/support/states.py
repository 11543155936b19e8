"""States of tests: opened as a service opens its own, with rows to fill them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, overload

from syncloud.core.model import Base
from syncloud.service import state_directory
from syncloud.state.store import Pair, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

StateKind = TypeVar("StateKind", bound=State)

PAIR = Pair("push", "/srv/jef", "crawls", "jef/")
CRC = 0xFEDC_BA98_7654_3210


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


@contextlib.contextmanager
def opened(directory: Path, pair: Pair = PAIR) -> Iterator[State]:
    made = opened_state(directory, pair)
    try:
        yield made
    finally:
        made.close()


def row(path: str, source: tuple[str, ...] = ("11", "3", "99", "100"), **others: object) -> Base:
    """A row of a push; `others` are the fields that differ."""
    made = Base(path, source, ("etag", "", "17"), 3, -1_500_000_001, 0o640, CRC)
    return replace(made, **others)  # type: ignore[arg-type]


def paths(memory: State, under: str = "") -> list[str]:
    """Those of the rows below `under`, in the order of the reader."""
    with contextlib.closing(memory.reader()) as reader:
        return [base.path for base in reader.rows(under)]
