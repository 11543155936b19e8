"""A damaged database is set aside and rebuilt, and what a killed process has recorded is there."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncloud.core.model import ScanRecord
from syncloud.errors import HostUnavailable
from syncloud.state import database
from syncloud.state.store import State
from tests.support.nobody import NOBODY, let_through
from tests.support.states import PAIR, opened, opened_state, paths, row


def test_a_new_state_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        assert memory.rebuilt == "new"


@pytest.mark.parametrize(
    "damage",
    [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000],
    ids=["text", "header"],
)
def test_a_corrupt_database_is_set_aside_and_rebuilt(tmp_path: Path, damage: bytes) -> None:
    with opened(tmp_path) as memory:
        memory.record([row("a")], [])
    (tmp_path / "state.sqlite").write_bytes(damage)
    with opened(tmp_path) as memory:
        assert memory.rebuilt not in ("", "new")
        assert paths(memory) == []
        memory.record([row("b")], [])
    assert (tmp_path / "state.sqlite.broken").read_bytes() == damage
    with opened(tmp_path) as memory:
        assert memory.rebuilt == ""
        assert paths(memory) == ["b"]


def test_damage_inside_is_found_after_an_unclean_end(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.record([row(f"{number:0100}") for number in range(500)], [])
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('open', '1')")
    file = tmp_path / "state.sqlite"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"\xa5" * 4096
    file.write_bytes(bytes(content))
    with opened(tmp_path) as memory:
        assert memory.rebuilt
        assert paths(memory) == []


MANY = [row(f"{number:04}/{'n' * 200}") for number in range(20_000)]
"""More than sqlite keeps in memory."""


def damage(file: Path, *, after: int = 8) -> None:
    """Every other page from `after` on, as a bad disk leaves it."""
    with file.open("r+b") as written:
        for page in range(after, file.stat().st_size // 4096, 2):
            written.seek(page * 4096)
            written.write(b"\xa5" * 4096)


def sightings(memory: State) -> list[ScanRecord]:
    with contextlib.closing(memory.reader()) as reader:
        return list(reader.scan_records())


QUESTIONS: dict[str, Callable[[State], object]] = {
    "get": lambda memory: [memory.get(base.path) for base in MANY],
    "rows_of": lambda memory: memory.rows_of([base.path for base in MANY]),
    "count": lambda memory: memory.count(),
    "find_source": lambda memory: [memory.find_source((str(number),)) for number in range(2_000)],
    "strangers": lambda memory: memory.unknown_inodes([str(number) for number in range(2_000)]),
    "record": lambda memory: memory.record([replace(base, size=4) for base in MANY], []),
    "drop": lambda memory: memory.record([], [base.path for base in MANY]),
    "listing": lambda memory: paths(memory),
    "sightings": lambda memory: sightings(memory),
}


@pytest.mark.parametrize("ask", QUESTIONS)
def test_damage_that_is_met_in_use_is_the_hosts_trouble_and_the_next_start_sets_the_file_aside(
    tmp_path: Path, ask: str
) -> None:
    with opened(tmp_path) as memory:
        memory.record(
            [
                replace(base, source=(str(number), "3", "9", "9"))
                for number, base in enumerate(MANY)
            ],
            [],
        )
        memory.sync()
        memory._db.execute("PRAGMA shrink_memory")
        damage(tmp_path / "state.sqlite")
        with pytest.raises(HostUnavailable, match="the state"):
            QUESTIONS[ask](memory)
        assert "damaged" in str(memory.broken())
    found = (tmp_path / "state.sqlite").stat().st_ino
    with opened(tmp_path) as memory:
        assert memory.rebuilt not in ("", "new")
        assert (memory.broken(), paths(memory)) == (None, [])
        memory.record([row("a")], [])
    assert (tmp_path / "state.sqlite.broken").stat().st_ino == found, (
        "for whoever wants to look; nothing is deleted"
    )
    with opened(tmp_path) as memory:
        assert (memory.rebuilt, paths(memory)) == ("", ["a"])


@pytest.mark.parametrize("size", [0, 4096, 40 * 4096])
def test_a_file_that_is_cut_while_it_is_open_is_damaged(tmp_path: Path, size: int) -> None:
    with opened(tmp_path) as memory:
        memory.record(MANY, [])
        memory.sync()
        os.truncate(tmp_path / "state.sqlite", size)
        with pytest.raises(HostUnavailable):
            paths(memory)
        assert "damaged" in str(memory.broken())
    with opened(tmp_path) as memory:
        assert memory.rebuilt not in ("", "new")
        assert paths(memory) == []


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_files_that_go_while_they_are_open_are_missed(tmp_path: Path, suffix: str) -> None:
    with opened(tmp_path) as memory:
        memory.record([row("a")], [])
        assert memory.broken() is None
        (tmp_path / f"state.sqlite{suffix}").rename(tmp_path / "away")
        assert "removed or replaced" in str(memory.broken())
        (tmp_path / "away").rename(tmp_path / f"state.sqlite{suffix}")
        assert memory.broken() is None


def test_an_empty_file_is_a_new_state(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"")
    with opened(tmp_path) as memory:
        assert memory.rebuilt == "new"


def test_a_newer_database_is_set_aside(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.record([row("a")], [])
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as db:
        db.execute(f"PRAGMA user_version={database.SCHEMA + 1}")
    with opened(tmp_path) as memory:
        assert "schema" in memory.rebuilt
        assert paths(memory) == []
    assert (tmp_path / "state.sqlite.broken").exists()


def test_a_killed_process_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        memory = opened_state(tmp_path, PAIR)
        memory.record([row("a")], [])
        os._exit(0)
    os.waitpid(child, 0)
    with opened(tmp_path) as memory:
        assert memory.rebuilt == ""
        assert memory.get("a") == row("a")


def test_a_database_without_its_tables_is_rebuilt(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as db:
        db.execute("PRAGMA user_version=1")
    with opened(tmp_path) as memory:
        assert memory.rebuilt


def test_a_database_whose_files_cannot_be_examined_does_not_stay_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remember(*arguments: Any, **options: Any) -> sqlite3.Connection:
        made.append(connect(*arguments, **options))
        return made[-1]

    def refuse(path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(sqlite3, "connect", remember)
    monkeypatch.setattr(database, "_identity", refuse)
    with pytest.raises(PermissionError):
        database.Database(tmp_path)
    with pytest.raises(sqlite3.ProgrammingError):
        made[-1].execute("SELECT 1")


def test_a_state_that_cannot_be_seen_has_not_gone(tmp_path: Path) -> None:
    """The directory may be closed to us for a moment, or a network file system may not answer."""
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    let_through(tmp_path)
    place = tmp_path / "state"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    argv = [sys.executable, "-c", UNSEEN, str(place)]
    ran = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["None", "None"], ran.stdout


UNSEEN = """
import os, sys
from pathlib import Path
from syncloud.state.store import Pair
from tests.support.states import PAIR, opened, opened_state, paths, row
os.setgid(65534)
os.setuid(65534)
place = Path(sys.argv[1])
state = opened_state(place, Pair("push", "d", "b", ""))
os.chmod(place, 0)
print(state.broken())
os.chmod(place, 0o700)
print(state.broken())
"""
