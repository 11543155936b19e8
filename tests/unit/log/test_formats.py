"""Lines as JSON and as text: fields, escapes, limits and prefixes."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from syncloud import log
from syncloud.errors import PermissionRefused
from tests.support.logs import journal_of, objects, start

if TYPE_CHECKING:
    from pathlib import Path

NASTY = "a\nb\x1b[2J\x7f\x85\u2028\u202e\udcff\u4f60.txt"


def test_json_has_the_stable_fields_in_order() -> None:
    stream = io.StringIO()
    start(stream)
    log.info("push.uploaded", "uploaded %s", "a b", path="a b", size=5, duration_ms=1.5, etag='"e"')
    (line,) = objects(stream)
    assert list(line) == [
        "timestamp",
        "level",
        "event",
        "message",
        "instance",
        "role",
        "path",
        "size",
        "duration_ms",
        "etag",
    ]
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
def test_lines_stay_below_the_journals_limit(
    character: str, log_format: str, tmp_path: Path
) -> None:
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
