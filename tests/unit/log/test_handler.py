"""The handler: counts at its end, a bar on a terminal, and no secret in any line."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import termios
import textwrap

import pytest

from syncloud import log
from syncloud.errors import HIDDEN, SyncloudError
from tests.support.logs import objects, start
from tests.support.secrets import SECRET, TOKEN


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
    assert (last["count"], last["level"], last["message"]) == (
        3,
        "error",
        "cannot upload 3 (the last of 3 more in 0 s)",
    )


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
        while (
            "after\r\n" not in shown
        ):  # one read may bring a part; the test's own time limit ends a wait in vain
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
        log.warning(
            "push.failed", "%s", long, error=SyncloudError(f"x {TOKEN}", hint=SECRET), reason=TOKEN
        )
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
    assert done.stderr.count("cannot be logged: TypeError") == 2
    assert TOKEN not in done.stderr
