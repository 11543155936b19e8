"""The changes of one round: each really changes what it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncloud.demo.changes import BURST, FIRST, Changes
from syncloud.demo.journey import tree

if TYPE_CHECKING:
    from pathlib import Path


def test_each_change_names_the_paths_that_it_changes(tmp_path: Path) -> None:
    changes = Changes(tmp_path)
    for name in FIRST:
        changes.write(name, 1024)
    for change in changes.all():
        before = tree(tmp_path)
        named = change.act()
        after = tree(tmp_path)
        changed = {
            path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
        }
        assert set(named) == changed, change.label


def test_only_a_burst_is_measured_from_its_beginning(tmp_path: Path) -> None:
    (burst,) = [change for change in Changes(tmp_path).all() if change.is_burst]
    assert burst.label.endswith("*"), "the table explains the mark"
    assert len(burst.act()) == BURST
