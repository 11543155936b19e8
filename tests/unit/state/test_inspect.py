"""A state from outside its daemon: the summary, the note, the copy of a rehearsal."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from syncloud.core.model import Failure
from syncloud.errors import ConfigurationError, HostUnavailable
from syncloud.state import inspect
from syncloud.state.inspect import StateSummary
from syncloud.state.notes import RESUME, SNAPSHOT, VERIFIED, Resume
from tests.support.states import PAIR, opened, paths, row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from syncloud.state.store import State


def test_a_rehearsal_gets_a_copy(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    inspect.copy(tmp_path / "none", tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []
    with opened(tmp_path / "state") as memory:
        memory.record([row("a")], [])
        inspect.copy(memory.directory, tmp_path / "copy")
        with opened(tmp_path / "copy") as copied:
            copied.record([row("b")], ["a"])
            assert paths(copied) == ["b"]
        assert paths(memory) == ["a"]


def test_what_a_daemon_has_recorded_can_be_seen_while_it_runs(memory: State) -> None:
    memory.record([row("a"), row("b"), row("released", source_absent=True)], [])
    memory.note_skipped("fifo", "not a regular file")
    failures = [
        Failure(path, "EIO", "Input/output error", "look at the disk", 3, 17.5)
        for path in ("z", "c")
    ]
    memory.note_failing(failures, [])
    memory.set_note(SNAPSHOT, {"files": 2})
    memory.set_note(VERIFIED, 18.0)
    wanted = StateSummary(
        str(PAIR), {"files": 2}, 2, {"fifo": "not a regular file"}, failures[::-1]
    )
    assert inspect.read_summary(memory.directory) == wanted
    memory.record([row("c")], ["a", "b"])
    assert inspect.read_summary(memory.directory) == wanted._replace(files=1), (
        "no lock is in the way, of either"
    )


def test_a_state_of_an_earlier_version_has_nothing_that_keeps_failing(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.record([row("a")], [])
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as db:
        db.execute("DROP TABLE failing")
    assert inspect.read_summary(tmp_path) == StateSummary(str(PAIR), {}, 1, {}, [])


def test_a_note_reaches_the_daemon_that_has_the_state_open(memory: State) -> None:
    assert memory.notes.take(RESUME) is None
    inspect.leave_note(memory.directory, RESUME, Resume.LOOK_AGAIN)
    inspect.leave_note(memory.directory, RESUME, Resume.ALLOW_DELETES)
    assert memory.notes.take(RESUME) is Resume.ALLOW_DELETES, "the last word"
    assert memory.notes.take(RESUME) is None, "it is taken once"


def test_where_there_is_no_state_none_is_made_by_a_look_or_a_note(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        assert inspect.read_summary(place) is None
        with pytest.raises(ConfigurationError, match="there is no state in"):
            inspect.leave_note(place, RESUME, Resume.LOOK_AGAIN)
    assert list(tmp_path.iterdir()) == []


def questions(place: Path, to: Path) -> tuple[Callable[[], object], ...]:
    """Every call that concerns the state in `place` from outside."""
    return (
        lambda: inspect.read_summary(place),
        lambda: inspect.leave_note(place, RESUME, Resume.LOOK_AGAIN),
        lambda: inspect.copy(place, to),
    )


def test_what_is_no_database_is_left_as_it_is_and_told(tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite"
    file.write_bytes(b"not a database at all" * 100)
    (tmp_path / "copy").mkdir()
    for ask in questions(tmp_path, tmp_path / "copy"):
        with pytest.raises(HostUnavailable, match=r"the state .*state\.sqlite"):
            ask()
    assert file.read_bytes() == b"not a database at all" * 100


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_leads_elsewhere_or_never_answers_is_not_opened(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    file, other = tmp_path / "state" / f"state.sqlite{suffix}", tmp_path / "other"
    with opened(tmp_path / "state"):
        pass
    file.unlink(missing_ok=True)
    if kind == "link":
        other.write_text("of somebody")
        file.symlink_to(other)
    else:
        os.mkfifo(file)
    for ask in questions(file.parent, tmp_path):
        with pytest.raises(ConfigurationError, match="is not a regular file"):
            ask()
    if kind == "link":
        assert other.read_text() == "of somebody"
