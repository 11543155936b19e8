"""The comparison at the end of a round, and the table above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncloud.demo import rounds
from syncloud.demo.journey import Journey
from syncloud.demo.printed import path_row, some

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_is_equal_is_counted_and_what_differs_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "host-a", tmp_path / "host-b"
    ours.mkdir()
    theirs.mkdir()
    assert rounds._compare(ours, theirs)
    assert "0 files, 0.0 MiB: names, bytes, mtime and mode are equal" in capsys.readouterr().out
    (ours / "a").write_text("abc")
    assert not rounds._compare(ours, theirs)
    assert "host-a has 1 files, host-b 0; 1 differ:\n  a: only in host-a" in capsys.readouterr().out


def test_a_list_and_a_long_path_have_their_limits(tmp_path: Path) -> None:
    assert some(["a\x1b"], indent="") == ["a\\x1b"]
    assert some([str(number) for number in range(12)])[-1] == "  and 2 more"
    journey = Journey.of(tmp_path, tmp_path, ["a"], 100.0)
    assert path_row("x" * 40, journey).startswith("  ..." + "x" * 27 + "  ")
    assert path_row("x" * 30, journey).startswith("  " + "x" * 30 + "  ")
