"""The forms of option values: each parser turns one text into a typed value, or raises ValueError.

The text of a ValueError completes "NAME: ...".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ..core.filters import Filter
from ..errors import ConfigurationError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
"""The words of configargparse, so that both parsers agree."""
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PREFIX_MAX = 900
"""Bytes of a prefix, because a key has 1,024 and paths need the rest."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelled word; empty without a similar word."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def boolean(raw: str) -> bool:
    if raw.lower() not in _TRUE + _FALSE:
        raise ValueError(f"{raw!r} is neither true nor false")
    return raw.lower() in _TRUE


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", raw) or not low <= int(raw) <= high:
            raise ValueError(f"{raw!r} is not a whole number from {low} to {high}")
        return int(raw)

    return parse


def seconds(raw: str) -> float:
    """Seconds of `500ms`, `30s`, `5m`, `12h`, `1d`, `1.5h` or a bare number."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d|)", raw)
    if not match:
        raise ValueError(f"{raw!r} is not a duration such as 500ms, 30s, 5m, 12h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def duration(low: str, high: str) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        if not seconds(low) <= seconds(raw) <= seconds(high):
            raise ValueError(f"{raw!r} is not from {low} to {high}")
        return seconds(raw)

    return parse


def like(pattern: str, noun: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if not re.fullmatch(pattern, raw):
            raise ValueError(f"{raw!r} is not {noun}")
        return raw

    return parse


def path(raw: str) -> Path:
    try:
        return Path(raw).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{raw!r}: {error}") from error


def folder(raw: str) -> str:
    """A prefix's canonical form: empty, or with one trailing slash."""
    if raw.startswith("/"):
        raise ValueError(f"{raw!r} starts with a slash; omit the prefix for the whole bucket")
    form = raw if raw.endswith("/") or not raw else raw + "/"
    if any(part in ("", ".", "..") for part in form.split("/")[:-1]):
        raise ValueError(f"{raw!r} has an empty, '.' or '..' component")
    try:
        size = len(form.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{raw!r} is not valid UTF-8") from None
    if size > PREFIX_MAX:
        raise ValueError(f"has {size} bytes; at most {PREFIX_MAX} leave room for paths")
    return form


def instance_name(raw: str) -> str:
    """A systemd instance name (%i): one file name without a colon.

    A colon ends a path in StateDirectory= (systemd.exec(5)).
    """
    if not re.fullmatch(r"(?![-])[A-Za-z0-9_.\\@-]{1,200}", raw) or raw in (".", ".."):
        form = "up to 200 letters, digits and _ . \\ @ -, the first no hyphen"
        raise ValueError(f"{raw!r} is not an instance name: {form}")
    if raw == "syncloud":
        raise ValueError("'syncloud' cannot be an instance: every one reads syncloud.conf")
    return raw


def pattern(include: bool) -> Callable[[str], tuple[bool, str]]:
    def parse(raw: str) -> tuple[bool, str]:
        try:
            Filter([(include, raw)])
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return include, raw

    return parse
