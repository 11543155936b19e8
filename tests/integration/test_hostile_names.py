"""Names and values that others choose, on every way to a terminal or to another program.

Such names are shown, and never obeyed.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from syncloud.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.emulator import Bucket
    from tests.support.processes import Process

EVIL = {
    "escape": "\x1b]0;title\x07\x1b[2J",
    "lines": "a\nsyncloud: forged\r\x0b\x0c\x85",
    "separators": "a\u2028b\u2029c",
    "bidi": "\u202egnp.exe\u2066\u061c",
    "csi": "\x9b2J\x7f",
    "invisible": "a\u200bb\ufeffc\U000e0041",
    "letters": "\u4f60\u00fc",
}
LOCALES = {
    "utf-8": {"LC_ALL": "C.UTF-8"},
    "c": {"LC_ALL": "C"},
    "ascii": {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
}
"""The last one can write ASCII alone."""


@pytest.fixture(params=list(LOCALES))
def locale(request: pytest.FixtureRequest) -> dict[str, str]:
    return LOCALES[str(request.param)]


def is_harmless(text: str) -> bool:
    return all(line.replace("\t", "").isprintable() for line in text.split("\n"))


def places(tmp_path: Path, bucket: Bucket) -> list[str]:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    return [
        "--directory",
        str(root),
        "--state-dir",
        str(tmp_path / "state"),
        "--bucket",
        bucket.name,
        "--prefix",
        "p",
    ]


def ended(process: Process, code: int = 0) -> Process:
    assert process.wait(timeout=60) == code, process.stderr
    assert is_harmless(process.stdout), ascii(process.stdout)
    assert is_harmless(process.stderr), ascii(process.stderr)
    assert "Traceback" not in process.stderr
    return process


def test_a_rehearsal_of_push_names_files_in_single_harmless_lines(
    bucket: Bucket, tmp_path: Path, syncloud: Start, locale: dict[str, str]
) -> None:
    where = places(tmp_path, bucket)
    for name in EVIL.values():
        (tmp_path / "root" / name).write_text("x")
    with open(os.fsencode(tmp_path / "root") + b"/not-utf-8-\xff", "wb"):
        pass
    process = ended(syncloud("push", *where, "--dry-run", env=locale))
    assert len(process.stdout.splitlines()) == len(EVIL)
    assert "not-utf-8-" in process.stderr


def test_the_page_and_its_json_are_harmless(
    bucket: Bucket, tmp_path: Path, syncloud: Start, locale: dict[str, str]
) -> None:
    where = places(tmp_path, bucket)
    (tmp_path / "root" / "fifo").mkdir()
    for name in EVIL.values():
        os.mkfifo(tmp_path / "root" / "fifo" / name)
    os.mkfifo(os.fsencode(tmp_path / "root") + b"/not-utf-8-\xff")
    ended(syncloud("push", *where, "--once", env=locale))
    page = ended(syncloud("status", "--state-dir", str(tmp_path / "state"), env=locale), 1)
    assert page.stdout.count("skipped") == len(EVIL) + 1
    assert "\nsyncloud: forged" not in page.stdout
    told = ended(
        syncloud("status", "--state-dir", str(tmp_path / "state"), "--json", env=locale), 1
    )
    assert set(json.loads(told.stdout)["left_out"]) == {
        *(f"fifo/{name}" for name in EVIL.values()),
        "not-utf-8-\\xff",
    }


@pytest.mark.parametrize(
    "words",
    [
        ["push", "--directory", "/nowhere/{}", "--bucket", "b", "--once"],
        ["push", "--transfers", "{}"],
        ["push", "--{}"],
        ["push", "{}"],
        ["{}"],
        ["status", "{}"],
        ["resume", "--state-dir", "/nowhere/{}"],
        ["push", "--config", "file.conf"],
        ["push", "--config", "/nowhere/{}"],
    ],
    ids=lambda words: "-".join(words).replace("{}", "X").replace("/", ""),
)
@pytest.mark.parametrize(
    "kinds",
    [list(EVIL), ["separators", "bidi", "invisible", "letters"]],
    ids=["all", "no-controls"],
)
def test_errors_name_values_in_harmless_lines(
    tmp_path: Path, syncloud: Start, words: list[str], kinds: list[str]
) -> None:
    name = "".join(EVIL[kind] for kind in kinds) + ("\udcff" if "escape" in kinds else "")
    words = [word.format(name) for word in words]
    if "file.conf" in words:
        file = tmp_path / "file.conf"
        oneline = name.replace("\n", "").encode(errors="replace").decode()
        file.write_text(
            f"{oneline} = x\ntransfers = {oneline}\nbucket {oneline}\n", encoding="utf-8"
        )
        words[-1] = str(file)
    process = syncloud(
        *words,
        env={
            **LOCALES["ascii" if "escape" in kinds else "utf-8"],
            "SYNCLOUD_STATE_DIR": str(tmp_path / "state"),
        },
    )
    assert process.wait(timeout=60) > 0
    assert is_harmless(process.stdout + process.stderr), ascii(process.stderr)
    assert "Traceback" not in process.stderr, process.stderr
    assert "\nsyncloud: forged" not in process.stderr


class Odd(str):
    """A word that no code foresees."""

    def __repr__(self) -> str:
        raise ValueError("".join(EVIL.values()))


def test_an_end_that_nobody_foresaw_is_told_in_harmless_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main([Odd("no-command")]) == 1
    told = capsys.readouterr().err
    assert is_harmless(told), ascii(told)
    assert "ended unexpectedly" in told
    assert "Traceback" in told
