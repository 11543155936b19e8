"""The functions of the log: levels, errors that explain themselves, and setup."""

from __future__ import annotations

import io
import logging
import warnings

from syncloud import log
from syncloud.errors import PermissionRefused
from tests.support.logs import objects, start


def test_an_error_explains_itself() -> None:
    stream = io.StringIO()
    start(stream)
    log.warning(
        "a",
        "m",
        error=PermissionRefused("no", code="AccessDenied", request_id="R1", hint="ask"),
        hint="ask louder",
    )
    log.warning("b", "m", error=PermissionError(13, "Permission denied", "/x"))
    log.warning("c", "m", error=KeyError("x"))
    ours, system, other = objects(stream)
    assert (ours["error"], ours["error_code"], ours["request_id"], ours["hint"]) == (
        "no",
        "AccessDenied",
        "R1",
        "ask louder",
    )
    assert (system["error"], system["error_code"]) == (
        "[Errno 13] Permission denied: '/x'",
        "EACCES",
    )
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
