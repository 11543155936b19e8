"""The form of the base rows: every file comes back as it was, in the order in which S3 lists."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncloud.core.model import Base
from syncloud.errors import HostUnavailable
from syncloud.state.store import State
from tests.support.states import opened, paths, row

FILETIME = -11_644_473_600 * 10**9
"""1601-01-01, the zero of Windows' clock: 2.4 times as far as 64 bits of nanoseconds reach."""
YEAR_9999 = 253_402_214_400 * 10**9


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
    memory.record(
        [row("a", ("1", "2", "3", "4")), row("b", source_absent=True), row("b/c"), row("b0")], []
    )
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
    """The caller of a batch must know.

    Each row is then written by itself, and the others are stored.
    """
    memory.record([row("a")], [])
    for puts in ([row("b"), bad], [bad]):
        with pytest.raises(Exception, match=r"\w") as raised:
            memory.record(puts, ["a"])
        assert not isinstance(raised.value, HostUnavailable)
    assert paths(memory) == ["a"]
    assert memory.broken() is None


def test_a_reader_sees_what_is_committed_and_does_not_block_the_writer(memory: State) -> None:
    memory.record([row("a"), row("b")], [])
    with contextlib.closing(memory.reader()) as reader:
        rows = reader.rows()
        assert next(rows).path == "a"
        memory.record([row("c")], ["b"])
        assert next(rows).path == "b"
    assert paths(memory) == ["a", "c"]


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.sets(
        KEYS | st.sampled_from(["a", "a/", "a/b", "a-b", "a0", "\uffff", "\U00010000", "Z", "é"])
    )
)
def test_the_readers_order_is_that_in_which_s3_lists(memory: State, keys: set[str]) -> None:
    memory.record([], paths(memory))
    memory.record([row(key) for key in keys], [])
    assert paths(memory) == sorted(keys, key=str.encode)
    assert paths(memory, "a") == sorted(
        (key for key in keys if key.startswith("a/")), key=str.encode
    )


def test_rows_below_a_folder_are_only_those(memory: State) -> None:
    memory.record([row(path) for path in ("a", "a-b/c", "a/", "a/b", "a/b/c", "a0", "b/a/c")], [])
    assert paths(memory, "a") == ["a/", "a/b", "a/b/c"]
    assert paths(memory, "a/b") == ["a/b/c"]


@pytest.mark.parametrize(
    "change",
    ["path=CAST(x'ff' AS TEXT)", "source=x'00'", "mtime_ns='soon'", "crc='x'", "target=NULL"],
)
def test_a_row_that_makes_no_sense_is_damage(tmp_path: Path, change: str) -> None:
    with opened(tmp_path) as memory:
        memory.record([row("a")], [])
        with contextlib.closing(
            sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
        ) as other:
            other.execute("PRAGMA writable_schema=1")
            other.execute(
                "UPDATE sqlite_schema SET sql=replace(sql, ' NOT NULL', '') WHERE name='base'"
            )
        with contextlib.closing(
            sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
        ) as other:
            other.execute(f"UPDATE base SET {change}")
        with pytest.raises(HostUnavailable):
            paths(memory)
        assert "damaged" in str(memory.broken())
    with opened(tmp_path) as memory:
        assert paths(memory) == []
