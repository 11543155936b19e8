"""The functions of the log: one for each level, and its setup.

    log.info("push.uploaded", "uploaded %s", path, path=path, size=size, duration_ms=elapsed)
    log.warning("push.failed", "cannot upload %s", path, path=path, error=error)

An event's name is for programs and never changes; the message is for people. `Fields` lists every
field. `Repeats` logs a repeated warning once and then counts the repetitions.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO, Unpack

from ..errors import SyncloudError
from .formats import Fields, Json, Text
from .handler import Handler, attached, close

_logger = logging.getLogger("syncloud")


def is_logged(level: int) -> bool:
    """Whether an event of this `logging` level is logged at all. Callers ask where computing the
    fields is expensive.
    """
    return _logger.isEnabledFor(level)


def debug(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    _log(logging.DEBUG, event, message, args, fields)


def info(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    _log(logging.INFO, event, message, args, fields)


def warning(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    _log(logging.WARNING, event, message, args, fields)


def error(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    _log(logging.ERROR, event, message, args, fields)


def exception(event: str, message: str, *args: object, **fields: Unpack[Fields]) -> None:
    """Log an unexpected error, with the traceback of the exception being handled."""
    _log(logging.ERROR, event, message, args, fields, raised=sys.exception())


def _log(
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
    # Not Logger.log(), because Logger.log() walks the stack for a line number that no format shows.
    trace = (type(raised), raised, raised.__traceback__) if raised else None
    record = _logger.makeRecord(_logger.name, level, "", 0, message, args, trace)
    record.__dict__.update(_explained(fields, raised), event=event)
    _logger.handle(record)


def _explained(fields: Fields, raised: BaseException | None) -> dict[str, Any]:
    """The fields, with an exception replaced by its texts. Given fields win over those texts."""
    cause = fields.get("error", raised)
    if not isinstance(cause, BaseException):
        return dict(fields)
    found = {name: value for name, value in _texts(cause).items() if value}
    return {**found, **fields, "error": _named(cause)}


def _texts(cause: BaseException) -> dict[str, str]:
    if isinstance(cause, SyncloudError):
        return {"error_code": cause.code, "request_id": cause.request_id, "hint": cause.hint}
    if isinstance(cause, OSError):
        return {"error_code": errno.errorcode.get(cause.errno or 0, "")}
    return {}


def _named(cause: BaseException) -> str:
    """The text of an exception. Our own errors and the system's are sentences; others need their
    type ("KeyError: 'x'").
    """
    is_sentence = isinstance(cause, SyncloudError | OSError)
    return str(cause) if is_sentence else f"{type(cause).__name__}: {cause}"


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
    handler = Handler(out)
    if log_format == "json" or (log_format == "auto" and journal):
        handler.setFormatter(Json(instance=instance, role=role, journal=journal))
        _encode_as_utf8(out)
    else:
        handler.setFormatter(Text(journal=journal))
    close()
    _open(handler, log_level)


def _encode_as_utf8(stream: TextIO) -> None:
    """JSON is UTF-8 in every locale."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _open(handler: Handler, log_level: str) -> None:
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
    return bool(attached())


def tick() -> None:
    """Log the counts of repeated warnings whose window has ended. Call `tick` regularly; every log
    line also logs due counts.
    """
    for handler in attached():
        handler.settle()


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
