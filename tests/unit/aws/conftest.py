"""Fixtures of this package: sessions that are closed, and files of botocore's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from syncloud.aws.session import Aws
from tests.support.secrets import VARIABLES

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


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Aws]]:
    """An Aws to whom only this text of a configuration file says something."""
    for name in VARIABLES[:2]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with contextlib.ExitStack() as stack:

        def make(text: str) -> Aws:
            (tmp_path / "config").write_text(f"[default]\n{text}\n")
            return stack.enter_context(contextlib.closing(Aws()))

        yield make
