"""Structured logging: events with stable fields, as JSON for the journal or as short lines."""

from __future__ import annotations

from .api import active, debug, error, exception, info, is_journal, is_logged, setup, tick, warning
from .formats import FIELDS, LINE
from .handler import close, progress

__all__ = [
    "FIELDS",
    "LINE",
    "active",
    "close",
    "debug",
    "error",
    "exception",
    "info",
    "is_journal",
    "is_logged",
    "progress",
    "setup",
    "tick",
    "warning",
]
