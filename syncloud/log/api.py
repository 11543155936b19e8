"""Structured logging: events with stable fields, as JSON for the journal or as short lines.

    log.info("push.uploaded", "uploaded %s", path, path=path, size=size, duration_ms=elapsed)
    log.warning("push.failed", "cannot upload %s", path, path=path, error=error)

An event's name is for programs and never changes; the message is for people. `Fields` lists every
field. `Repeats` logs a repeated warning once and then counts the repetitions.

This module is the only user of pythonjsonlogger and tqdm.
"""

from __future__ import annotations

import errno
import functools
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TextIO, TypedDict, Unpack

from pythonjsonlogger.json import JsonEncoder, JsonFormatter

from ..errors import SyncloudError, cut
from . import display
from .redaction import cleaned
from .repeats import Repeats

LINE = 48 * 1024 - 64
"""Maximum length of a line in bytes. journald splits lines above LineMax=48K (journald.conf(5)),
which breaks the JSON. 64 bytes are reserved for the prefix.
"""

_PRIORITY = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}

_logger = logging.getLogger("syncloud")


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


def is_told(level: int) -> bool:
    """Whether an event of this `logging` level is logged at all. Callers ask where computing the
    fields is expensive.
    """
    return _logger.isEnabledFor(level)


def debug(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    _tell(logging.DEBUG, event, message, args, fields)


def info(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    _tell(logging.INFO, event, message, args, fields)


def warning(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    _tell(logging.WARNING, event, message, args, fields)


def error(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    _tell(logging.ERROR, event, message, args, fields)


def exception(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    """Log an unexpected error, with the traceback of the exception being handled."""
    _tell(logging.ERROR, event, message, args, fields, raised=sys.exception())


def _tell(
    level: int,
    event: str,
    message: str,
    args: tuple[object, ...],
    fields: Fields,
    *,
    raised: BaseException | None = None,
) -> None:
    if not _logger.isEnabledFor(level):
        return
    told: dict[str, Any] = {"event": event, **fields}
    cause = told.get("error", raised)
    if isinstance(cause, BaseException):
        told = (
            {name: value for name, value in _explained(cause).items() if value}
            | told
            | {"error": _named(cause)}
        )
    # Not Logger.log(), because Logger.log() walks the stack for a line number that no format shows.
    trace = (type(raised), raised, raised.__traceback__) if raised else None
    record = _logger.makeRecord(_logger.name, level, "", 0, message, args, trace)
    record.__dict__.update(told)
    _logger.handle(record)


def _explained(cause: BaseException) -> dict[str, str]:
    if isinstance(cause, SyncloudError):
        return {"error_code": cause.code, "request_id": cause.request_id, "hint": cause.hint}
    return (
        {"error_code": errno.errorcode.get(cause.errno or 0, "")}
        if isinstance(cause, OSError)
        else {}
    )


def _named(cause: BaseException) -> str:
    """The text of an exception. Our own errors and the system's are sentences; others need their
    type ("KeyError: 'x'").
    """
    return (
        str(cause)
        if isinstance(cause, SyncloudError | OSError)
        else f"{type(cause).__name__}: {cause}"
    )


def setup(
    *,
    log_format: str,
    log_level: str,
    instance: str,
    role: str,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send all events to `stream` (default: standard error), and library records from WARNING up.

    `log_format` is auto, json or text; auto means json where `stream` is the journal. A later call
    replaces this configuration.
    """
    out = stream or sys.stderr
    journal = is_journal(out, environ)
    as_json = log_format == "json" or (log_format == "auto" and journal)
    handler = _Handler(out)
    handler.setFormatter(
        _Json(instance=instance, role=role, journal=journal) if as_json else _Line(journal=journal)
    )
    if as_json and isinstance(out, io.TextIOWrapper):
        out.reconfigure(
            encoding="utf-8", errors="backslashreplace"
        )  # JSON is UTF-8 in every locale
    close()
    # `logging` collects thread and process data for each record, and no format shows such data
    # (Python's logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    _logger.setLevel(log_level.upper())
    logging.captureWarnings(True)


def active() -> bool:
    """Whether the log is open: after `setup` and before `close`."""
    return bool(_handlers())


def tick() -> None:
    """Log the counts of repeated warnings whose window has ended. Call `tick` regularly; every log
    line also logs due counts.
    """
    for handler in _handlers():
        handler.settle()


def close() -> None:
    """Log the remaining counts and detach the handler from its stream."""
    for handler in _handlers():
        logging.getLogger().removeHandler(handler)
        handler.close()
    logging.captureWarnings(False)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is the journal.

    JOURNAL_STREAM alone proves nothing, because a redirected child inherits the variable
    (systemd.exec(5)). The device and inode of `stream` must match too.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


@contextmanager
def progress(
    description: str, *, total: int | None, unit: str
) -> Iterator[Callable[[int], object]]:
    """A progress bar for long work; yields a function that takes the increment since the last call.

    `total` is in units, None if unknown; the unit "B" is scaled (k, M, G). Log lines appear above
    the bar. The bar is shown only for text logs on a terminal.
    """
    handler = next((handler for handler in _handlers() if handler.is_terminal()), None)
    if handler is None:
        yield lambda done: None
        return
    from tqdm import tqdm  # here, because a daemon never needs tqdm

    tqdm.monitor_interval = 0  # no monitor thread
    out, label = handler.stream, display.escaped(description)
    handler.put = functools.partial(tqdm.write, file=out)
    try:
        with tqdm(
            desc=label,
            total=total,
            unit=unit,
            unit_scale=unit == "B",
            file=out,
            leave=False,
            dynamic_ncols=True,
        ) as bar:
            yield bar.update
    finally:
        handler.put = handler.put_plain


class _Handler(logging.StreamHandler[TextIO]):
    """The only log handler. `put` writes a finished line; `progress` replaces `put` while a bar is
    shown.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.put: Callable[[str], object] = self.put_plain
        self._repeats = Repeats()

    def put_plain(self, line: str) -> None:
        self.stream.write(line + self.terminator)
        self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. `logging` holds the handler's lock here, which also guards
        `Repeats`.
        """
        self._write(self._repeats.due())
        try:
            is_told = self._repeats.admit(record)
        except Exception:  # noqa: BLE001 - its parts do not fit together, see `_write`
            self.handleError(record)
        else:
            self._write([record] if is_told else [])

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Report a record that cannot be formatted, by the type of the error alone.

        The default of `logging` would print the record's parts without redaction.
        """
        with suppress(OSError, ValueError):
            sys.stderr.write(
                f"a line of {record.name} cannot be told: {type(sys.exception()).__name__}\n"
            )

    def settle(self) -> None:
        self._locked(self._repeats.due)

    def close(self) -> None:
        self._locked(self._repeats.drain)
        super().close()

    def is_terminal(self) -> bool:
        return isinstance(self.formatter, _Line) and not self.stream.closed and self.stream.isatty()

    def _locked(self, take: Callable[[], list[logging.LogRecord]]) -> None:
        self.acquire()
        try:
            self._write(take())
        finally:
            self.release()

    def _write(self, records: list[logging.LogRecord]) -> None:
        for record in records:
            try:
                self.put(self.format(cleaned(record, FIELDS)))
            except Exception:  # noqa: BLE001 - as in StreamHandler: logging must not end the work
                self.handleError(record)


def _handlers() -> list[_Handler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _Handler)]


class _Json(JsonFormatter):
    """JSON format: one object per line, fields in a fixed order, absent fields omitted."""

    def __init__(self, *, instance: str, role: str, journal: bool) -> None:
        encoder = JsonEncoder(ensure_ascii=False)  # reused: json.dumps makes one per line
        super().__init__(json_serializer=lambda data, **_: encoder.encode(data))
        self._static = {"instance": instance, "role": role}
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        return (f"<{_PRIORITY.get(record.levelno, 6)}>" if self._journal else "") + super().format(
            record
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["timestamp"] = (
            f"{_second(int(record.created))}.{int(record.created * 1000) % 1000:03d}Z"
        )
        log_data["level"] = record.levelname.lower()
        log_data["event"] = (
            getattr(record, "event", None) or f"library.{record.name.partition('.')[0]}"
        )
        log_data["message"] = record.getMessage()
        log_data.update(self._static)
        told = record.__dict__
        if trace := message_dict.get("exc_info"):
            told = told | {"error": trace}
        for name in FIELDS:
            if (value := told.get(name)) is not None:
                log_data[name] = value

    def serialize_log_record(self, log_data: dict[str, Any]) -> str:
        """The line, with values cut until the line fits into `LINE`.

        The last step always fits: 20 texts of 64 characters, even at twelve bytes per character.
        """
        line = self._line(log_data)
        for most in (16384, 2048, 64):
            if len(line.encode()) <= LINE:
                break
            line = self._line({name: _cut(value, most) for name, value in log_data.items()})
        return line

    def _line(self, log_data: dict[str, Any]) -> str:
        return display.in_json(super().serialize_log_record(log_data))


@functools.lru_cache(maxsize=1)
def _second(whole: int) -> str:
    """Seconds since the epoch as date and time. The cache serves all events of the same second."""
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}"


class _Line(logging.Formatter):
    """Text format for people: time, level unless INFO, message, error, hint.

    For the journal, the priority prefix replaces time and level, because journald records both.
    """

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        told, hint = getattr(record, "error", None), getattr(record, "hint", None)
        if told and not text.endswith(str(told)):
            text += f": {told}"
        text += f" ({hint})" if hint else ""
        trace = record.exc_text.splitlines() if record.exc_text else []
        lines = [cut(display.escaped(line), 8192) for line in (text, *trace)]
        if self._journal:
            return "\n".join(f"<{_PRIORITY.get(record.levelno, 6)}>{line}" for line in lines)
        level = f"{record.levelname.lower()}: " if record.levelno != logging.INFO else ""
        return "\n  ".join([f"{self.formatTime(record, '%H:%M:%S')} {level}{lines[0]}", *lines[1:]])


def _cut(value: Any, most: int) -> Any:
    return value if isinstance(value, bool | int | float) else cut(str(value), most)
