"""Fixtures of this package: the side of systemd, and the settings of a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syncloud.config.parser import parse
from tests.support.systemd import Systemd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from syncloud.config.settings import Settings
    from tests.support.emulator import Bucket

    Configure = Callable[..., Settings]


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(tmp_path) as made:
        yield made


@pytest.fixture
def configure(tmp_path: Path, bucket: Bucket) -> Configure:
    """Settings of a push from `out` or a pull into `in`; the last word for an option wins."""

    def settings(role: str, *more: str) -> Settings:
        directory = tmp_path / {"push": "out", "pull": "in"}[role]
        where = [
            "--directory",
            str(directory),
            "--bucket",
            bucket.name,
            "--endpoint-url",
            bucket.server.endpoint,
        ]
        once = ["--once"] if role == "pull" else []  # without a queue
        return parse(
            [role, *where, "--state-dir", str(tmp_path / "state"), *once, *more], {}, etc=tmp_path
        ).settings

    return settings


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made
