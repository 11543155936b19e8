"""Root: the directory that is opened or made, and whether the path still leads to it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import ConfigurationError, HostUnavailable
from syncloud.local.root import Root

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_not_there_is_waited_for_and_a_file_is_refused(place: Path) -> None:
    (place / "file").touch()
    (place / "dead").symlink_to("nowhere")
    for name in ("no", "no/below", "dead"):
        with pytest.raises(HostUnavailable, match="is not there"):
            Root(place / name)
    for name in ("file", "file/below"):
        with pytest.raises(ConfigurationError, match="is not a directory"):
            Root(place / name)


def test_it_is_made_where_that_is_asked_for(place: Path) -> None:
    (place / "current").symlink_to("real")
    for path in (place / "real/new/er", place / "current/other"):
        Root(path, make=True).close()
        assert path.is_dir()
    assert (place / "real/other").is_dir()


def test_what_was_made_is_known_from_what_was_there(place: Path) -> None:
    assert newly_made(place / "new/er")
    assert not newly_made(place / "new/er"), "it is there"
    assert not newly_made(place / "real")


def newly_made(path: Path) -> bool:
    root = Root(path, make=True)
    root.close()
    return root.newly_made


def test_what_takes_the_place_of_what_was_made_is_not_taken_for_it(place: Path) -> None:
    """Between mkdir(2) and open(2) other owners of the folder can exchange the directory.

    The exchange may also be with an empty directory of ours.
    """
    old, it = place / "real", place / "it"

    def exchange() -> None:
        while not it.exists():
            pass
        it.rename(place / "was")
        old.rename(it)

    numbers, until, exchanged = old.stat().st_ino, time.monotonic() + 30, 0
    time.sleep(0.02)  # stamps are those of a tick
    while exchanged < 3 and time.monotonic() < until:
        thread = threading.Thread(target=exchange)
        thread.start()
        root = Root(it, make=True)
        is_old = os.fstat(root.fd).st_ino == numbers
        root.close()
        thread.join()
        assert root.newly_made is not is_old
        exchanged += is_old
        it.rename(old)
        (place / "was").rmdir()
    assert exchanged == 3


def test_another_directory_under_its_name_is_noticed(place: Path) -> None:
    root = Root(place / "real")
    try:
        (place / "real").rename(place / "away")
        assert "cannot be seen" in str(root.missing())
        (place / "real").mkdir()
        assert "is another directory now" in str(root.missing())
        (place / "real").rmdir()
        (place / "away").rename(place / "real")
        assert root.missing() is None
    finally:
        root.close()
