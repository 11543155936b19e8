"""Log lines as the journal, a pipe and a terminal get them."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import termios
import textwrap
import warnings
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from syncloud import log
from syncloud.errors import HIDDEN, PermissionRefused, SyncloudError
from tests.support.secrets import SECRET, TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NASTY = "a\nb\x1b[2J\x7f\x85\u2028\u202e\udcff\u4f60.txt"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    log.close()
    logging.getLogger().setLevel(level)


def start(stream: TextIO, *, log_format: str = "json", log_level: str = "info", environ: dict[str, str] | None = None) -> None:
    log.setup(log_format=log_format, log_level=log_level, instance="jef", role="push", stream=stream, environ=environ or {})


def objects(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def journal_of(stream: TextIO) -> dict[str, str]:
    status = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def test_json_has_the_stable_fields_in_order() -> None:
    stream = io.StringIO()
    start(stream)
    log.info("push.uploaded", "uploaded %s", "a b", path="a b", size=5, duration_ms=1.5, etag='"e"')
    (line,) = objects(stream)
    assert list(line) == ["timestamp", "level", "event", "message", "instance", "role", "path", "size", "duration_ms", "etag"]
    assert line["timestamp"].endswith("Z")
    assert {**line, "timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "push.uploaded",
        "message": "uploaded a b",
        "instance": "jef",
        "role": "push",
        "path": "a b",
        "size": 5,
        "duration_ms": 1.5,
        "etag": '"e"',
    }


def test_every_field_is_written() -> None:
    stream = io.StringIO()
    start(stream)
    fields: Any = {name: name for name in log.FIELDS}
    log.warning("x.y", "z", **fields)
    (line,) = objects(stream)
    assert {name: line[name] for name in log.FIELDS} == fields


def test_an_error_explains_itself() -> None:
    stream = io.StringIO()
    start(stream)
    log.warning("a", "m", error=PermissionRefused("no", code="AccessDenied", request_id="R1", hint="ask"), hint="ask louder")
    log.warning("b", "m", error=PermissionError(13, "Permission denied", "/x"))
    log.warning("c", "m", error=KeyError("x"))
    ours, system, other = objects(stream)
    assert (ours["error"], ours["error_code"], ours["request_id"], ours["hint"]) == ("no", "AccessDenied", "R1", "ask louder")
    assert (system["error"], system["error_code"]) == ("[Errno 13] Permission denied: '/x'", "EACCES")
    assert other["error"] == "KeyError: 'x'"


def test_levels() -> None:
    stream = io.StringIO()
    start(stream, log_level="warning")
    log.debug("a", "a")
    log.info("b", "b")
    log.warning("c", "c")
    log.error("d", "d")
    assert [line["level"] for line in objects(stream)] == ["warning", "error"]


def test_nothing_is_formatted_below_the_level() -> None:
    class Dear:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    start(io.StringIO())
    log.debug("a", "%s", Dear(), path="x")


def test_nasty_names_stay_on_one_line_and_come_back_from_json(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii", errors="strict") as stream:
        start(stream)
        log.info("pull.written", "wrote %s", NASTY, path=NASTY)
        log.close()
    raw = (tmp_path / "log").read_bytes()
    assert raw.count(b"\n") == 1
    assert "\u4f60".encode() in raw  # readable, not escaped
    assert not any(character in raw.decode() for character in "\x1b\x7f\x85\u2028\u202e")
    assert json.loads(raw)["path"] == NASTY


def test_nasty_names_in_text() -> None:
    stream = io.StringIO()
    start(stream, log_format="text")
    log.info("pull.written", "wrote %s", NASTY, path=NASTY)
    assert stream.getvalue()[9:] == "wrote a\\nb\\x1b[2J\\x7f\\x85\\u2028\\u202e\\udcff\u4f60.txt\n"


@pytest.mark.parametrize("character", ["x", "\x01", "\u4f60", "\udcff", "\U0001f600"])
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_lines_stay_below_the_journals_limit(character: str, log_format: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        start(stream, log_format=log_format, environ=journal_of(stream))
        fields: Any = dict.fromkeys(log.FIELDS, character * 100000)
        log.error("e", "%s", character * 100_000, **fields)
        log.close()
    raw = (tmp_path / "log").read_bytes()
    assert raw.startswith(b"<3>")
    assert len(raw) < 48 * 1024
    if log_format == "json":
        assert set(json.loads(raw[3:])) >= {"message", *log.FIELDS}


def test_a_cut_keeps_both_ends() -> None:
    stream = io.StringIO()
    start(stream)
    log.info("e", "m", path="begin" + "x" * 60_000 + "end")
    (line,) = objects(stream)
    assert line["path"].startswith("beginx")
    assert line["path"].endswith("xend")
    assert "more]" in line["path"]


def test_prefix_only_in_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+", encoding="utf-8") as stream:
        start(stream, log_format="auto", log_level="debug", environ=journal_of(stream))
        for tell in (log.debug, log.info, log.warning, log.error):
            tell("e", "m")
        stream.seek(0)
        lines = stream.read().splitlines()
        assert [line[:4] for line in lines] == ["<7>{", "<6>{", "<4>{", "<3>{"]
        assert not log.is_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not log.is_journal(stream, {})
        assert not log.is_journal(io.StringIO(), journal_of(stream))


def test_auto_is_text_elsewhere() -> None:
    stream = io.StringIO()
    start(stream, log_format="auto", environ={"JOURNAL_STREAM": "1:2"})
    log.warning("push.failed", "cannot upload %s", "a", error=PermissionRefused("no", hint="ask"))
    assert stream.getvalue()[8:] == " warning: cannot upload a: no (ask)\n"


def test_traceback() -> None:
    texts, lines = io.StringIO(), io.StringIO()
    for stream, kind in ((texts, "text"), (lines, "json")):
        start(stream, log_format=kind)
        try:
            raise ValueError("bad\nname")
        except ValueError:
            log.exception("engine.failed", "unforeseen")
    (line,) = objects(lines)
    assert line["error"].startswith("Traceback")
    assert line["error"].endswith("ValueError: bad\nname")
    head, *trace = texts.getvalue().splitlines()
    assert head.endswith("error: unforeseen: ValueError: bad\\nname")
    assert trace[0] == "  Traceback (most recent call last):"


def test_exception_without_one() -> None:
    stream = io.StringIO()
    start(stream)
    log.exception("e", "m")
    assert "error" not in objects(stream)[0]


def test_libraries_from_warning_up() -> None:
    stream = io.StringIO()
    start(stream, log_level="debug")
    logging.getLogger("botocore.auth").info("not told")
    logging.getLogger("botocore.auth").warning("told %d", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    first, second = objects(stream)
    assert (first["event"], first["message"]) == ("library.botocore", "told 1")
    assert second["event"] == "library.py"
    assert "UserWarning: old" in second["message"]


def test_a_second_setup_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    assert not log.active()
    start(first)
    start(second)
    assert log.active()
    log.info("e", "m")
    assert not first.getvalue()
    assert len(objects(second)) == 1


def test_closing_tells_the_counts() -> None:
    stream = io.StringIO()
    start(stream)
    for number in range(4):
        log.error("push.failed", "cannot upload %d", number, error="E")
    log.tick()
    assert len(objects(stream)) == 1
    log.close()
    first, last = objects(stream)
    assert first["message"] == "cannot upload 0"
    assert (last["count"], last["level"], last["message"]) == (3, "error", "cannot upload 3 (the last of 3 more in 0 s)")


def test_no_bar_where_no_terminal_is() -> None:
    stream = io.StringIO()
    start(stream, log_format="text")
    with log.progress("upload", total=10, unit="file") as advance:
        advance(10)
    assert stream.getvalue() == ""


def pty_pair() -> tuple[int, int]:
    """A terminal of 80 columns; a new one has none, and tqdm would find no room."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    return ours, theirs


def test_a_bar_on_a_terminal_and_lines_above_it() -> None:
    ours, theirs = pty_pair()
    with open(theirs, "w", encoding="utf-8") as terminal, open(ours, "rb", buffering=0) as screen:
        start(terminal, log_format="auto")
        with log.progress("up\x1bload", total=3, unit="file") as advance:
            advance(1)
            log.info("push.uploaded", "uploaded a")
            advance(2)
        log.info("e", "after")
        log.close()
        shown = ""
        while "after\r\n" not in shown:  # one read may bring a part; the test's own time limit ends a wait in vain
            shown += screen.read(65536).decode()
    assert "up\\x1bload:   0%" in shown
    before = shown.partition("uploaded a")[0]
    assert before.rstrip("0123456789: ").endswith("\r")  # the bar is wiped first


def test_no_bar_with_json() -> None:
    ours, theirs = pty_pair()
    with open(theirs, "w", encoding="utf-8") as terminal, open(ours, "rb", buffering=0) as screen:
        start(terminal, log_format="json")
        with log.progress("upload", total=3, unit="file") as advance:
            advance(3)
        log.info("e", "m")
        log.close()
        assert screen.read(65536).startswith(b"{")


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_line_of_the_log_has_a_secret(log_format: str) -> None:
    out = io.StringIO()
    log.setup(log_format=log_format, log_level="debug", instance="i", role="push", stream=out)
    try:
        long = "a" * 8170 + SECRET + "b" * 20_000  # cut in its middle, half of it would stay
        log.info("push.uploaded", "uploaded %s", TOKEN, path=f"dir/{SECRET}")
        log.warning("push.failed", "%s", long, error=SyncloudError(f"x {TOKEN}", hint=SECRET), reason=TOKEN)
        try:
            raise ValueError(f"Invalid header value {TOKEN.encode()!r}")
        except ValueError:
            log.exception("internal.error", "unexpected")
            logging.getLogger("botocore").warning("refreshing failed: %s", SECRET, exc_info=True)
        logging.getLogger("asyncio").error("never retrieved: %r", {"token": TOKEN})
    finally:
        log.close()
    told = out.getvalue()
    for secret in (SECRET, TOKEN):
        assert secret not in told
        assert secret[:20] not in told
        assert secret[-20:] not in told
    assert told.count(HIDDEN) >= 7
    assert "Traceback" in told, "of what nobody foresaw"
    library = next(line for line in told.splitlines() if "refreshing failed" in line)
    assert "ValueError" in library
    assert "Traceback" not in library


UNFIT = """
    import logging, sys
    from syncloud import log
    log.setup(log_format="text", log_level="debug", instance="i", role="push")
    logging.getLogger("library").warning("%d of them", sys.argv[1])
    log.info("push.uploaded", "%d of them", sys.argv[1])
"""


def test_a_line_that_cannot_be_made_tells_nothing_of_its_parts() -> None:
    """In a process of its own: pytest's handlers make a line of each record, too."""
    argv = [sys.executable, "-c", textwrap.dedent(UNFIT), TOKEN]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stderr.count("cannot be told: TypeError") == 2
    assert TOKEN not in done.stderr
