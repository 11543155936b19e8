"""Entries and scan records that are made from stats."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from syncloud.core.model import Entry, ScanChunk
from tests.support.directory import look

if TYPE_CHECKING:
    from pathlib import Path

    from syncloud.local.tree import LocalTree


def test_a_scan_says_of_a_file_what_a_look_says_and_the_base_keeps(
    tree: LocalTree, root: Path
) -> None:
    (root / "f").write_text("content")
    (root / "f").chmod(0o640)
    (run,) = tree.scan()
    assert isinstance(run, ScanChunk)
    (seen,) = run.records
    entry = look(tree, "f")
    assert isinstance(entry, Entry)
    assert run.entry_of(seen) == replace(entry, crc=None)
    assert seen == ("f", " ".join(entry.tag), entry.mode)
