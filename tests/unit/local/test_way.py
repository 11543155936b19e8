"""The way to a directory: a link or folder counts by the users who can change it."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import HostUnavailable
from syncloud.local.root import Root
from syncloud.local.way import LINKS
from tests.support.nobody import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


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


@pytest.mark.parametrize(
    "target", ["real", "./real", "../place/real", "absolute", "real/", "real/../real/."]
)
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
    os.setxattr(
        place,
        "system.posix_acl_access",
        struct.pack("<i", 2) + b"".join(struct.pack("<HHi", *one) for one in entries),
    )


@needs_root
@pytest.mark.parametrize("give_away", [_link, _folder, _anybody, _sticky_of_another, _group, _acl])
def test_a_link_that_others_can_change_is_not_followed(
    place: Path, give_away: Callable[[Path], None]
) -> None:
    (place / "current").symlink_to("real")
    (place / "outer").symlink_to("current")
    give_away(place)
    for path in (place / "current", place / "outer", place / "current" / "below"):
        with pytest.raises(
            HostUnavailable, match=r"is a symbolic link that others can change"
        ) as refused:
            Root(path)
        assert "chown" in refused.value.hint


@needs_root
def test_a_link_of_root_in_a_sticky_directory_is_followed(place: Path) -> None:
    (place / "current").symlink_to("real")
    place.chmod(0o1777)
    assert leads_to(place / "current") == place / "real"


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


# What others can exchange


def test_nothing_is_exposed_where_all_belongs_to_us(place: Path) -> None:
    assert exposed(place / "real") is None


@needs_root
@pytest.mark.parametrize("give_away", [_folder, _anybody, _group, _acl])
def test_a_directory_in_a_folder_of_others_is_exposed(
    place: Path, give_away: Callable[[Path], None]
) -> None:
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
