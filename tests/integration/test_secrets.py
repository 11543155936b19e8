"""Secrets in whole processes: an invalid variable is named, and the last words have no secret."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from syncloud.errors import HIDDEN
from tests.support.secrets import BAD, FAILING, PROBE, SECRET, VARIABLES, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start


LAST = """
    import sys, threading
    from syncloud.cli import main
    from syncloud import errors
    main.main(["status", "--state-dir", "/nowhere"])
    errors.learn(sys.argv[1])
    def fail(): raise ValueError(sys.argv[1])
    class Late:
        def __del__(self): fail()
    Late()
    thread = threading.Thread(target=fail); thread.start(); thread.join()
    fail()
"""


def test_the_last_words_of_a_process_have_no_secret(tmp_path: Path) -> None:
    (tmp_path / "last.py").write_text(textwrap.dedent(LAST))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "last.py"), SECRET],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count(f"ValueError: {HIDDEN}") == 3
    assert SECRET not in done.stderr


@pytest.mark.parametrize("name", VARIABLES)
def test_a_command_ends_with_the_name_of_that_variable(
    name: str, syncloud: Start, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    place = [
        "--directory",
        str(tmp_path / "out"),
        "--bucket",
        "bucket",
        "--state-dir",
        str(tmp_path / "state"),
    ]
    for arguments in (
        ["push", *place],
        ["push", "--once", *place],
        ["setup", "--bucket", "bucket"],
    ):
        process = syncloud(*arguments, env={name: BAD["line break"]})
        assert process.wait() == 78
        assert name in process.stderr
        assert PROBE not in process.stderr
        assert "Traceback" not in process.stderr


UNKNOWN = {
    "no program": "/nowhere/program",
    "no command": '"',
    "an empty command": '""',
    "a directory": "/",
}


@pytest.mark.parametrize("how", [*FAILING, *UNKNOWN])
def test_a_failing_credential_process_is_an_error_and_no_traceback(
    how: str, syncloud: Start, tmp_path: Path
) -> None:
    line = (
        program(tmp_path, FAILING[how])
        if how in FAILING
        else f"credential_process = {UNKNOWN[how]}"
    )
    (tmp_path / "config").write_text(f"[profile p]\n{line}\n")
    (tmp_path / "out").mkdir()
    place = [
        "--directory",
        str(tmp_path / "out"),
        "--bucket",
        "bucket",
        "--state-dir",
        str(tmp_path / "state"),
    ]
    process = syncloud(
        "push",
        "--once",
        *place,
        "--profile",
        "p",
        env={"AWS_CONFIG_FILE": str(tmp_path / "config")},
    )
    assert process.wait(timeout=60) == 77
    assert "credential" in process.stderr
    assert PROBE not in process.stderr
    assert "Traceback" not in process.stderr
