"""The composition: a dry run has parts of its own, and leaves nothing behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import HostUnavailable
from tests.support.sessions import opened

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.service.conftest import Configure


def test_a_rehearsal_leaves_no_state_and_no_directory(
    configure: Configure, out: Path, tmp_path: Path
) -> None:
    (out / "file").write_bytes(b"1")
    before = os.stat(out).st_ctime_ns
    opened("push", configure("push"), show=print)
    assert os.stat(out).st_ctime_ns == before
    assert not (tmp_path / "state").exists()
    with pytest.raises(HostUnavailable):
        opened("pull", configure("pull"), show=print)
    assert not (tmp_path / "in").exists()
