"""Formats of a log line: JSON for programs, text for people. Only this module imports
pythonjsonlogger.
"""

from __future__ import annotations

import functools
import logging
from datetime import UTC, datetime
from typing import Any, TypedDict

from pythonjsonlogger.json import JsonEncoder, JsonFormatter

from ..errors import cut
from . import display

LINE = 48 * 1024 - 64
"""Maximum length of a line in bytes. journald splits lines above LineMax=48K (journald.conf(5)),
which breaks the JSON. 64 bytes are reserved for the prefix.
"""
_CUTS = (16384, 2048, 64)
"""Characters of each value, in the attempts to fit a line into `LINE`. The last attempt always
fits: 20 texts of 64 characters, even at twelve bytes per character.
"""
_TEXT_MAX = 8192
_PRIORITY = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class Fields(TypedDict, total=False):
    """Every field of an event. `size` is in bytes, `duration_ms` in milliseconds.

    `error` also takes an exception and then sets `error_code` (for an OSError its name, such as
    ENOSPC). A SyncloudError also sets `request_id` and `hint`.
    """

    key: str
    path: str
    size: int
    duration_ms: float
    etag: str
    version_id: str
    attempt: int
    error: str | BaseException
    error_code: str
    request_id: str
    hint: str
    count: int
    reason: str
    bucket: str
    queue: str


FIELDS = tuple(Fields.__annotations__)


def _prefix(record: logging.LogRecord) -> str:
    """The priority prefix of sd-daemon(3)."""
    return f"<{_PRIORITY.get(record.levelno, 6)}>"


class Json(JsonFormatter):
    """JSON format: one object per line, fields in a fixed order, absent fields omitted."""

    def __init__(self, *, instance: str, role: str, journal: bool) -> None:
        encoder = JsonEncoder(ensure_ascii=False)  # reused: json.dumps makes one per line
        super().__init__(json_serializer=lambda data, **_: encoder.encode(data))
        self._static = {"instance": instance, "role": role}
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return _prefix(record) + line if self._journal else line

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["timestamp"] = _timestamp(record.created)
        log_data["level"] = record.levelname.lower()
        log_data["event"] = getattr(record, "event", None) or _library_event(record)
        log_data["message"] = record.getMessage()
        log_data.update(self._static)
        values = record.__dict__
        if trace := message_dict.get("exc_info"):
            values = values | {"error": trace}
        for name in FIELDS:
            if (value := values.get(name)) is not None:
                log_data[name] = value

    def serialize_log_record(self, log_data: dict[str, Any]) -> str:
        """The line, with values cut until the line fits into `LINE`."""
        line = self._line(log_data)
        for most in _CUTS:
            if len(line.encode()) <= LINE:
                break
            line = self._line({name: _cut(value, most) for name, value in log_data.items()})
        return line

    def _line(self, log_data: dict[str, Any]) -> str:
        return display.in_json(super().serialize_log_record(log_data))


def _library_event(record: logging.LogRecord) -> str:
    """The event of a library's record, which has no event of its own."""
    return f"library.{record.name.partition('.')[0]}"


def _timestamp(created: float) -> str:
    return f"{_second(int(created))}.{int(created * 1000) % 1000:03d}Z"


@functools.lru_cache(maxsize=1)
def _second(whole: int) -> str:
    """Seconds since the epoch as date and time. The cache serves all events of the same second."""
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}"


def _cut(value: Any, most: int) -> Any:
    return value if isinstance(value, bool | int | float) else cut(str(value), most)


class Text(logging.Formatter):
    """Text format for people: time, level unless INFO, message, error, hint.

    For the journal, the priority prefix replaces time and level, because journald records both.
    """

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        trace = record.exc_text.splitlines() if record.exc_text else []
        lines = [cut(display.escaped(line), _TEXT_MAX) for line in (_sentence(record), *trace)]
        if self._journal:
            return "\n".join(_prefix(record) + line for line in lines)
        level = f"{record.levelname.lower()}: " if record.levelno != logging.INFO else ""
        return "\n  ".join([f"{self.formatTime(record, '%H:%M:%S')} {level}{lines[0]}", *lines[1:]])


def _sentence(record: logging.LogRecord) -> str:
    """The message, then the error unless the message ends in it, then the hint."""
    text = record.getMessage()
    error, hint = getattr(record, "error", None), getattr(record, "hint", None)
    if error and not text.endswith(str(error)):
        text += f": {error}"
    return f"{text} ({hint})" if hint else text
