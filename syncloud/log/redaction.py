"""Secret redaction of log records, whether from this package, a library or Python's warnings."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable

from ..errors import scrubbed


def cleaned(record: logging.LogRecord, names: Iterable[str]) -> logging.LogRecord:
    """A record whose message, traceback and fields in `names` contain no secrets.

    Redaction comes before any cut, because half a secret is not recognised. Below ERROR, the
    exception's type and text replace the traceback: a library's traceback helps no operator.
    """
    values = record.__dict__
    present = [name for name in names if name in values]
    raised = record.exc_info[1] if record.exc_info else None
    if raised is None and _is_clean(record, [values[name] for name in present]):
        return record  # fast path: nearly all records
    texts = {name: str(values[name]) for name in present if type(values[name]) not in _HARMLESS}
    texts["msg"] = record.getMessage()
    if raised is not None and record.levelno < logging.ERROR:
        texts["error"] = f"{type(raised).__name__}: {raised}"
    elif raised is not None:
        texts["exc_text"] = _PLAIN.formatException((type(raised), raised, raised.__traceback__))
    clean = copy.copy(record)
    clean.__dict__.update({name: scrubbed(text) for name, text in texts.items()})
    clean.__dict__.update(args=(), exc_info=None)
    return clean


def _is_clean(record: logging.LogRecord, values: Iterable[object]) -> bool:
    whole = "\0".join((record.getMessage(), *map(str, values)))
    return scrubbed(whole) == whole


_HARMLESS = (int, float, type(None))
_PLAIN = logging.Formatter()
