"""What is settled and not yet written: a row that cannot be stored keeps no other back, and no trouble ends the timer."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from syncloud.core.model import Base, Unknown
from syncloud.engine import state_writer as module
from syncloud.engine.skipped import LeftOut
from syncloud.engine.state_writer import Ledger
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
            self.rows.append([path for (path,) in db.execute("SELECT path FROM base ORDER BY path")])


class Broken:
    def acknowledge(self) -> None:
        raise ConnectionError("the thread has ended")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = opened_state(tmp_path, Pair("push", "/srv/a", "bucket", ""))
    yield made
    made.close()


@pytest.mark.parametrize("bad", BAD)
def test_a_row_that_cannot_be_stored_is_left_out_by_name_and_the_others_are_stored(state: State, bad: str) -> None:
    """By the timer, as in a daemon; and the next rows find it alive."""

    async def scenario() -> None:
        left_out = LeftOut(state)
        ledger = Ledger(state, leave_out=left_out.note)
        tickets = [Ticket(state.directory / "state.sqlite") for _ in range(4)]
        ledger.record(replace(GOOD, path="a"), (), [tickets[0]])
        ledger.record(BAD[bad], ("never",), [tickets[1]])
        ledger.record(replace(GOOD, path="z"), (), [tickets[2]])
        ledger.note("memo", "kept")
        await asyncio.sleep(4 * module.WAIT)
        assert [ticket.rows for ticket in tickets[:3]] == [[["a", "z"]]] * 3, "each once, after the others' rows are stored"
        assert list(state.unsyncable()) == list(left_out.reasons) == ["bad"]
        assert (ledger.files, ledger.error, state.get_meta("memo")) == (2, None, "kept")
        ledger.record(replace(GOOD, path="later"), (), [tickets[3]])
        await asyncio.sleep(4 * module.WAIT)
        assert tickets[3].rows == [["a", "later", "z"]]

    asyncio.run(scenario())


def test_what_is_left_out_keeps_the_row_of_before(state: State) -> None:
    """It is as true as it was: the sides are compared with it, and nothing is deleted for want of one."""

    async def scenario() -> None:
        state.record([replace(GOOD, path="bad")], [])
        ledger = Ledger(state)
        ledger.record(BAD["size"], (), [])
        ledger.flush()
        assert (state.get("bad"), ledger.files) == (replace(GOOD, path="bad"), 1)

    asyncio.run(scenario())


def test_a_drop_of_a_name_that_has_no_row_keeps_nothing_back(state: State) -> None:
    async def scenario() -> None:
        ledger, ticket = Ledger(state), Ticket(state.directory / "state.sqlite")
        ledger.record(GOOD, ("caf\udce9",), [ticket])
        ledger.flush()
        assert ticket.rows == [["good"]]

    asyncio.run(scenario())


def test_a_receipt_that_cannot_be_given_back_keeps_no_other_back(state: State) -> None:
    async def scenario() -> None:
        ledger, ticket = Ledger(state), Ticket(state.directory / "state.sqlite")
        ledger.record(GOOD, (), [Broken(), ticket])
        ledger.flush()
        assert ticket.rows == [["good"]]

    asyncio.run(scenario())


def test_what_could_not_be_written_is_not_tried_again_once_the_state_is_closed(tmp_path: Path) -> None:
    """A closed database takes no row, and refuses none: nothing is left out, and no receipt is given back."""

    async def scenario() -> None:
        state = opened_state(tmp_path, Pair("push", "/srv/a", "bucket", ""))
        left_out: list[Unknown] = []
        ledger, ticket = Ledger(state, leave_out=left_out.append), Ticket(tmp_path / "state.sqlite")
        with closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as other:
            other.execute("DROP TABLE base")
        ledger.record(GOOD, (), [ticket])
        ledger.close()
        assert isinstance(ledger.error, HostUnavailable)
        state.close()
        ledger.record(GOOD, (), [ticket])
        ledger.flush()
        assert (ledger._timer, ticket.rows, left_out) == (None, [], [])

    asyncio.run(scenario())


def test_damage_is_shown_and_nothing_is_acknowledged(state: State) -> None:
    """Nor does a look at a row that cannot be read lose what is recorded: the path's work is over, its receipt is held."""

    async def scenario() -> None:
        rows = [replace(GOOD, path=f"{number:05}/{'n' * 200}") for number in range(20_000)]
        state.record(rows, [])
        state.sync()
        ledger, ticket = Ledger(state), Ticket(state.directory / "state.sqlite")
        state._db.execute("PRAGMA shrink_memory")
        with (state.directory / "state.sqlite").open("r+b") as file:
            for page in range(8, file.seek(0, os.SEEK_END) // 4096):
                file.seek(page * 4096)
                file.write(b"\xa5" * 4096)
        for row in rows[::100]:
            ledger.record(replace(row, size=4), (), [ticket])
        await asyncio.sleep(4 * module.WAIT)
        assert isinstance(ledger.error, HostUnavailable)
        assert (ticket.rows, ledger.files) == ([], 20_000)
        assert "damaged" in str(state.broken())
        ledger.record(GOOD, (), [ticket])
        ledger.flush()
        assert ledger._timer is not None, "it is tried again"
        ledger._timer.cancel()

    asyncio.run(scenario())
