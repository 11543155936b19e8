"""The state directory: a start refuses one that others could write to or exchange."""

from __future__ import annotations

import os
import shlex
import stat
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import ConfigurationError, SyncloudError
from syncloud.service import state_directory, status
from syncloud.state import inspect, notes
from syncloud.state.notes import Resume
from syncloud.state.store import Pair
from tests.support.nobody import NOBODY, let_through
from tests.support.states import opened_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAIR = Pair("push", "d", "b", "")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_it_is_made_for_the_owner_alone_and_can_be_read_up_to_there(folder: Path) -> None:
    before = os.umask(0)
    try:
        os.close(state_directory.opened(folder / "a/b/state"))
    finally:
        os.umask(before)
    assert [stat.S_IMODE((folder / path).stat().st_mode) for path in ("a", "a/b", "a/b/state")] == [
        0o755,
        0o755,
        0o700,
    ]


def refused(directory: Path) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as told:
        opened_state(directory, PAIR)
    assert told.value.exit_code == 78
    return told.value


# Who else may change it


@needs_root
@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777])
def test_in_a_folder_of_others_there_is_no_state(folder: Path, mode: int) -> None:
    """Also where it is made only now: they can exchange it later."""
    folder.chmod(mode)
    os.chown(folder, NOBODY, NOBODY)
    told = refused(folder / "state")
    assert f"other users can exchange the content of {folder}" in str(told)
    assert f"chown root {folder}" in told.hint


@needs_root
def test_a_state_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    told = refused(folder)
    assert f"belongs to another user ({NOBODY})" in str(told)
    assert told.hint == f"chown 0 {folder}"


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o720, 0o777, 0o1777])
def test_a_state_that_others_may_write_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    told = refused(folder)
    assert "other users may write the state directory" in str(told)
    assert told.hint == f"chmod go-w {folder}"


@needs_root
def test_a_link_of_others_to_a_state_is_refused_and_our_own_is_followed(folder: Path) -> None:
    (folder / "real").mkdir(mode=0o700)
    (folder / "link").symlink_to("real")
    opened_state(folder / "link", PAIR).close()
    assert (folder / "real/state.sqlite").exists()
    os.chown(folder / "link", NOBODY, NOBODY, follow_symlinks=False)
    assert "is a symbolic link that others can change" in str(refused(folder / "link"))


def test_a_hint_for_the_shell_holds_a_name_as_one_word(folder: Path) -> None:
    state = folder / "a b; $(id) \u202e"
    state.mkdir(mode=0o777)
    state.chmod(0o777)
    assert shlex.split(refused(state).hint) == ["chmod", "go-w", str(state)]


# What is in it


def _link(at: Path) -> None:
    at.symlink_to(at.parent.parent / "target")


def _pipe(at: Path) -> None:
    os.mkfifo(at)


def _directory(at: Path) -> None:
    at.mkdir()


@pytest.mark.parametrize(
    "name", ["lock", "state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "state.sqlite-journal"]
)
@pytest.mark.parametrize("make", [_link, _pipe, _directory])
def test_only_regular_files_are_opened(
    folder: Path, name: str, make: Callable[[Path], None]
) -> None:
    state = folder / "state"
    opened_state(state, PAIR).close()
    (state / name).unlink(missing_ok=True)
    make(state / name)
    told = refused(state)
    assert f"{state / name} is not a regular file" in str(told)
    assert not (folder / "target").exists()
    if name != "lock":
        for look in (
            status.read,
            inspect.read_summary,
            lambda at: inspect.leave_note(at, notes.RESUME, Resume.LOOK_AGAIN),
        ):
            with pytest.raises(ConfigurationError, match="is not a regular file"):
                look(state)
        with pytest.raises(ConfigurationError, match="is not a regular file"):
            inspect.copy(state, folder)


# Root looks at what another user has


@needs_root
def test_root_acts_as_the_owner_of_a_state(tmp_path: Path, folder: Path) -> None:
    let_through(tmp_path)
    (tmp_path / "secret").write_text("of root's")
    (tmp_path / "secret").chmod(0o600)
    os.chown(folder, NOBODY, NOBODY)
    with state_directory.as_owner(folder):
        assert os.geteuid() == NOBODY
        with pytest.raises(PermissionError):
            (tmp_path / "secret").read_text()
    assert (os.geteuid(), os.getegid()) == (0, 0)
    assert (tmp_path / "secret").read_text() == "of root's"
    with pytest.raises(SyncloudError), state_directory.as_owner(folder):
        raise SyncloudError("whatever happens")
    assert os.geteuid() == 0


@needs_root
def test_nothing_changes_for_a_state_of_roots_or_one_that_is_not_there(folder: Path) -> None:
    for directory in (folder, folder / "no"):
        with state_directory.as_owner(directory):
            assert os.geteuid() == 0
