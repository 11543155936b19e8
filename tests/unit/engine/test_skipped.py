"""Skipped paths are reported, within bounds.

Bucket writers and local users choose how many such paths there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syncloud.cli.status_page import page
from syncloud.core import names
from syncloud.core.diff import ScanSummary, diff
from syncloud.core.model import Unknown
from syncloud.engine.skipped import SkippedPaths
from syncloud.log import display
from syncloud.service import status
from syncloud.state import notes
from syncloud.state.store import Pair, State
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.listener import Listener


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = opened_state(tmp_path, Pair("pull", "/srv/a", "bucket", ""))
    yield made
    made.close()


def refused(count: int) -> list[Unknown]:
    return [Unknown(f"a//{number:05}", "an empty component") for number in range(count)]


def listed(left_out: SkippedPaths, unknown: list[Unknown], *, most: int) -> None:
    """As a listing of everything does it."""
    census = ScanSummary(recorded=frozenset(left_out.reasons), most=most)
    assert not list(diff(iter(unknown), None, iter([]), census, lambda path: False))
    assert (len(census.unknown), census.more) == (
        min(len(unknown), most),
        max(0, len(unknown) - most),
    )
    left_out.recount(census)
    for one in census.unknown:
        left_out.note(one)


def test_beyond_a_bound_paths_are_counted_and_neither_kept_nor_named(
    state: State, logged: Listener
) -> None:
    left_out = SkippedPaths(state, most=10)
    listed(left_out, refused(1_000), most=10)
    assert (len(left_out), len(left_out.reasons), len(state.skipped())) == (1_000, 10, 10)
    left_out.note(Unknown("of/an//event", "an empty component"))
    assert (len(left_out), len(state.skipped())) == (1_001, 10)
    assert logged.events == ["path.skipped"] * 11, "ten by name, and once that there are more"
    # The next listing counts anew: a known path keeps its place, and a vanished path makes room.
    listed(left_out, refused(1_000)[5:], most=10)
    assert (len(left_out), len(left_out.reasons)) == (995, 10)
    assert set(left_out.reasons) == {f"a//{number:05}" for number in range(5, 15)}
    listed(left_out, [], most=10)
    assert (len(left_out), state.skipped()) == (0, {})


def test_what_was_left_out_and_is_met_beyond_the_bound_is_not_forgotten(state: State) -> None:
    left_out = SkippedPaths(state, most=10)
    odd = "z\udcff"
    left_out.note(Unknown(odd, "the name is not valid UTF-8"))
    listed(left_out, [*refused(20), Unknown(odd, "the name is not valid UTF-8")], most=10)
    assert names.spelled(odd) in left_out.reasons


def test_a_long_name_is_shortened_in_the_log_and_whole_in_the_state(
    state: State, logged: Listener
) -> None:
    name = "b" + "\n" * 1_000 + "e"
    SkippedPaths(state).note(Unknown(name, "too long"))
    assert state.skipped() == {name: "too long"}
    (record,) = logged.records
    assert len(record.getMessage()) < display.NAME_MAX + 100
    assert len(record.__dict__["path"]) <= display.NAME_MAX
    assert record.__dict__["path"].startswith("b\n")


def test_the_page_knows_how_many_have_no_room(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "MAX_SKIPPED", 10)
    left_out = SkippedPaths(state, most=10)
    listed(left_out, refused(1_000), most=10)
    state.set_note(
        notes.SNAPSHOT, status.as_fields(status.Snapshot(role="pull", left_out_count=len(left_out)))
    )
    now = status.read(tmp_path)
    assert (now.left_out_count, len(now.left_out)) == (1_000, 10)
    assert "and 980 more" in page("jef", now)


DEEP = Unknown("d/e", "every key below it would be longer than 1024 bytes", subtree=True)


UNREADABLE = Unknown("d", "cannot be listed: Permission denied", subtree=True)


@pytest.mark.parametrize("directory", [DEEP, UNREADABLE, Unknown("", "gone", subtree=True)])
@pytest.mark.parametrize("first", ["its path", "its directory"])
def test_a_skipped_directory_stands_for_every_path_below_it(
    directory: Unknown, first: str, state: State
) -> None:
    skipped = SkippedPaths(state)
    both = [Unknown("d/e/f/g", "the key would be longer than 1024 bytes"), directory]
    for unknown in both if first == "its path" else reversed(both):
        skipped.note(unknown)
    assert state.skipped() == skipped.reasons == {directory.path: directory.reason}
    assert "d/e/f/g" in skipped


def test_only_a_directory_stands_for_the_paths_below_it(state: State) -> None:
    skipped = SkippedPaths(state)
    skipped.note(Unknown("d", "a named pipe"))
    skipped.note(Unknown("d/e", "a named pipe"))
    skipped.note(DEEP)
    skipped.note(Unknown("d/e.f/g", "a named pipe"))
    assert set(skipped.reasons) == {"d", "d/e", "d/e.f/g"}
    skipped.clear("d/e")
    skipped.note(Unknown("d/e/f", "a named pipe"))
    assert "d/e/f" in state.skipped()
