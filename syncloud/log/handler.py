"""The log handler: one stream, with redaction, rate limits and a progress bar on a terminal.

Only this module imports tqdm.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from . import display
from .formats import FIELDS, Text
from .redaction import cleaned
from .repeats import Repeats


class Handler(logging.StreamHandler[TextIO]):
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
            is_admitted = self._repeats.admit(record)
        except Exception:  # noqa: BLE001 - its parts do not fit together, see `_write`
            self.handleError(record)
        else:
            self._write([record] if is_admitted else [])

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Report a record that cannot be formatted, by the type of the error alone.

        The default of `logging` would print the record's parts without redaction.
        """
        kind = type(sys.exception()).__name__
        with suppress(OSError, ValueError):
            sys.stderr.write(f"a line of {record.name} cannot be logged: {kind}\n")

    def settle(self) -> None:
        self._locked(self._repeats.due)

    def close(self) -> None:
        self._locked(self._repeats.drain)
        super().close()

    def is_terminal(self) -> bool:
        return isinstance(self.formatter, Text) and not self.stream.closed and self.stream.isatty()

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


def attached() -> list[Handler]:
    """The handlers of the open log: one, or none."""
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, Handler)]


def close() -> None:
    """Log the remaining counts and detach the handler from its stream."""
    for handler in attached():
        logging.getLogger().removeHandler(handler)
        handler.close()
    logging.captureWarnings(False)


@contextmanager
def progress(
    description: str, *, total: int | None, unit: str
) -> Iterator[Callable[[int], object]]:
    """A progress bar for long work; yields a function that takes the increment since the last call.

    `total` is in units, None if unknown; the unit "B" is scaled (k, M, G). Log lines appear above
    the bar. The bar is shown only for text logs on a terminal.
    """
    handler = next((handler for handler in attached() if handler.is_terminal()), None)
    if handler is None:
        yield lambda done: None
    else:
        with _bar(handler, display.escaped(description), total, unit) as advance:
            yield advance


@contextmanager
def _bar(
    handler: Handler, label: str, total: int | None, unit: str
) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm  # here, because a daemon never needs tqdm

    tqdm.monitor_interval = 0  # no monitor thread
    out = handler.stream
    look = {"unit_scale": unit == "B", "leave": False, "dynamic_ncols": True}
    handler.put = functools.partial(tqdm.write, file=out)
    try:
        with tqdm(desc=label, total=total, unit=unit, file=out, **look) as bar:
            yield bar.update
    finally:
        handler.put = handler.put_plain
