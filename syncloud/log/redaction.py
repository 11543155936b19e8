"""A record of the log without secrets, whoever made it: this package, a library, or a warning of Python's."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable

from ..errors import scrubbed


def cleaned(record: logging.LogRecord, names: Iterable[str]) -> logging.LogRecord:
    """A record without secrets, in its message, its traceback and what it has under `names`: before anything of it is cut,
    because half a secret is not recognised. The traceback of a library's warning goes: it says nothing to who can mend it.
    """
    told = record.__dict__
    present = [name for name in names if name in told]
    raised = record.exc_info[1] if record.exc_info else None
    if raised is None:  # nearly all are clean, and this is their whole price
        whole = "\0".join((record.getMessage(), *(str(told[name]) for name in present)))
        if scrubbed(whole) == whole:
            return record
    texts = {name: str(told[name]) for name in present if type(told[name]) not in (int, float, type(None))}
    texts["msg"] = record.getMessage()
    if raised is not None and record.levelno < logging.ERROR:
        texts["error"] = f"{type(raised).__name__}: {raised}"
    elif raised is not None:
        texts["exc_text"] = _PLAIN.formatException((type(raised), raised, raised.__traceback__))
    clean = copy.copy(record)
    clean.__dict__.update({name: scrubbed(text) for name, text in texts.items()}, args=(), exc_info=None)
    return clean


_PLAIN = logging.Formatter()
