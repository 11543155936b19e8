"""The entry point: which states a command is about, and its exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syncloud.cli import main
from syncloud.config.parser import parse
from syncloud.errors import ConfigurationError
from tests.support.states import opened

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The states of the system's services."""
    monkeypatch.setattr(main, "SYSTEM_STATES", tmp_path / "system")
    return tmp_path / "system"


def states(home: Path, *words: str) -> list[Path]:
    """The states that `syncloud status WORDS` is about, for a user with this home."""
    return main._states(
        parse(["status", *words], {"HOME": str(home)}, etc=home, uid=1_000).settings
    )


def test_an_instance_has_one_state_the_users_own_first(tmp_path: Path, system: Path) -> None:
    own = tmp_path / ".local/state/syncloud/jef"
    assert states(tmp_path, "jef") == [own], "it is named where it should be"
    (system / "jef").mkdir(parents=True)
    assert states(tmp_path, "jef") == [system / "jef"]
    own.mkdir(parents=True)
    assert states(tmp_path, "jef") == [own]


def test_without_an_instance_all_states_of_both_places_are_meant(
    tmp_path: Path, system: Path
) -> None:
    with pytest.raises(ConfigurationError, match="there is no instance in"):
        states(tmp_path)
    own = tmp_path / ".local/state/syncloud/b"
    for made in (system / "a", own):
        made.mkdir(parents=True)
    (system / "file").touch()
    assert states(tmp_path) == sorted([own, system / "a"])


def test_a_named_directory_is_a_state_or_has_states(tmp_path: Path) -> None:
    with opened(tmp_path / "states" / "one"):
        pass
    assert states(tmp_path, "--state-dir", str(tmp_path / "states")) == [
        tmp_path / "states" / "one"
    ]
    assert states(tmp_path, "--state-dir", str(tmp_path / "states/one")) == [
        tmp_path / "states" / "one"
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["nonsense"], 2),
        (["status", "--state-dir", "/nowhere"], 78),
        (["setup", "--print-template"], 0),
    ],
)
def test_an_exit_code_tells_the_kind_of_the_end(words: list[str], code: int) -> None:
    assert main.main(words) == code
