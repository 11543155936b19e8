"""Whose fault it is when the disk refuses, for every error that the kernel may give."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import Changed, HostUnavailable, PathError, Skipped, SyncloudError
from syncloud.local import error_mapping

if TYPE_CHECKING:
    from pathlib import Path

PATHS_OWN = dict.fromkeys(
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EFBIG], PathError
)
EVERYBODYS = dict.fromkeys([errno.EMFILE, errno.ENFILE, errno.ENOMEM], HostUnavailable)
NAMES = dict.fromkeys([errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV], Skipped)
GONE = dict.fromkeys([errno.ENOENT, errno.ENOTDIR], Changed)


@pytest.mark.parametrize(
    ("number", "kind"), {**PATHS_OWN, **EVERYBODYS, **NAMES, **GONE}.items(), ids=str
)
def test_where_the_root_is_well_an_error_is_the_paths_own(
    tmp_path: Path, number: int, kind: type[SyncloudError]
) -> None:
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        error = error_mapping.translate(
            OSError(number, os.strerror(number)), "some/path", root, "0123456789abcdef"
        )
    finally:
        os.close(root)
    assert type(error) is kind
    assert "some/path" in str(error)
    assert error.code == errno.errorcode[number]
    assert os.listdir(tmp_path) == []


def test_what_cannot_fit_is_not_begun(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        free = os.fstatvfs(file.fileno())
        error_mapping.require_room(file.fileno(), 1)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            error_mapping.require_room(file.fileno(), free.f_blocks * free.f_frsize * 2)
