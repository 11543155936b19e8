"""watchdog's observer, mended: depth of its walk, links in the way, leaks of threads and files."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
import warnings
from typing import TYPE_CHECKING

import pytest

from tests.support.trees import deep
from tests.support.watch import EVERYTHING, Watched, heard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def abyss(tmp_path: Path) -> Iterator[Path]:
    """A root that pytest need not remove: its own way of doing it recurses."""
    root = tmp_path / "root"
    root.mkdir()
    yield root
    subprocess.run(["rm", "-rf", str(root)], check=True)


def test_a_link_that_takes_the_place_of_a_directory_is_not_watched(
    root: Path, outside: Path
) -> None:
    """watchdog comes to a new directory by its path, and who has made it can be quicker."""
    for number in range(200):
        (outside / f"{number}").mkdir()
    theirs = {path.stat().st_ino for path in (outside, *outside.iterdir())}
    watched = Watched(root)
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            (root / "d").mkdir()
            time.sleep(random.uniform(0, 0.001))
            (root / "d").rmdir()
            (root / "d").symlink_to(outside)
            time.sleep(random.uniform(0, 0.004))
            assert theirs.isdisjoint(watched.source._watches().values())
            (root / "d").unlink()
        watched.hear_edits("f")
    finally:
        watched.stop()


@pytest.mark.parametrize("levels", [900, 1_500, 3_000])
def test_a_tree_of_any_depth_is_watched_as_far_as_a_path_is_long(abyss: Path, levels: int) -> None:
    deep(abyss, levels)
    (abyss / "other").mkdir()
    watched = Watched(abyss)
    try:
        watched.hear_edits("f", "other/f", "d/d/f", "d/" * 400 + "f")
        assert watched.source.trouble() is None, "where it ends no key could be either"
    finally:
        watched.stop()


def test_only_directories_that_can_hold_keys_are_watched(abyss: Path) -> None:
    """A local user who nests directories without end would otherwise hold up the events of all."""
    (abyss / "before").mkdir()
    deep(abyss / "before", 1_500)
    watched = Watched(abyss)
    try:
        (abyss / "after").mkdir()
        deep(abyss / "after", 1_500, os.fsdecode(b"\xe9"))
        watched.hear("after")
        watched.until(lambda: len(watched.source._watches()) > 600, seconds=60)
        assert len(watched.source._watches()) < 1_100
        assert watched.source._compared().is_whole
    finally:
        watched.stop()


def test_a_deep_tree_that_comes_moves_and_goes_ends_no_thread(
    abyss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncloud.local.watcher.BURST_TIMEOUT_S", 5.0)
    (abyss / "other").mkdir()
    watched = Watched(abyss)
    try:
        deep(abyss / "other", 1_200)
        watched.hear("other/d")
        (abyss / "other").rename(abyss / "moved")
        watched.hear("moved")
        (abyss / "moved").rename(tmp_path / "away")
        (tmp_path / "away").rename(abyss / "back")
        watched.until(
            lambda: any(hint.path == "back" or hint == EVERYTHING for hint in watched.hints),
            seconds=60,
        )
        for path in ("f", "back/f", "back/d/f"):
            watched.until(lambda: heard(watched, path), seconds=60)  # noqa: B023 - called at once
        assert watched.source.trouble() is None
        assert all(thread.is_alive() for thread in watched.source._threads)
    finally:
        watched.stop()


def test_a_long_root_shortens_no_path_that_is_watched(tmp_path: Path) -> None:
    """A long root and a long key together exceed PATH_MAX.

    Below a descriptor only the key counts.
    """
    top = tmp_path / "top"
    here = os.getcwd()
    top.mkdir()
    try:
        root = top
        os.chdir(top)
        while len(str(root)) < 3_600:
            os.mkdir("r" * 250)
            os.chdir("r" * 250)
            root = root / ("r" * 250)
        os.makedirs("/".join(["k" * 200] * 4))
        os.mkdir("other")
        os.chdir(here)
        watched = Watched(root)
        try:
            watched.settle()
            assert watched.source.trouble() is None
            (root / "other" / "f").touch()
            watched.hear("other/f")
            deep = "/".join(["k" * 200] * 4)
            subprocess.run(["touch", f"{deep}/f"], cwd=root, check=True)
            watched.hear(f"{deep}/f")
        finally:
            watched.stop()
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", str(top)], check=True)


def test_a_directory_that_watchdog_has_met_twice_is_no_news(root: Path, tmp_path: Path) -> None:
    """Its walk and its event: watchdog 7 warns of it, with a text of its own each time."""
    for number in range(100):
        (tmp_path / "tree" / str(number) / "below").mkdir(parents=True)
        (tmp_path / "tree" / str(number) / "below" / "f").write_text("x")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        watched = Watched(root)
        try:
            for copy in ("1", "2", "3"):
                subprocess.run(["cp", "-r", tmp_path / "tree", root / copy], check=True)
                watched.settle()
        finally:
            watched.stop()
    assert [str(warning.message) for warning in told] == []


def test_stopping_leaves_no_thread_and_no_descriptor(root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    threads, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    for number in range(20):
        watched = Watched(root)
        (root / "a/b/f").write_text(str(number))
        watched.hear("a/b/f")
        watched.stop()
    assert set(threading.enumerate()) == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
