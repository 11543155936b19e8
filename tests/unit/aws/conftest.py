"""What several tests of this package ask for: sessions that are closed, and a place for botocore's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syncloud.aws.session import Aws

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[..., Aws]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Aws] = []

    def aws(**settings: str) -> Aws:
        made.append(Aws(**settings))
        return made[-1]

    yield aws
    for each in made:
        each.close()


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No endpoint but AWS's own; nothing is sent there."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_DEFAULT_REGION")


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Writes the file that AWS_CONFIG_FILE names."""
    file = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))

    def write(text: str) -> None:
        file.write_text(text)

    return write
