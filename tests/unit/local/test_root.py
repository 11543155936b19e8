"""Root: where a path leads is decided by who could have put the links and directories there."""

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import ConfigurationError, HostUnavailable
from syncloud.local.root import Root
from syncloud.local.way import LINKS
from tests.support.nobody import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that nobody else can change: pytest's own is as private."""
    made = tmp_path.resolve() / "place"
    (made / "real").mkdir(parents=True)
    return made


def leads_to(path: Path) -> Path:
    root = Root(path)
    try:
        assert root.missing() is None
        return Path(os.readlink(f"/proc/self/fd/{root.fd}"))
    finally:
        root.close()


def exposed(path: Path) -> str | None:
    root = Root(path)
    root.close()
    return root.exposed


# Links


@pytest.mark.parametrize("target", ["real", "./real", "../place/real", "absolute", "real/", "real/../real/."])
def test_a_link_of_our_own_is_followed(place: Path, target: str) -> None:
    (place / "current").symlink_to(place / "real" if target == "absolute" else target)
    (place / "again").symlink_to("current")
    assert leads_to(place / "current") == leads_to(place / "again") == place / "real"
    (place / "real/below").mkdir()
    assert leads_to(place / "again/below") == place / "real/below"


def test_links_without_end_are_an_error_not_a_loop(place: Path) -> None:
    (place / "loop").symlink_to("loop")
    for number in range(LINKS + 1):
        (place / f"{number}").symlink_to(f"{number + 1}")
    (place / f"{LINKS + 1}").mkdir()
    for name in ("loop", "0"):
        with pytest.raises(HostUnavailable, match="Too many levels of symbolic links"):
            Root(place / name)
    assert leads_to(place / "1") == place / f"{LINKS + 1}"


def test_a_magic_link_is_but_its_text(place: Path) -> None:
    """The kernel would lead to what a process has open, whatever its name is."""
    fd = os.open(place / "real", os.O_RDONLY)
    try:
        assert leads_to(Path(f"/proc/self/fd/{fd}")) == place / "real"
        (place / "real").rename(place / "private")
        (place / "real").mkdir()
        (place / "real").rmdir()
        with pytest.raises(HostUnavailable):
            Root(Path(f"/proc/self/fd/{fd}/../../etc/no"))
    finally:
        os.close(fd)


def _link(place: Path) -> None:
    os.chown(place / "current", NOBODY, NOBODY, follow_symlinks=False)


def _folder(place: Path) -> None:
    os.chown(place, NOBODY, NOBODY)


def _anybody(place: Path) -> None:
    place.chmod(0o777)


def _sticky_of_another(place: Path) -> None:
    place.chmod(0o1777)
    _link(place)


def _group(place: Path) -> None:
    os.chown(place, 0, NOBODY)
    place.chmod(0o775)


def _acl(place: Path) -> None:
    """acl(5) as the kernel keeps it: the owner, one more user, the group, the mask, others."""
    entries = [(1, 7, -1), (2, 7, NOBODY), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
    os.setxattr(place, "system.posix_acl_access", struct.pack("<i", 2) + b"".join(struct.pack("<HHi", *one) for one in entries))


@needs_root
@pytest.mark.parametrize("give_away", [_link, _folder, _anybody, _sticky_of_another, _group, _acl])
def test_a_link_that_others_can_change_is_not_followed(place: Path, give_away: Callable[[Path], None]) -> None:
    (place / "current").symlink_to("real")
    (place / "outer").symlink_to("current")
    give_away(place)
    for path in (place / "current", place / "outer", place / "current" / "below"):
        with pytest.raises(HostUnavailable, match=r"is a symbolic link that others can change") as refused:
            Root(path)
        assert "chown" in refused.value.hint


@needs_root
def test_a_link_of_root_in_a_sticky_directory_is_followed(place: Path) -> None:
    (place / "current").symlink_to("real")
    place.chmod(0o1777)
    assert leads_to(place / "current") == place / "real"


# What others can exchange


def test_nothing_is_exposed_where_all_belongs_to_us(place: Path) -> None:
    assert exposed(place / "real") is None


@needs_root
@pytest.mark.parametrize("give_away", [_folder, _anybody, _group, _acl])
def test_a_directory_in_a_folder_of_others_is_exposed(place: Path, give_away: Callable[[Path], None]) -> None:
    (place / "real/below/it").mkdir(parents=True)
    give_away(place)
    assert exposed(place / "real/below/it") == str(place)
    assert exposed(place) is None, "others may fill it, and not exchange it"


@needs_root
def test_in_a_sticky_directory_only_what_others_own_is_exposed(place: Path) -> None:
    (place / "theirs/below").mkdir(parents=True)
    os.chown(place / "theirs", NOBODY, NOBODY)
    place.chmod(0o1777)
    assert exposed(place / "real") is None
    assert exposed(place / "theirs") == str(place)
    assert exposed(place / "theirs/below") == str(place)


# What is there


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
    """Between mkdir(2) and open(2) others who own the folder can exchange them; a directory of ours, empty, too."""
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


@pytest.fixture
def flipping(place: Path) -> Iterator[Path]:
    """A directory that is exchanged for a link to a private one, to and fro."""
    (place / "private").mkdir()
    (place / "private/secret").touch()
    over = threading.Event()

    def flip() -> None:
        while not over.is_set():
            os.rename(place / "real", place / "was")
            os.symlink("private", place / "real")
            os.chown(place / "real", NOBODY, NOBODY, follow_symlinks=False)
            os.unlink(place / "real")
            os.rename(place / "was", place / "real")

    thread = threading.Thread(target=flip)
    thread.start()
    yield place / "real"
    over.set()
    thread.join()


@needs_root
def test_no_moment_of_an_exchange_leads_elsewhere(flipping: Path) -> None:
    met = {"opened": 0, "refused": 0}
    os.chown(flipping.parent, NOBODY, NOBODY)
    while min(met.values()) < 300:
        try:
            root = Root(flipping)
        except HostUnavailable:
            met["refused"] += 1
            continue
        assert os.listdir(root.fd) == []
        root.close()
        met["opened"] += 1
