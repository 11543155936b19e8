"""A journey of a change between two directories, and what counts as a difference between them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.demo.journey import Event, Journey, Seen, differences, took, tree

if TYPE_CHECKING:
    from pathlib import Path

FILE = Seen(size=3, mtime_ns=1_700_000_000_000_000_001, mode=0o100644, digest="abc")


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        ({}, {}, []),
        ({"a": FILE}, {"a": FILE}, []),
        ({"a": FILE}, {}, ["a: only in host-a"]),
        ({}, {"a": FILE}, ["a: only in host-b"]),
        ({"a": FILE}, {"a": FILE._replace(digest="abd")}, ["a: bytes differ"]),
        ({"a": FILE}, {"a": FILE._replace(mtime_ns=FILE.mtime_ns + 1)}, ["a: mtime_ns differ"]),
        ({"a": FILE}, {"a": FILE._replace(mode=0o100600, size=4)}, ["a: size and mode differ"]),
        (
            {"b": FILE, "a": FILE},
            {"c": FILE},
            ["a: only in host-a", "b: only in host-a", "c: only in host-b"],
        ),
    ],
)
def test_what_differs(left: dict[str, Seen], right: dict[str, Seen], told: list[str]) -> None:
    assert differences(left, right) == told


def test_a_tree_is_seen_whole(tmp_path: Path) -> None:
    """A hidden temporary of pull would be a difference, and a link differs from its target."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.hidden").write_text("abc")
    (tmp_path / "link").symlink_to("d/.hidden")
    seen = tree(tmp_path)
    assert seen.keys() == {"d/.hidden", "link"}
    assert (seen["d/.hidden"].size, seen["link"].digest) == (3, "")


class Way:
    """Two directories, and a journey of `a` between them that began at second 100."""

    def __init__(self, home: Path) -> None:
        self.source, self.target = home / "a", home / "b"
        self.source.mkdir()
        self.target.mkdir()

    def journey(self) -> Journey:
        return Journey.of(self.source, self.target, ["a"], 100.0)

    def copy(self) -> None:
        (self.target / "a").write_bytes((self.source / "a").read_bytes())
        found = (self.source / "a").stat()
        os.utime(self.target / "a", ns=(0, found.st_mtime_ns))
        (self.target / "a").chmod(found.st_mode)


@pytest.fixture
def way(tmp_path: Path) -> Way:
    return Way(tmp_path)


def event(role: str, name: str, *, at: float = 101.0, **fields: Any) -> Event:
    return Event.of(
        at, role, {"event": f"{role}.{name}", "path": "a", "level": "info", "message": "", **fields}
    )


def test_a_journey_is_complete_when_all_three_have_seen_it(way: Way) -> None:
    (way.source / "a").write_text("abc")
    journey = way.journey()
    journey.note(event("push", "uploaded", at=100.25, size=3))
    journey.note(event("pull", "written", at=101.5, size=3))
    assert journey.missing() == ["a: not seen by the reader of host-b"]
    way.copy()
    before = time.time()
    journey.look()
    assert journey.complete()
    assert journey.read["a"] >= before
    assert journey.cells()[:4] == ["uploaded", "250 ms", "written", "1.50 s"]


def test_an_older_content_is_not_this_journey(way: Way) -> None:
    (way.source / "a").write_text("abc")
    journey = way.journey()
    journey.note(event("push", "uploaded", size=2))
    journey.note(event("push", "deleted"))
    journey.note(event("ministack", "uploaded", size=3))
    assert journey.hops["push"] == {}


def test_the_reader_wants_bytes_mtime_and_mode(way: Way) -> None:
    (way.source / "a").write_text("abc")
    way.copy()
    for spoil in (
        lambda: (way.target / "a").chmod(0o600),
        lambda: os.utime(way.target / "a"),
        lambda: (way.target / "a").write_text("abd"),
    ):
        spoil()
        journey = way.journey()
        journey.look()
        assert not journey.read
        way.copy()


def test_a_deletion_is_seen_when_the_file_is_gone(way: Way) -> None:
    (way.target / "a").write_text("abc")
    journey = way.journey()
    journey.look()
    assert not journey.read
    (way.target / "a").unlink()
    journey.note(event("push", "deleted"))
    journey.note(event("pull", "deleted"))
    journey.look()
    assert journey.complete()


def test_times_are_for_people() -> None:
    assert [took(moment, 100.0) for moment in (None, 100.0, 100.012, 101.25)] == [
        "-",
        "-",
        "12 ms",
        "1.25 s",
    ]
