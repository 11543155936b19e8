"""The sample of the base that identifies a directory: paths from all over, none of other mounts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core import sample
from syncloud.core.model import Base
from syncloud.state.store import Pair, State
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATHS = st.lists(
    st.sampled_from(["a", "m", "m-", "0", "\u00e9", "\U0001f600"]), min_size=1, max_size=3
).map("/".join)


@given(st.lists(PATHS), st.lists(PATHS), PATHS | st.just(""))
def test_the_spans_hold_what_is_below_and_not_beside(
    paths: list[str], beside: list[str], under: str
) -> None:
    found = sample.spans(under, beside)
    for path in paths:
        holes = [
            place for place in beside if f"{place}/".startswith(f"{under}/" if under else "")
        ]  # what is above is none
        wanted = path.startswith(f"{under}/" if under else "") and not path.startswith(
            tuple(f"{place}/" for place in holes)
        )
        assert (
            any(low.encode() <= path.encode() < high.encode() for low, high in found) == wanted
        ), (path, found)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(
        opened_state(tmp_path / "state", Pair("push", "/d", "bucket", ""))
    ) as made:
        yield made


def remember(memory: State, *paths: str, absent: bool = False) -> None:
    tag = ("1", "2", "3", "4")
    memory.record((Base(path, tag, tag, 2, 3, 0o644, None, absent) for path in paths), ())


def drawn(memory: State, under: str = "", beside: tuple[str, ...] = ()) -> list[str]:
    with contextlib.closing(memory.reader()) as reader:
        return [row.path for row in sample.rows(reader, under, beside)]


def test_a_small_base_is_asked_as_a_whole(memory: State) -> None:
    paths = [f"{number:03}" for number in range(sample.MANY - 1)]
    remember(memory, *paths)
    remember(memory, "absent", absent=True)
    assert sorted(set(drawn(memory))) == paths


def test_of_a_large_base_paths_from_all_over_are_asked(memory: State) -> None:
    remember(memory, *(f"{folder:02}/{number:04}" for folder in range(20) for number in range(500)))
    asked = drawn(memory)
    assert sample.MANY / 2 < len(asked) <= sample.FEW + 2 * sample.MANY
    assert len({path[:2] for path in asked}) > 10


def test_the_files_of_other_mounts_are_not_asked_for(memory: State) -> None:
    remember(memory, *(f"m/{number}" for number in range(1000)), "a", "m-x", "m/n/inner", "z/b")
    assert set(drawn(memory, "", ("m", "m/n"))) == {"a", "m-x", "z/b"}
    assert set(drawn(memory, "m/n", ())) == {"m/n/inner"}
    assert "m/n/inner" not in drawn(memory, "m", ("m/n",))
    assert drawn(memory, "z", ("z/b",)) == ["z/b"] * 2
