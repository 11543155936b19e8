"""A rehearsal: every act becomes one harmless line, and none of them happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core.model import Absent, Entry
from syncloud.engine.dry_run import DryRunTree
from tests.support.memory import MemoryTree

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Act = Callable[[DryRunTree, Entry], Coroutine[object, object, object]]

NEW = Entry("new", ("source",), 3, 5, 0o600, None, b"new")


def rehearsed(tree: MemoryTree, act: Act) -> list[str]:
    """The lines about `act` on the entry `a`; AssertionError if it has changed anything."""
    told: list[str] = []
    before = {
        path: (file.body, file.mtime_ns, file.mode, file.generation)
        for path, file in tree.files.items()
    }
    asyncio.run(act(DryRunTree(tree, told.append), tree._entry("a")))
    after = {
        path: (file.body, file.mtime_ns, file.mode, file.generation)
        for path, file in tree.files.items()
    }
    assert before == after
    assert tree.writes == 0
    return told


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda tree, a: tree.write(NEW, None, None), ["copy\tnew"]),
        (lambda tree, a: tree.write(a, None, a), ["replace\ta"]),
        (lambda tree, a: tree.write(a, None, None), ["compare\ta"]),
        (lambda tree, a: tree.touch(a, NEW), ["touch\ta"]),
        (lambda tree, a: tree.delete(a), ["delete\ta"]),
        (lambda tree, a: tree.keep_conflict_copy(a), ["set aside\ta"]),
        (lambda tree, a: tree.server_side_copy(a, NEW), []),
        (lambda tree, a: tree.admit(a), []),
        (lambda tree, a: tree.try_taking(), []),
    ],
    ids=[
        "a new file",
        "another one",
        "what may be equal",
        "metadata",
        "a deletion",
        "a conflict",
        "a copy",
        "room",
        "a trial",
    ],
)
def test_an_act_is_told_and_does_not_happen(act: Act, told: list[str]) -> None:
    tree = MemoryTree("pull")
    tree.put("a", b"old")
    assert rehearsed(tree, act) == told


def test_the_engine_gets_what_a_success_would_have_given() -> None:
    """The engine continues as after a success: the row is the source's; a conflict has its name."""
    tree = MemoryTree("pull")
    there = tree.put("a", b"old")

    async def scenario() -> None:
        rehearsal = DryRunTree(tree, lambda line: None)
        assert await rehearsal.write(NEW, None, None) == NEW
        assert await rehearsal.touch(there, NEW) == there
        assert await rehearsal.keep_conflict_copy(there) == ("a", there)
        assert await rehearsal.server_side_copy(there, NEW) is None, (
            "the bytes travel, and that is told"
        )

    asyncio.run(scenario())


def test_a_look_is_the_trees_own() -> None:
    tree = MemoryTree("pull")
    there = tree.put("a", b"old", mode=0o604)

    async def scenario() -> None:
        rehearsal = DryRunTree(tree, lambda line: None)
        assert list(rehearsal.scan()) == [there]
        assert await rehearsal.observe("a", None, None) == await tree.observe("a", None, None)
        assert await rehearsal.observe("none", None, None) == Absent("none")
        assert await (await rehearsal.open(there)).part(0, 3) == [b"old"]
        assert await rehearsal.with_checksum(there) == await tree.with_checksum(there)
        assert await rehearsal.mode_for(there, there) == 0o604

    asyncio.run(scenario())


@given(st.text(min_size=1))
def test_any_name_is_one_line_with_one_tab(path: str) -> None:
    told: list[str] = []
    tree = DryRunTree(MemoryTree("pull"), told.append)
    asyncio.run(tree.delete(Entry(path, ("tag",), 1, 0, 0o644)))
    (line,) = told
    verb, tab, name = line.partition("\t")
    assert (verb, tab) == ("delete", "\t")
    assert name.isprintable()
