"""Others in the directory during our own acts: no name, mode or temporary of theirs is ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syncloud.local import entries
from tests.support.acts import (
    MTIME,
    OLD,
    THEIRS,
    in_place,
    perform,
    traced,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = traced


def renamed_over(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(THEIRS)
    other.rename(file)


@pytest.mark.parametrize(
    "where",
    [
        "openat:delay_enter=500ms:when=1",
        "utimensat:delay_enter=500ms:when=1",
        "fchmod:delay_enter=500ms:when=1",
    ],
)
def test_a_file_that_takes_the_name_during_a_touch_is_not_touched(
    tmp_path: Path, file: Path, where: str
) -> None:
    argv = ["-P", "f"] if where.startswith("openat") else []
    said = perform(tmp_path, "touch", where, lambda: renamed_over(file), more=argv)
    assert said == "Changed"
    assert file.read_bytes() == THEIRS
    assert file.stat().st_mtime_ns > MTIME * 1.1, "its own"


def test_a_mode_of_somebody_during_a_touch_is_not_recorded_as_agreed(
    tmp_path: Path, file: Path
) -> None:
    said = perform(
        tmp_path, "touch", "utimensat:delay_exit=500ms:when=1", lambda: file.chmod(0o604)
    )
    status = file.stat()
    if isinstance(said, list) and tuple(said) == entries.tag_of(status):
        assert status.st_mode & 0o777 == 0o640, "it is as both sides agreed"


def test_a_mode_of_somebody_after_our_own_is_not_recorded_as_agreed(
    tmp_path: Path, file: Path
) -> None:
    said = perform(
        tmp_path, "touch", "clock_nanosleep:delay_enter=500ms:when=1", lambda: file.chmod(0o604)
    )
    assert file.stat().st_mode & 0o777 == 0o604
    assert said == "Changed"


@pytest.mark.parametrize("act", ["new", "new large", "replace", "replace large"])
def test_a_mode_of_somebody_after_the_rename_is_not_recorded_as_agreed(
    tmp_path: Path, file: Path, act: str
) -> None:
    if act.startswith("new"):
        file.unlink()
    where = "renameat2:delay_exit=500ms" if act.startswith("new") else "renameat:delay_exit=500ms"
    said = perform(tmp_path, act, where, lambda: file.chmod(0o604))
    assert isinstance(said, list)
    assert tuple(said) != entries.tag_of(file.stat())


@pytest.mark.parametrize("act", ["new", "new large", "replace", "replace large"])
def test_a_temporary_that_somebody_edits_is_not_taken_for_what_was_sent(
    tmp_path: Path, file: Path, act: str
) -> None:
    """Its name is hidden; who writes into it all the same puts its mtime back."""
    if act.startswith("new"):
        file.unlink()

    def meddle() -> None:
        (temporary,) = (tmp_path / "root").glob(".syncloud-tmp-*")
        in_place(temporary)

    said = perform(tmp_path, act, "fsync:delay_enter=500ms:when=1", meddle)
    if isinstance(said, list):
        assert file.read_bytes() == THEIRS
        assert tuple(said) != entries.tag_of(file.stat())
    else:
        assert said == "Changed"
        assert [name.read_bytes() for name in file.parent.iterdir()] == (
            [] if act.startswith("new") else [OLD]
        )
