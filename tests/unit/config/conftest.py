"""Fixtures of this package: words, variables and files to read, and the problems in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from syncloud.config import parser
from syncloud.config.settings import Invocation
from syncloud.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

PUSH = ("push", "--directory", "/srv/x", "--bucket", "buk")
QUEUE = "https://sqs.eu-central-1.amazonaws.com/1/q"
Read = Callable[..., Invocation]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def read(etc: Path) -> Read:
    def parse(*argv: str, **environ: str) -> Invocation:
        return parser.parse(argv, {"HOME": "/home/u", **environ}, etc=etc, uid=1000)

    return parse


def problems(read: Read, *argv: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(*argv, **environ)
    assert type(caught.value) is ConfigurationError
    assert caught.value.exit_code == 78
    assert f"syncloud {argv[0]} --help" in caught.value.hint
    head, *rest = str(caught.value).split("\n  ")
    if not rest:
        return [head]
    assert head == f"{len(rest)} problems in the configuration:"
    return rest
