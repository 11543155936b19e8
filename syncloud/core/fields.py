"""Validators for the values that S3, SQS and other stores send: one definition per field. Pure.

An invalid value raises Odd, with a text short enough for a log.

Sources: "Naming Amazon S3 objects" (keys), "How S3 Versioning works" (version ids have at most
1,024 bytes), RFC 9110 section 8.8.3 (entity tags). Further sources: "Event message structure"
(sequencers), "Amazon S3 multipart upload limits".

The bounds are wider than those of AWS, because other stores differ. MinIO's objects have up to 50
TiB, Ceph writes an event's size as a text, nginx makes an entity tag weak.
"""

from __future__ import annotations

import re
from typing import Any

KEY_MAX = 1024
"""Bytes of UTF-8."""
SIZE_MAX = 50 * 1024**4
"""Bytes of an object."""
_DIGITS = 18
"""Maximum digits of a size that comes as a text."""
_SHOWN = 40
"""Maximum characters of an odd value that a message quotes."""

_ETAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]{1,256})"|([\x21\x23-\x7e]{1,256})')
_VERSION = re.compile(r"[\x21-\x7e]{1,1024}")
_SEQUENCER = re.compile(r"[0-9A-Fa-f]{1,128}")
_BUCKET = re.compile(r"[\x21-\x7e]{1,255}")
_EVENT = re.compile(r"[\x20-\x7e]{1,128}")
_FORMAT = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


class Odd(ValueError):
    """A value that is invalid for its field."""


def etag(value: Any) -> str:
    """An entity tag in its canonical form: without quotes, and without the mark of a weak one."""
    found = _ETAG.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _odd(value, "ETag")
    return found[1] or found[2]


def version(value: Any) -> str:
    """A version id."""
    return _matched(_VERSION, _text(value, "version id"), "version id")


def key(value: Any) -> str:
    """A key: 1 to 1,024 bytes of UTF-8, any character except a lone surrogate."""
    text = _text(value, "key")
    if text.isascii() and 0 < len(text) <= KEY_MAX:
        return text
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise _odd(text, "key") from None
    if not 0 < length <= KEY_MAX:
        raise Odd(f"a key of {length:,} bytes")
    return text


def sequencer(value: Any) -> str:
    """A sequencer, which orders a key's events: 1 to 128 hexadecimal digits, odd counts too."""
    return _matched(_SEQUENCER, _text(value, "sequencer"), "sequencer")


def size(value: Any) -> int:
    """Bytes of an object: a whole number, or its decimal digits."""
    number = value
    if isinstance(value, str) and len(value) <= _DIGITS and value.isdecimal() and value.isascii():
        number = int(value)
    if type(number) is not int or not 0 <= number <= SIZE_MAX:
        raise _odd(value, "size")
    return number


def bucket(value: Any) -> str:
    """A bucket's name, or its substitute: the alias or ARN of an access point."""
    return _matched(_BUCKET, _text(value, "bucket"), "bucket")


def event(value: Any) -> str:
    """An event's name."""
    return _matched(_EVENT, _text(value, "event name"), "event name")


def version_of_format(value: Any) -> str:
    """The version of a message's format: up to four numbers, joined by dots."""
    number = type(value) in (int, float) and 0 <= value < 10_000
    text = str(value) if number else value
    return _matched(_FORMAT, _text(text, "event version"), "event version")


def sendable(text: str) -> bool:
    """Whether a header may have this value: valid UTF-8 without control characters except tab.

    A line end would terminate the header and start another one.
    """
    return _UNSENDABLE.search(text) is None


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Odd(f"{what}: text expected, not {type(value).__name__}")
    return value


def _matched(form: re.Pattern[str], text: str, what: str) -> str:
    if form.fullmatch(text) is None:
        raise _odd(text, what)
    return text


def _odd(value: Any, what: str) -> Odd:
    if not isinstance(value, str):
        return Odd(f"a value of type {type(value).__name__} is no {what}")
    more = "..." if len(value) > _SHOWN else ""
    return Odd(f"{value[:_SHOWN]!a}{more} is no {what}")
