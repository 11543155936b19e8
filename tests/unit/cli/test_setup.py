"""The command setup: what each of its acts asks of a stack, and what it prints."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from syncloud import cf, log
from syncloud.cli import setup
from syncloud.config.parser import parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class FakeStack:
    """Records its calls. `changes` is None where the stack is as it should be."""

    def __init__(self, changes: list[str] | None) -> None:
        self.calls: list[str] = []
        self._change_set = None if changes is None else SimpleNamespace(changes=changes)

    def __call__(self, *_: object, **__: object) -> FakeStack:
        return self

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "plan": self._change_set,
            "destroy": ["aws s3api delete-bucket"],
            "outputs": {},
            "execute": {},
        }

        def call(*_: object, **__: object) -> Any:
            self.calls.append(name)
            return answers.get(name)

        return call


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    log.close()


def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: list[str] | None, *more: str
) -> list[str]:
    """The calls of one command."""
    stack = FakeStack(changes)
    monkeypatch.setattr(setup, "Stack", stack)
    monkeypatch.setattr(cf, "configuration_lines", lambda _: ["bucket = b"])
    invocation = parse(
        ["setup", "--bucket", "bucket", "--region", "eu-central-1", *more], {}, etc=tmp_path
    )
    assert setup.run(invocation) == 0
    return stack.calls


@pytest.mark.parametrize(
    ("changes", "act", "calls", "printed"),
    [
        (["Add Bucket"], "--dry-run", ["plan", "discard"], "Add Bucket\n"),
        (None, "--dry-run", ["plan"], ""),
        ([], "--destroy", ["destroy"], "aws s3api delete-bucket\n"),
        (["Add Bucket"], "", ["settle", "plan", "execute"], "bucket = b\n"),
        (None, "", ["settle", "plan", "outputs"], "bucket = b\n"),
    ],
)
def test_an_act_does_its_own_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: list[str] | None,
    act: str,
    calls: list[str],
    printed: str,
) -> None:
    assert run(monkeypatch, tmp_path, changes, *filter(None, [act])) == calls
    assert capsys.readouterr().out == printed


def test_the_configuration_is_written_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(monkeypatch, tmp_path, None, "--write-config", str(tmp_path / "jef.conf"))
    assert (tmp_path / "jef.conf").read_text().startswith("bucket = b\n")


def test_the_template_needs_no_stack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path, None, "--print-template") == []
    assert capsys.readouterr().out.startswith("AWSTemplateFormatVersion")
