"""Output of a command: data on standard output, errors with the next step on standard error.

Neither contains a secret or a control character.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import NoReturn

from .. import log
from ..errors import SyncloudError, scrubbed
from ..log import display


def prepare() -> None:
    """Make both streams safe: every name can be encoded, and Python's own reports lose secrets."""
    _hide_secrets()
    for stream in (sys.stdout, sys.stderr):
        # A name that the locale cannot encode must not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _hide_secrets() -> None:
    """Redact secrets in Python's own reports of uncaught errors."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print_uncaught
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _print_of
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _print_of


def _print_uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    text = scrubbed("".join(traceback.format_exception(kind, error, trace)))
    print(display.laid_out(text), end="", file=sys.stderr)


def _print_of(report: sys.UnraisableHookArgs | threading.ExceptHookArgs) -> None:
    _print_uncaught(report.exc_type, report.exc_value, report.exc_traceback)


def show(text: str) -> None:
    """Print data. The text may have several lines."""
    print(display.laid_out(scrubbed(text)), flush=True)


def report(error: SyncloudError) -> None:
    """Report an error, its place and the next step: one event in the journal, plain lines
    elsewhere.
    """
    if log.is_journal(sys.stderr, os.environ):
        _open_log()
        log.error("service.failed", "%s", error, error=error)
        return
    first, *others = map(display.escaped, error.lines)
    print("\n  ".join([f"syncloud: {first}", *others]), file=sys.stderr)
    if error.hint:
        print(f"          {display.laid_out(scrubbed(error.hint))}", file=sys.stderr)


def report_unexpected(error: Exception) -> None:
    """Log the traceback of an unexpected error, because Python would print the texts unescaped."""
    _open_log()
    log.exception("internal.error", "ended unexpectedly: %r", error)


def _open_log() -> None:
    """Open the log with defaults, unless a command has opened the log before."""
    if not log.active():
        log.setup(log_format="auto", log_level="info", instance="", role="")


def discard() -> None:
    """Drop further data, because the reader of standard output has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave(exit_code: int) -> NoReturn:
    """Exit at once, after all results are recorded.

    A normal exit would wait for a thread in a call to a frozen server. Module teardown would also
    cost a tenth of a pass without changes.
    """
    log.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
