"""What survives: rows, in one transaction or not at all; a damaged database is rebuilt, a foreign one refused."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncloud.core.model import Base, ScanRecord
from syncloud.errors import BusyError, ConfigurationError, HostUnavailable, PairError
from syncloud.state import inspect, store
from syncloud.state.store import Pair, State
from tests.support.nobody import NOBODY, let_through
from tests.support.states import opened_state

PAIR = Pair("push", "/srv/jef", "crawls", "jef/")
CRC = 0xFEDC_BA98_7654_3210
FILETIME = -11_644_473_600 * 10**9
"""1601-01-01, the zero of Windows' clock: 2.4 times as far as 64 bits of nanoseconds reach."""
YEAR_9999 = 253_402_214_400 * 10**9


def row(path: str, source: tuple[str, ...] = ("11", "3", "99", "100"), **others: object) -> Base:
    made = Base(path, source, ("etag", "", "17"), 3, -1_500_000_001, 0o640, CRC)
    return replace(made, **others)  # type: ignore[arg-type]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[State]:
    with opened(tmp_path / "state") as made:
        yield made


@contextlib.contextmanager
def opened(directory: Path, pair: Pair = PAIR) -> Iterator[State]:
    made = opened_state(directory, pair)
    try:
        yield made
    finally:
        made.close()


def paths(memory: State, under: str = "") -> list[str]:
    with contextlib.closing(memory.reader()) as reader:
        return [base.path for base in reader.rows(under)]


# Rows


@pytest.mark.parametrize(
    "base",
    [
        row("a"),
        row("a", crc=None),
        row("a", crc=0),
        row("a", crc=2**64 - 1),
        row("a", source_absent=True),
        row("a", ("", "", "")),
        row("é\n\U0001f600", mtime_ns=2**63 - 1),
        row("a", mtime_ns=-(2**63), size=2**63 - 1, mode=0o777),
        row("a", ("11", "3", str(FILETIME), "100"), mtime_ns=FILETIME),
        row("a", ("11", "3", str(-(2**63) - 1), "100"), mtime_ns=-(2**63) - 1),
        row("a", ("11", "3", str(YEAR_9999), "racy"), mtime_ns=YEAR_9999),
        row("a", ("etag", "", "17"), target=("11", "3", str(YEAR_9999), "5"), mtime_ns=YEAR_9999),
    ],
)
def test_a_row_comes_back_as_it_was_also_after_a_restart(tmp_path: Path, base: Base) -> None:
    with opened(tmp_path) as memory:
        memory.record([base], [])
        assert memory.get(base.path) == base
    with opened(tmp_path) as memory:
        assert memory.rebuilt == ""
        assert memory.get(base.path) == base
        with contextlib.closing(memory.reader()) as reader:
            assert list(reader.rows()) == [base]


def test_rows_can_be_read_as_a_listing_shows_files(memory: State) -> None:
    memory.record([row("a", ("1", "2", "3", "4")), row("b", source_absent=True), row("b/c"), row("b0")], [])
    with contextlib.closing(memory.reader()) as reader:
        mode = row("a").mode
        assert list(reader.scan_records())[:2] == [("a", "1 2 3 4", mode), ("b", "", mode)]
        assert [path for path, _, _ in reader.scan_records("b")] == ["b/c"]
        assert (reader.get("b/c"), reader.get("c")) == (row("b/c"), None)


def test_a_time_beyond_2262_is_no_obstacle(memory: State) -> None:
    """ext4 holds times until 2446, a column 64 bits of nanoseconds."""
    memory.record([row("a", mtime_ns=15_032_385_535 * 10**9)], [])
    memory.record([row("b")], [])
    assert paths(memory) == ["a", "b"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(-(2**63) * 10**9, 2**63 * 10**9),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**64 - 1) | st.none(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    st.booleans(),
)
def test_any_file_that_a_kernel_can_show_fits_a_row(
    memory: State, mtime_ns: int, size: int, crc: int | None, path: str, racy: bool
) -> None:
    tag = (str(2**64 - 1), str(size), str(mtime_ns), "racy" if racy else str(mtime_ns))
    wanted = Base(path, tag, ("etag", "", "17"), size, mtime_ns, 0o640, crc)
    memory.record([wanted], [])
    assert memory.get(path) == wanted
    assert memory.rows_of([path]) == {path: wanted}
    with contextlib.closing(memory.reader()) as reader:
        assert reader.get(path) == wanted


@pytest.mark.parametrize("name", ["caf\udce9", "d/\udcff/x", "\ud800", "\udfff\ud800"])
def test_a_name_that_is_no_utf_8_is_in_no_row(memory: State, name: str) -> None:
    memory.record([row("caf\\xe9"), row("caf")], [])
    assert memory.get(name) is None
    assert memory.rows_of([name, "caf"]) == {"caf": row("caf")}
    assert memory.find_source((name, "3")) == []
    assert paths(memory, name) == []
    with contextlib.closing(memory.reader()) as reader:
        assert reader.get(name) is None
        assert list(reader.scan_records(name)) == []
    assert memory.note_skipped(name, f"of {name}")
    assert not memory.note_skipped(name, f"of {name}")
    memory.clear_skipped(name)
    assert memory.skipped() == {}


@pytest.mark.parametrize(
    "bad",
    [
        row("bad", size=2**63),
        row("bad", mode=-(2**70)),
        row("bad\udcff"),
        row("bad", ("etag\ud800", "", "17")),
        row("bad", size=None),
        row("bad", size=(1,)),
    ],
    ids=["size", "mode", "path", "tag", "null", "type"],
)
def test_a_row_that_does_not_fit_is_no_trouble_of_the_disk(memory: State, bad: Base) -> None:
    """Who writes many at once has to know: then each is written by itself, and the others are stored."""
    memory.record([row("a")], [])
    for puts in ([row("b"), bad], [bad]):
        with pytest.raises(Exception, match=r"\w") as raised:
            memory.record(puts, ["a"])
        assert not isinstance(raised.value, HostUnavailable)
    assert paths(memory) == ["a"]
    assert memory.broken() is None


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


def test_a_disk_that_refuses_is_the_hosts_trouble_and_nothing_is_half_written(memory: State) -> None:
    memory.record([row("a")], [])
    with contextlib.closing(sqlite3.connect(memory.directory / "state.sqlite", isolation_level=None)) as other:
        (pages,) = other.execute("PRAGMA page_count").fetchone()
    memory._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(HostUnavailable, match="cannot write the state"):
        memory.record([row(f"{number:0200}") for number in range(1_000)], ["a"])
    assert paths(memory) == ["a"]
    memory._db.execute("PRAGMA max_page_count=1000000")
    memory.record([row("b")], [])
    assert paths(memory) == ["a", "b"]


def test_a_reader_sees_what_is_committed_and_does_not_block_the_writer(memory: State) -> None:
    memory.record([row("a"), row("b")], [])
    with contextlib.closing(memory.reader()) as reader:
        rows = reader.rows()
        assert next(rows).path == "a"
        memory.record([row("c")], ["b"])
        assert next(rows).path == "b"
    assert paths(memory) == ["a", "c"]


def test_count_leaves_out_what_was_released(memory: State) -> None:
    memory.record([row("a"), row("b", source_absent=True), row("c")], [])
    assert memory.count() == 2


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.sets(KEYS | st.sampled_from(["a", "a/", "a/b", "a-b", "a0", "\uffff", "\U00010000", "Z", "é"])))
def test_the_readers_order_is_that_in_which_s3_lists(memory: State, keys: set[str]) -> None:
    memory.record([], paths(memory))
    memory.record([row(key) for key in keys], [])
    assert paths(memory) == sorted(keys, key=str.encode)
    assert paths(memory, "a") == sorted((key for key in keys if key.startswith("a/")), key=str.encode)


def test_rows_below_a_folder_are_only_those(memory: State) -> None:
    memory.record([row(path) for path in ("a", "a-b/c", "a/", "a/b", "a/b/c", "a0", "b/a/c")], [])
    assert paths(memory, "a") == ["a/", "a/b", "a/b/c"]
    assert paths(memory, "a/b") == ["a/b/c"]


def test_a_renamed_file_is_found_by_the_beginning_of_its_tag(memory: State) -> None:
    memory.record([row("a", ("11", "3", "99", "100")), row("b", ("11", "3", "990", "1")), row("c", ("1", "3", "99", "1"))], [])
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


def test_notes_survive(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.set_meta("verified", "17")
        memory.set_meta("verified", "18")
    with opened(tmp_path) as memory:
        assert memory.get_meta("verified") == "18"
        assert memory.get_meta("other") is None


# Files, lock, pair


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "deep" / "state") as memory:
            memory.record([row("a")], [])
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in memory.directory.iterdir()}
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


# Damage


def test_a_new_state_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        assert memory.rebuilt == "new"


@pytest.mark.parametrize(
    "damage", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000], ids=["text", "header"]
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
        memory.record([replace(base, source=(str(number), "3", "9", "9")) for number, base in enumerate(MANY)], [])
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
    assert (tmp_path / "state.sqlite.broken").stat().st_ino == found, "for whoever wants to look; nothing is deleted"
    with opened(tmp_path) as memory:
        assert (memory.rebuilt, paths(memory)) == ("", ["a"])


@pytest.mark.parametrize("change", ["path=CAST(x'ff' AS TEXT)", "source=x'00'", "mtime_ns='soon'", "crc='x'", "target=NULL"])
def test_a_row_that_makes_no_sense_is_damage(tmp_path: Path, change: str) -> None:
    with opened(tmp_path) as memory:
        memory.record([row("a")], [])
        with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as other:
            other.execute("PRAGMA writable_schema=1")
            other.execute("UPDATE sqlite_schema SET sql=replace(sql, ' NOT NULL', '') WHERE name='base'")
        with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as other:
            other.execute(f"UPDATE base SET {change}")
        with pytest.raises(HostUnavailable):
            paths(memory)
        assert "damaged" in str(memory.broken())
    with opened(tmp_path) as memory:
        assert paths(memory) == []


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
        db.execute(f"PRAGMA user_version={store.SCHEMA + 1}")
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


def test_a_note_that_makes_no_sense_is_damage(tmp_path: Path) -> None:
    """A damaged page may hold it: the start waits, and the next one builds the state anew."""
    with opened(tmp_path) as memory:
        memory.set_meta("verified", "{[")
        with pytest.raises(HostUnavailable, match="makes no sense"):
            memory.understood("verified", float, 0.0)
        assert memory.understood("not there", float, 7.0) == 7.0
    with opened(tmp_path) as memory:
        assert memory.rebuilt
        assert memory.understood("verified", float, 0.0) == 0.0


def test_a_database_without_its_tables_is_rebuilt(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as db:
        db.execute("PRAGMA user_version=1")
    with opened(tmp_path) as memory:
        assert memory.rebuilt


def test_a_state_that_cannot_be_seen_has_not_gone(tmp_path: Path) -> None:
    """For a moment its directory, or one above, may not be entered, or a network file system does not answer."""
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
from tests.support.states import opened_state
os.setgid(65534)
os.setuid(65534)
place = Path(sys.argv[1])
state = opened_state(place, Pair("push", "d", "b", ""))
os.chmod(place, 0)
print(state.broken())
os.chmod(place, 0o700)
print(state.broken())
"""
