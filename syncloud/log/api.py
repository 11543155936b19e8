"""What is told while it runs: events with stable fields, as JSON for the journal or as short lines. Owner of
pythonjsonlogger and tqdm.

    log.info("push.uploaded", "uploaded %s", path, path=path, size=size, duration_ms=elapsed)
    log.warning("push.failed", "cannot upload %s", path, path=path, error=error)

An event's name is for programs and does not change; the message is for people. `Fields` lists all fields there are. A
warning that repeats is told once and then counted (`Repeats`).
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
"""Bytes. journald.conf(5), LineMax=48K: a longer line is split, which breaks its JSON. 64 are for the prefix."""

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

_logger = logging.getLogger("syncloud")


class Fields(TypedDict, total=False):
    """Every field an event may have. `size` in bytes, `duration_ms` in milliseconds.

    `error` takes an exception, too: it fills `error_code` (an OSError's is its name, ENOSPC), and a SyncloudError also
    `request_id` and `hint`.
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
    """Whether an event of this level of `logging`'s goes anywhere: for where its fields cost more than the question."""
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
    """An error that nobody foresaw, with the traceback of the exception being handled."""
    _tell(logging.ERROR, event, message, args, fields, raised=sys.exception())


def _tell(
    level: int, event: str, message: str, args: tuple[object, ...], fields: Fields, *, raised: BaseException | None = None
) -> None:
    if not _logger.isEnabledFor(level):
        return
    told: dict[str, Any] = {"event": event, **fields}
    cause = told.get("error", raised)
    if isinstance(cause, BaseException):
        told = {name: value for name, value in _explained(cause).items() if value} | told | {"error": _named(cause)}
    # Not Logger.log(): that walks the stack for a line number which nothing shows.
    trace = (type(raised), raised, raised.__traceback__) if raised else None
    record = _logger.makeRecord(_logger.name, level, "", 0, message, args, trace)
    record.__dict__.update(told)
    _logger.handle(record)


def _explained(cause: BaseException) -> dict[str, str]:
    if isinstance(cause, SyncloudError):
        return {"error_code": cause.code, "request_id": cause.request_id, "hint": cause.hint}
    return {"error_code": errno.errorcode.get(cause.errno or 0, "")} if isinstance(cause, OSError) else {}


def _named(cause: BaseException) -> str:
    """Our own errors and the system's are sentences; of others the type says most ("KeyError: 'x'")."""
    return str(cause) if isinstance(cause, SyncloudError | OSError) else f"{type(cause).__name__}: {cause}"


def setup(
    *,
    log_format: str,
    log_level: str,
    instance: str,
    role: str,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send everything to `stream` (standard error), also what libraries log from WARNING up. A later call replaces this one.

    `log_format` is auto, json or text; auto is json where `stream` is the journal.
    """
    out = stream or sys.stderr
    journal = is_journal(out, environ)
    as_json = log_format == "json" or (log_format == "auto" and journal)
    handler = _Handler(out)
    handler.setFormatter(_Json(instance=instance, role=role, journal=journal) if as_json else _Line(journal=journal))
    if as_json and isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding="utf-8", errors="backslashreplace")  # JSON is UTF-8 in every locale
    close()
    # Asked for each record, and shown nowhere (Python's logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    _logger.setLevel(log_level.upper())
    logging.captureWarnings(True)


def active() -> bool:
    """Whether `setup` was called and `close` was not."""
    return bool(_handlers())


def tick() -> None:
    """Tell the counts of repeated warnings whose minute is over. Call it now and then; any log line does it, too."""
    for handler in _handlers():
        handler.settle()


def close() -> None:
    """Tell the counts that are left and let go of the stream."""
    for handler in _handlers():
        logging.getLogger().removeHandler(handler)
        handler.close()
    logging.captureWarnings(False)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` goes to the journal: JOURNAL_STREAM alone may be inherited past a redirection (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


@contextmanager
def progress(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], object]]:
    """A bar for long work; yields a function to call with what was done since. Not on a terminal, nothing is shown.

    `total` in units, None if unknown; the unit "B" is scaled (k, M, G). Log lines go above the bar.
    """
    handler = next((handler for handler in _handlers() if handler.is_terminal()), None)
    if handler is None:
        yield lambda done: None
        return
    from tqdm import tqdm  # here, since a daemon never needs it

    tqdm.monitor_interval = 0  # no thread
    out, label = handler.stream, display.escaped(description)
    handler.put = functools.partial(tqdm.write, file=out)
    try:
        with tqdm(desc=label, total=total, unit=unit, unit_scale=unit == "B", file=out, leave=False, dynamic_ncols=True) as bar:
            yield bar.update
    finally:
        handler.put = handler.put_plain


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler. `put` writes a finished line; `progress` puts another in its place while a bar is shown."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.put: Callable[[str], object] = self.put_plain
        self._repeats = Repeats()

    def put_plain(self, line: str) -> None:
        self.stream.write(line + self.terminator)
        self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Called under the handler's lock, which covers `Repeats` as well."""
        self._write(self._repeats.due())
        try:
            is_told = self._repeats.admit(record)
        except Exception:  # noqa: BLE001 - its parts do not fit together, see `_write`
            self.handleError(record)
        else:
            self._write([record] if is_told else [])

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """What went wrong, and where: logging would print the record's parts, which nobody has looked through."""
        with suppress(OSError, ValueError):
            sys.stderr.write(f"a line of {record.name} cannot be told: {type(sys.exception()).__name__}\n")

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
            except Exception:  # noqa: BLE001 - as StreamHandler does: a log line must not end the work
                self.handleError(record)


def _handlers() -> list[_Handler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _Handler)]


class _Json(JsonFormatter):
    """One object a line, the fields always in the same order, absent ones left out."""

    def __init__(self, *, instance: str, role: str, journal: bool) -> None:
        encoder = JsonEncoder(ensure_ascii=False)  # made once: json.dumps makes one for every line
        super().__init__(json_serializer=lambda data, **_: encoder.encode(data))
        self._static = {"instance": instance, "role": role}
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        return (f"<{_PRIORITY.get(record.levelno, 6)}>" if self._journal else "") + super().format(record)

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["timestamp"] = f"{_second(int(record.created))}.{int(record.created * 1000) % 1000:03d}Z"
        log_data["level"] = record.levelname.lower()
        log_data["event"] = getattr(record, "event", None) or f"library.{record.name.partition('.')[0]}"
        log_data["message"] = record.getMessage()
        log_data.update(self._static)
        told = record.__dict__
        if trace := message_dict.get("exc_info"):
            told = told | {"error": trace}
        for name in FIELDS:
            if (value := told.get(name)) is not None:
                log_data[name] = value

    def serialize_log_record(self, log_data: dict[str, Any]) -> str:
        """Values are cut until the line fits: 20 texts of 64 characters do, even if each becomes twelve bytes."""
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
    """Seconds since the epoch as a date and a time. A thousand events in one share it."""
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}"


class _Line(logging.Formatter):
    """Short lines for people: time, level from warning up, message, error, hint. The journal has time and level itself."""

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
