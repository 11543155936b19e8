"""Structured logging: events with stable fields, as JSON for the journal or as short lines."""

from __future__ import annotations

from .api import (
    FIELDS,
    LINE,
    active,
    close,
    debug,
    error,
    exception,
    info,
    is_journal,
    is_told,
    progress,
    setup,
    tick,
    warning,
)

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
    "is_told",
    "progress",
    "setup",
    "tick",
    "warning",
]
