"""What a queue message says, decoded by shape: S3 itself, SNS around it, EventBridge, any of them forwarded by Lambda.

Sources: "Event message structure" (S3), "Amazon SNS message formats", "EventBridge events for S3". Unknown fields and minor
versions are ignored, as AWS asks; a new major version is not acted on. Native keys are form-urlencoded, EventBridge's are not.
Each record is judged by itself: an odd one is a Bad beside the others. Pure: a hostile message can only raise Poison.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote_plus

from ..core import fields

DEPTH = 8
"""Envelopes within envelopes; a message that nests deeper is nobody's notification."""
RECORDS = 1024 * 1024 // 400
"""In one message. SQS takes 1 MiB, and S3 writes more than 400 bytes a record. Each one may cost a look at a path."""

_T = TypeVar("_T")


class Poison(ValueError):
    """Not a notification: nothing in it can be read. It is left for the dead-letter queue. `parts` are all that it has."""

    def __init__(self, reason: str, parts: Sequence[Bad] = (), *, bucket: str = "") -> None:
        super().__init__(reason)
        self.parts = parts
        self.bucket = bucket


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """Something happened to a key. `etag`, `version`, `size` and `sequencer` are empty or None where the event has none."""

    bucket: str
    key: str
    name: str
    etag: str = ""
    version: str = ""
    size: int | None = None
    sequencer: str = ""

    @property
    def created(self) -> bool:
        return self.name.startswith("ObjectCreated:")

    @property
    def relevant(self) -> bool:
        """Whether it may change what the bucket holds: tags, ACLs, transitions and annotations do not."""
        return self.name.startswith(("ObjectCreated:", "ObjectRemoved:", "LifecycleExpiration:", "ObjectRestore:Completed"))


@dataclass(frozen=True, slots=True)
class TestEvent:
    """S3 says that it can reach the queue; nothing happened."""

    __test__ = False
    bucket: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class UnsupportedVersion:
    """A format of the future: something happened, and only a listing can tell what. `bucket` is empty where it is not known."""

    version: str
    bucket: str = ""


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that no store sends: `reason` is for a log. `bucket` is empty where it is not known."""

    reason: str
    bucket: str = ""


Decoded = ObjectEvent | TestEvent | UnsupportedVersion | Bad

_EVENTBRIDGE = {
    "Object Created": "ObjectCreated:EventBridge",
    "Object Deleted": "ObjectRemoved:EventBridge",
    "Object Restore Completed": "ObjectRestore:Completed",
}


def decode(body: str) -> list[Decoded]:
    """Everything a message says, and a Bad for each part of it that says nothing. Raises Poison where no other is there."""
    found = list(islice(_judged(body, 0), RECORDS + 1))
    if len(found) > RECORDS:
        found = [Bad(f"more than {RECORDS:,} records")]
    bad = [part for part in found if isinstance(part, Bad)]
    if len(bad) == len(found):
        raise Poison(bad[0].reason, bad)
    return found


def _judged(value: Any, depth: int) -> Iterator[Decoded]:
    """What `value` holds, at least a Bad."""
    empty = True
    try:
        for part in _open(value, depth):
            empty = False
            yield part
    except _FAULTS as error:
        yield Bad(_told(error), error.bucket if isinstance(error, Poison) else "")
    else:
        if empty:
            yield Bad("no event in it")


def _told(error: Exception) -> str:
    """Short, whatever the message holds: our own errors are sentences, of others the type says most."""
    known = isinstance(error, Poison | fields.Odd)
    return str(error) if known else f"{type(error).__name__}: {error}"[:_TOLD]


_TOLD, _NAMED = 120, 80
"""Characters, at most."""
_FAULTS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def _open(value: Any, depth: int) -> Iterator[Decoded]:
    if depth > DEPTH:
        raise Poison("nested too deeply")
    if isinstance(value, str):
        value = _JSON.decode(value)
    if isinstance(value, list):
        for item in value:
            yield from _judged(item, depth + 1)
        return
    if not isinstance(value, dict):
        raise Poison("not an object")
    yield from _envelope(value, depth)


def _number(text: str) -> int | float:
    """Python refuses thousands of digits, and with them the whole message; no field has more than 18."""
    return int(text) if len(text) <= 20 else math.inf


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """What names a member twice says two things, and so nothing: it is no object."""
    value = dict(pairs)
    return value if len(value) == len(pairs) else _AMBIGUOUS


_AMBIGUOUS = object()
_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_int=_number)


def _envelope(value: dict[str, Any], depth: int) -> Iterator[Decoded]:
    if "s3" in value and "eventName" in value:
        yield _read(_native, value, "s3")
    elif value.get("Event") == "s3:TestEvent":
        yield TestEvent()
    elif value.get("source") == "aws.s3" and "detail" in value:
        yield _read(_bridged, value, "detail")
    else:
        inner = _inner(value)
        if inner is None:
            raise Poison("no envelope that S3, SNS, EventBridge or Lambda makes")
        yield from _open(inner, depth + 1)


def _read(form: Callable[[dict[str, Any]], Decoded], record: dict[str, Any], part: str) -> Decoded:
    """Raises Poison, with the key that the record is about, as far as it has one in `part`."""
    try:
        return form(record)
    except _FAULTS as error:
        key = None
        with contextlib.suppress(TypeError, KeyError):
            key = record[part]["object"]["key"]
        named = f"{key[:_NAMED]!a}: " if isinstance(key, str) else ""
        raise Poison(named + _told(error), bucket=_bucket_of(record[part])) from error


def _inner(value: dict[str, Any]) -> Any:
    """What an envelope holds: SNS's Message (also in Lambda's record), SQS's body, a Lambda destination's request, Records."""
    for name in ("Records", "Message", "Sns", "body", "requestPayload"):
        if value.get(name):
            return value[name]
    return None


def _native(record: dict[str, Any]) -> Decoded:
    version = fields.version_of_format(record.get("eventVersion", "2.0"))
    if version.partition(".")[0] != "2":
        return UnsupportedVersion(version, _bucket_of(record["s3"]))
    thing = record["s3"]["object"]
    return ObjectEvent(
        bucket=fields.bucket(record["s3"]["bucket"]["name"]),
        key=fields.key(_decoded(thing["key"])),
        name=fields.event(record["eventName"]).removeprefix("s3:"),
        etag=_given(fields.etag, thing.get("eTag"), ""),
        version=_version(thing.get("versionId")),
        size=_given(fields.size, thing.get("size"), None),
        sequencer=_given(fields.sequencer, thing.get("sequencer"), ""),
    )


def _bridged(event: dict[str, Any]) -> Decoded:
    thing = event["detail"]["object"]
    kind = fields.event(event["detail-type"])
    return ObjectEvent(
        bucket=fields.bucket(event["detail"]["bucket"]["name"]),
        key=fields.key(thing["key"]),
        name=_EVENTBRIDGE.get(kind, kind),
        etag=_given(fields.etag, thing.get("etag"), ""),
        version=_version(thing.get("version-id")),
        size=_given(fields.size, thing.get("size"), None),
        sequencer=_given(fields.sequencer, thing.get("sequencer"), ""),
    )


def _bucket_of(about: Any) -> str:
    """Empty where it is not known: of an odd record, and of a format of the future, as far as they are like the known one."""
    try:
        return fields.bucket(about["bucket"]["name"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""


def _decoded(key: Any) -> str:
    if not isinstance(key, str) or len(key) > 3 * fields.KEY_MAX:
        raise Poison("the key is no text, or longer than any")
    return unquote_plus(key, errors="strict")


def _given(form: Callable[[Any], _T], value: Any, otherwise: _T) -> _T:
    """`otherwise` where the event does not have it: stores write that as null or as an empty text, too."""
    return otherwise if value is None or value == "" else form(value)


def _version(value: Any) -> str:
    return "" if value == "null" else _given(fields.version, value, "")


def older(sequencer: str, than: str) -> bool:
    """Whether an event came before another one of the same key: hexadecimal, the shorter right-padded with zeros."""
    width = max(len(sequencer), len(than))
    return bool(sequencer) and bool(than) and sequencer.lower().ljust(width, "0") < than.lower().ljust(width, "0")
