"""Output: data and errors in harmless lines without secrets, and one event in the journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from syncloud import log
from syncloud.cli import output
from syncloud.errors import HIDDEN, ConfigurationError, SyncloudError
from tests.support.secrets import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """The log, which a report may open."""
    yield
    log.close()


@pytest.mark.usefixtures("known")
def test_data_keep_their_layout_and_lose_secrets_and_controls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.show(f"copy\ta\x1b[2J\n{SECRET}")
    assert capsys.readouterr().out == f"copy\ta\\x1b[2J\n{HIDDEN}\n"


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (SyncloudError("no\x1b network"), ["syncloud: no\\x1b network"]),
        (SyncloudError("no", hint="look"), ["syncloud: no", "          look"]),
        (
            ConfigurationError("both", lines=["2 problems", "a\nb"]),
            ["syncloud: 2 problems", "  a\\nb"],
        ),
    ],
)
def test_an_error_has_its_lines_and_the_next_step(
    error: SyncloudError, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output.report(error)
    assert capsys.readouterr().err.splitlines() == lines


JOURNAL = """
    import os, sys
    from syncloud.cli import output
    from syncloud.errors import SyncloudError
    status = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    output.report(SyncloudError("no network", hint="look"))
"""


def test_in_the_journal_an_error_is_one_event(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as journal:
        argv = [sys.executable, "-c", textwrap.dedent(JOURNAL)]
        done = subprocess.run(argv, stderr=journal, stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    prefix, line = (tmp_path / "journal").read_text()[:3], (tmp_path / "journal").read_text()[3:]
    event = json.loads(line)
    assert prefix == "<3>"
    assert (event["event"], event["message"], event["hint"]) == (
        "service.failed",
        "no network",
        "look",
    )


def test_a_reader_that_has_gone_is_no_error() -> None:
    """As `syncloud setup --print-template | head -1`."""
    program = (
        "import sys; from syncloud.cli.main import main; "
        "sys.exit(main(['setup', '--print-template']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
