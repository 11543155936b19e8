"""Heirs: a failing path may be the new name of a file that is to be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Base, Entry
from syncloud.engine import failing
from syncloud.engine.heirs import Heirs
from tests.support.failures import REFUSED, World, work_of

if TYPE_CHECKING:
    from syncloud.state.store import State


@pytest.fixture
def world(state: State) -> World:
    return World(state)


def _base(path: str, inode: str, size: int) -> Base:
    return Base(path, (inode, str(size), "2"), ("t",), size, 0, 0o644, 1)


def test_a_copy_that_fails_may_be_the_new_name_of_what_is_to_be_deleted(world: World) -> None:
    world.failing.fail(work_of("new"), REFUSED, content=("17", 5))
    assert world.failing.heirs.heir(_base("old", "17", 5)) == "new"
    assert world.failing.heirs.heir(_base("old", "18", 5)) is None
    assert world.failing.heirs.heir(_base("old", "17", 6)) is None
    assert world.failing.heirs.heir(_base("new", "17", 5)) is None, "it is the path itself"
    world.failing.fail(work_of("d/_SUCCESS"), REFUSED, content=("18", 0))
    assert world.failing.heirs.heir(_base("e/_SUCCESS", "18", 0)) is None, (
        "there are no bytes that could be lost"
    )
    assert world.failing.heirs.heir(None) is None
    world.failing.fail(work_of("new"), REFUSED)
    assert world.failing.heirs.heir(_base("old", "17", 5)) == "new", (
        "a try that saw nothing changes nothing"
    )
    world.failing.fail(work_of("new"), REFUSED, content=("19", 5))
    assert world.failing.heirs.heir(_base("old", "17", 5)) is None, "it has other bytes now"
    world.failing.clear("new")
    assert world.failing.heirs.heir(_base("old", "19", 5)) is None


def test_the_old_name_of_what_was_recorded_and_not_tried_yet_is_kept(world: World) -> None:
    for number in range(failing.MAX_UNDER_WAY + 1):
        world.lasting(f"{number}")
    world.failing.flush()
    world.start()
    for number in range(failing.MAX_UNDER_WAY + 1):
        work = work_of(f"{number}")
        work.reported = Entry(work.path, (f"inode {number}", "1", "2"), 5, 0, 0o644)
        admitted = world.failing.admit(work)
    assert not admitted
    assert (
        world.failing.heirs.heir(_base("old", f"inode {failing.MAX_UNDER_WAY}", 5))
        == f"{failing.MAX_UNDER_WAY}"
    )


def test_each_failing_path_with_the_same_content_is_an_heir() -> None:
    heirs, old = Heirs(), _base("old", "17", 5)
    for path in ("new", "other"):
        heirs.learn(path, ("17", 5))
        assert heirs.knows(path)
    heirs.forget("new")
    assert not heirs.knows("new")
    assert heirs.heir(old) == "other"
    heirs.forget("other")
    assert heirs.heir(old) is None


def test_a_failing_path_is_the_heir_of_its_newest_content_alone() -> None:
    heirs = Heirs()
    heirs.learn("new", ("17", 5))
    heirs.learn("new", None)
    assert heirs.heir(_base("old", "17", 5)) == "new"
    heirs.learn("new", ("18", 5))
    assert heirs.heir(_base("old", "17", 5)) is None
    assert heirs.heir(_base("old", "18", 5)) == "new"


def test_an_empty_file_and_a_path_without_a_row_have_no_heir() -> None:
    heirs = Heirs()
    heirs.learn("new", ("17", 0))
    assert heirs.heir(_base("old", "17", 0)) is None
    assert heirs.heir(None) is None
