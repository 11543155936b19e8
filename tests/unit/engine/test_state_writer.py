"""Settled rows that wait for the disk.

A row that cannot be stored delays no other, and no trouble ends the timer.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from syncloud.core.model import Base, DeletionMemo
from syncloud.engine import state_writer as module
from syncloud.engine.skipped import SkippedPaths
from syncloud.engine.state_writer import StateWriter
from syncloud.errors import HostUnavailable
from syncloud.state.store import Pair, State
from tests.support.states import opened_state

GOOD = Base("good", ("11", "3", "9", "9"), ("etag", "", "17"), 3, 0, 0o640, None)
BAD = {
    "size": replace(GOOD, path="bad", size=2**63),
    "mode": replace(GOOD, path="bad", mode=2**64),
    "tag": replace(GOOD, path="bad", target=("etag\udcff", "", "17")),
    "type": replace(GOOD, path="bad", size=object()),  # type: ignore[arg-type]
    "null": replace(GOOD, path="bad", mode=None),  # type: ignore[arg-type]
}


@dataclass(slots=True)
class Ticket:
    """`rows`: what was stored when it was given back."""

    file: Path
    rows: list[list[str]] = field(default_factory=list)

    def acknowledge(self) -> None:
        with closing(sqlite3.connect(self.file)) as db:
            self.rows.append(
                [path for (path,) in db.execute("SELECT path FROM base ORDER BY path")]
            )


class Broken:
    def acknowledge(self) -> None:
        raise ConnectionError("the thread has ended")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = opened_state(tmp_path, Pair("push", "/srv/a", "bucket", ""))
    yield made
    made.close()


@pytest.mark.parametrize("bad", BAD)
def test_a_row_that_cannot_be_stored_is_left_out_by_name_and_the_others_are_stored(
    state: State, bad: str
) -> None:
    """By the timer, as in a daemon; and the next rows find it alive."""

    async def scenario() -> None:
        left_out = SkippedPaths(state)
        state_writer = StateWriter(state, left_out)
        tickets = [Ticket(state.directory / "state.sqlite") for _ in range(4)]
        state_writer.record(replace(GOOD, path="a"), (), [tickets[0]])
        state_writer.record(BAD[bad], ("never",), [tickets[1]])
        state_writer.record(replace(GOOD, path="z"), (), [tickets[2]])
        state_writer.note(DeletionMemo(held=True))
        await asyncio.sleep(4 * module.BATCH_DELAY_S)
        assert [ticket.rows for ticket in tickets[:3]] == [[["a", "z"]]] * 3, (
            "each once, after the others' rows are stored"
        )
        assert list(state.skipped()) == list(left_out.reasons) == ["bad"]
        assert (state_writer.files, state_writer.error, state.deletions().held) == (2, None, True)
        state_writer.record(replace(GOOD, path="later"), (), [tickets[3]])
        await asyncio.sleep(4 * module.BATCH_DELAY_S)
        assert tickets[3].rows == [["a", "later", "z"]]

    asyncio.run(scenario())


def test_what_is_left_out_keeps_the_row_of_before(state: State) -> None:
    """The old row is as true as before: comparisons use it, and its lack deletes nothing."""

    async def scenario() -> None:
        state.record([replace(GOOD, path="bad")], [])
        state_writer = StateWriter(state, SkippedPaths(state))
        state_writer.record(BAD["size"], (), [])
        state_writer.flush()
        assert (state.get("bad"), state_writer.files) == (replace(GOOD, path="bad"), 1)

    asyncio.run(scenario())


def test_a_drop_of_a_name_that_has_no_row_keeps_nothing_back(state: State) -> None:
    async def scenario() -> None:
        state_writer, ticket = (
            StateWriter(state, SkippedPaths(state)),
            Ticket(state.directory / "state.sqlite"),
        )
        state_writer.record(GOOD, ("caf\udce9",), [ticket])
        state_writer.flush()
        assert ticket.rows == [["good"]]

    asyncio.run(scenario())


def test_a_receipt_that_cannot_be_given_back_keeps_no_other_back(state: State) -> None:
    async def scenario() -> None:
        state_writer, ticket = (
            StateWriter(state, SkippedPaths(state)),
            Ticket(state.directory / "state.sqlite"),
        )
        state_writer.record(GOOD, (), [Broken(), ticket])
        state_writer.flush()
        assert ticket.rows == [["good"]]

    asyncio.run(scenario())


def test_what_could_not_be_written_is_not_tried_again_once_the_state_is_closed(
    tmp_path: Path,
) -> None:
    """A closed database takes no row and refuses none.

    Nothing is skipped, and no receipt is released.
    """

    async def scenario() -> None:
        state = opened_state(tmp_path, Pair("push", "/srv/a", "bucket", ""))
        left_out = SkippedPaths(state)
        state_writer, ticket = StateWriter(state, left_out), Ticket(tmp_path / "state.sqlite")
        with closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as other:
            other.execute("DROP TABLE base")
        state_writer.record(GOOD, (), [ticket])
        state_writer.close()
        assert isinstance(state_writer.error, HostUnavailable)
        state.close()
        state_writer.record(GOOD, (), [ticket])
        state_writer.flush()
        assert (state_writer._timer, ticket.rows, left_out.reasons) == (None, [], {})

    asyncio.run(scenario())


def test_damage_is_shown_and_nothing_is_acknowledged(state: State) -> None:
    """A look at a row that cannot be read loses no record either.

    The path's work is over, and its receipt is held.
    """

    async def scenario() -> None:
        rows = [replace(GOOD, path=f"{number:05}/{'n' * 200}") for number in range(20_000)]
        state.record(rows, [])
        state.sync()
        state_writer, ticket = (
            StateWriter(state, SkippedPaths(state)),
            Ticket(state.directory / "state.sqlite"),
        )
        state._db.execute("PRAGMA shrink_memory")
        with (state.directory / "state.sqlite").open("r+b") as file:
            for page in range(8, file.seek(0, os.SEEK_END) // 4096):
                file.seek(page * 4096)
                file.write(b"\xa5" * 4096)
        for row in rows[::100]:
            state_writer.record(replace(row, size=4), (), [ticket])
        await asyncio.sleep(4 * module.BATCH_DELAY_S)
        assert isinstance(state_writer.error, HostUnavailable)
        assert (ticket.rows, state_writer.files) == ([], 20_000)
        assert "damaged" in str(state.broken())
        state_writer.record(GOOD, (), [ticket])
        state_writer.flush()
        assert state_writer._timer is not None, "it is tried again"
        state_writer._timer.cancel()

    asyncio.run(scenario())


def test_the_inodes_of_a_burst_are_asked_for_at_once(state: State) -> None:
    async def scenario() -> None:
        state_writer, one = (
            StateWriter(state, SkippedPaths(state)),
            Base("a", ("11", "3", "9"), ("etag",), 3, 0, 0o640, None),
        )
        asked: list[str] = []
        state_writer.record(one, (), [])
        state_writer.flush()
        state._db.set_trace_callback(asked.append)
        told = await asyncio.gather(
            *(state_writer.renamed_from((inode, "3")) for inode in ("11", "12", "13"))
        )
        assert told == [[one], [], []]
        assert await state_writer.renamed_from(("13", "3")) == []
        assert len(asked) == 2, "which of them are known, and the one that is"
        state_writer.record(replace(one, path="b", source=("12", "3", "9")), (), [])
        state_writer.flush()
        assert [base.path for base in await state_writer.renamed_from(("12", "3"))] == ["b"]

    asyncio.run(scenario())


def test_what_was_read_ahead_is_never_older_than_what_was_recorded(state: State) -> None:
    async def scenario() -> None:
        state_writer = StateWriter(state, SkippedPaths(state))
        one = Base("a", ("11", "3", "9"), ("etag",), 3, 0, 0o640, None)
        state_writer.look_up(["a"], ["11"])
        assert (state_writer.base_of("a"), await state_writer.renamed_from(("11", "3"))) == (
            None,
            [],
        )
        state_writer.record(one, (), [])
        assert state_writer.base_of("a") == one
        state_writer.flush()
        assert (
            state_writer.base_of("a"),
            await state_writer.renamed_from(("11", "3")),
            state_writer.files,
        ) == (one, [one], 1)
        state_writer.look_up(["a"], ["11"])
        state_writer.record(None, ("a",), [])
        assert state_writer.base_of("a") is None
        state_writer.flush()
        assert (
            state_writer.base_of("a"),
            await state_writer.renamed_from(("11", "3")),
            state_writer.files,
        ) == (None, [], 0)

    asyncio.run(scenario())


def test_a_directory_is_held_by_the_row_of_its_marker(state: State) -> None:
    async def scenario() -> None:
        state_writer = StateWriter(state, SkippedPaths(state))
        rows = [replace(GOOD, path=path) for path in ("a/", "a/b/c/", "e/")]
        state.record([*rows, replace(GOOD, path="f/", source_absent=True), GOOD], [])
        state_writer.record(replace(GOOD, path="a/b/"), ("e/",), [])
        directories = ["a", "a/b", "a/b/c", "d", "e", "f", "good"]
        assert state_writer.markers(directories) == ["a", "a/b", "a/b/c"]
        assert state_writer.markers([]) == []
        state_writer.close()

    asyncio.run(scenario())
