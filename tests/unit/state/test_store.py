"""What survives: rows, in one transaction or not at all; the state of another pair is refused."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from syncloud.core.model import Base
from syncloud.errors import BusyError, ConfigurationError, HostUnavailable, PairError
from syncloud.state.store import Pair, State
from tests.support.states import PAIR, opened, opened_state, paths, row

# Rows


def test_record_replaces_and_drops(memory: State) -> None:
    memory.record([row("a"), row("b")], [])
    memory.record([row("a", mode=0o600)], ["b", "never there"])
    assert memory.get("a") == row("a", mode=0o600)
    assert memory.get("b") is None


def test_record_is_one_transaction(memory: State) -> None:
    def failing() -> Iterator[Base]:
        yield row("a")
        raise ValueError("a bug")

    memory.record([row("b")], [])
    with pytest.raises(ValueError, match="a bug"):
        memory.record(failing(), ["b"])
    assert paths(memory) == ["b"]
    memory.record([row("c")], [])
    assert paths(memory) == ["b", "c"]


def test_a_disk_that_refuses_is_the_hosts_trouble_and_nothing_is_half_written(
    memory: State,
) -> None:
    memory.record([row("a")], [])
    with contextlib.closing(
        sqlite3.connect(memory.directory / "state.sqlite", isolation_level=None)
    ) as other:
        (pages,) = other.execute("PRAGMA page_count").fetchone()
    memory._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(HostUnavailable, match="cannot write the state"):
        memory.record([row(f"{number:0200}") for number in range(1_000)], ["a"])
    assert paths(memory) == ["a"]
    memory._db.execute("PRAGMA max_page_count=1000000")
    memory.record([row("b")], [])
    assert paths(memory) == ["a", "b"]


def test_count_leaves_out_what_was_released(memory: State) -> None:
    memory.record([row("a"), row("b", source_absent=True), row("c")], [])
    assert memory.count() == 2


def test_a_renamed_file_is_found_by_the_beginning_of_its_tag(memory: State) -> None:
    memory.record(
        [
            row("a", ("11", "3", "99", "100")),
            row("b", ("11", "3", "990", "1")),
            row("c", ("1", "3", "99", "1")),
        ],
        [],
    )
    assert [base.path for base in memory.find_source(("11", "3", "99"))] == ["a"]
    assert [base.path for base in memory.find_source(("11", "3"))] == ["a", "b"]
    assert memory.find_source(("1", "3", "9")) == []


def test_many_rows_are_read_at_once(memory: State) -> None:
    names = ["a", "sub/b", 'quo"te', "\u00fc\U0001f600", "line\nbreak"]
    rows = [row(name, (str(number), "3", "9")) for number, name in enumerate(names)]
    memory.record(rows, ())
    assert memory.rows_of([*names, "none"]) == {base.path: base for base in rows}
    assert memory.rows_of([]) == {}


def test_an_inode_is_a_stranger_unless_some_source_begins_with_it(memory: State) -> None:
    memory.record([row("a", ("11", "3", "99")), row("b", ("112", "3"))], ())
    assert memory.unknown_inodes(["1", "11", "112", "3", "1123"]) == {"1", "3", "1123"}


def test_many_questions_to_a_disk_that_refuses_are_the_hosts_trouble(memory: State) -> None:
    with contextlib.closing(sqlite3.connect(memory.directory / "state.sqlite")) as other:
        other.execute("DROP TABLE base")
    for ask in (memory.rows_of, memory.unknown_inodes):
        with pytest.raises(HostUnavailable):
            ask(["a"])


# Notes


def test_a_reason_is_told_once(memory: State) -> None:
    assert memory.note_skipped("a\udcff", "not UTF-8")
    assert not memory.note_skipped("a\udcff", "not UTF-8")
    assert memory.note_skipped("a\udcff", "a socket")
    assert memory.skipped() == {"a\\xff": "a socket"}
    memory.clear_skipped("a\udcff")
    assert memory.skipped() == {}


# Files, lock, pair


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "deep" / "state") as memory:
            memory.record([row("a")], [])
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode) for path in memory.directory.iterdir()
            }
            assert stat.S_IMODE(memory.directory.stat().st_mode) == 0o700
            assert not stat.S_IMODE(memory.directory.parent.stat().st_mode) & 0o022
    finally:
        os.umask(before)
    assert modes.keys() >= {"lock", "state.sqlite", "state.sqlite-wal", "state.sqlite-shm"}
    assert set(modes.values()) == {0o600}, modes


def test_a_second_daemon_is_refused(memory: State) -> None:
    with pytest.raises(BusyError):
        opened_state(memory.directory, PAIR)


def test_after_a_clean_end_it_can_be_opened_again(tmp_path: Path) -> None:
    for _ in range(3):
        with opened(tmp_path):
            pass


@pytest.mark.parametrize(
    "other",
    [
        replace(PAIR, role="pull"),
        replace(PAIR, directory="/srv/other"),
        replace(PAIR, bucket="b"),
        replace(PAIR, prefix=""),
    ],
)
def test_another_pair_is_refused_and_the_lock_let_go(tmp_path: Path, other: Pair) -> None:
    with opened(tmp_path):
        pass
    with pytest.raises(PairError, match="belongs to: push /srv/jef s3://crawls/jef/"):
        opened_state(tmp_path, other)
    with opened(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((ConfigurationError, HostUnavailable)):
        opened_state(tmp_path / "file" / "state", PAIR)
