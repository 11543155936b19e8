"""Decoder of S3 event notifications: native, in an SNS envelope, EventBridge, forwarded by Lambda.

The shape of a message selects its format. Sources: "Event message structure" (S3), "Amazon SNS
message formats", "EventBridge events for S3". As AWS asks, the decoder ignores unknown fields and
minor versions; a new major version becomes an `UnsupportedVersion`. Native keys are
form-urlencoded, EventBridge keys are not. Each record is decoded separately: an invalid record
becomes a `Bad` and does not affect the others. Pure: a hostile message can only raise `Poison`.
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
from ..core.model import Absent, Entry, Side

DEPTH = 8
"""Nesting limit of envelopes: no real notification nests deeper."""
RECORDS = 1024 * 1024 // 400
"""Records in one message, at most; bounds its work, because each record may cost a check of a path.

SQS limits a message to 1 MiB, and S3 writes more than 400 bytes per record.
"""

_T = TypeVar("_T")


class Poison(ValueError):
    """A message or a part of a message that is no valid notification.

    The queue's consumer leaves such a message for the dead-letter queue. `parts` are all records of
    the message, each a `Bad`. `bucket` is empty if unknown.
    """

    def __init__(self, reason: str, parts: Sequence[Bad] = (), *, bucket: str = "") -> None:
        super().__init__(reason)
        self.parts = parts
        self.bucket = bucket


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """A change of one key.

    Fields missing in the event are empty (`etag`, `version`, `sequencer`) or None (`size`).
    """

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
        """Whether the event may change the content of the bucket.

        Events of tags, ACLs, transitions and annotations do not.
        """
        return self.name.startswith(
            ("ObjectCreated:", "ObjectRemoved:", "LifecycleExpiration:", "ObjectRestore:Completed")
        )


@dataclass(frozen=True, slots=True)
class TestEvent:
    """The test message that S3 sends when notifications are configured; no object has changed."""

    __test__ = False
    bucket: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class UnsupportedVersion:
    """A record of an unknown major version: only a listing can find the change.

    `bucket` is empty if unknown.
    """

    version: str
    bucket: str = ""


@dataclass(frozen=True, slots=True)
class Bad:
    """An invalid record; no store sends one. `reason` is for the log. `bucket` may be empty."""

    reason: str
    bucket: str = ""


Decoded = ObjectEvent | TestEvent | UnsupportedVersion | Bad

_EVENTBRIDGE = {
    "Object Created": "ObjectCreated:EventBridge",
    "Object Deleted": "ObjectRemoved:EventBridge",
    "Object Restore Completed": "ObjectRestore:Completed",
}


def decode(body: str) -> list[Decoded]:
    """All records of a message; each invalid record is a `Bad`.

    Raises `Poison` if every record is a `Bad`.
    """
    found = list(islice(_judged(body, 0), RECORDS + 1))
    if len(found) > RECORDS:
        found = [Bad(f"more than {RECORDS:,} records")]
    bad = [part for part in found if isinstance(part, Bad)]
    if len(bad) == len(found):
        raise Poison(bad[0].reason, bad)
    return found


def _judged(value: Any, depth: int) -> Iterator[Decoded]:
    """The records of `value`, at least one: an error or an empty value yields a `Bad`."""
    empty = True
    try:
        for part in _open(value, depth):
            empty = False
            yield part
    except _FAULTS as error:
        yield Bad(_described(error), error.bucket if isinstance(error, Poison) else "")
    else:
        if empty:
            yield Bad("no event in the message")


def _described(error: Exception) -> str:
    """A short description of `error`, whatever the message holds.

    `Poison` and `fields.Odd` are readable sentences; of other errors, the type helps most.
    """
    known = isinstance(error, Poison | fields.Odd)
    return str(error) if known else f"{type(error).__name__}: {error}"[:_SHOWN]


_SHOWN, _NAMED = 120, 80
"""Characters, at most: of an error text, and of a key in an error text."""
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
    """The integer, or infinity above 20 characters.

    `int()` raises ValueError for thousands of digits, and the error would spoil the whole message.
    No valid field has more than 18 digits.
    """
    return int(text) if len(text) <= 20 else math.inf


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """The object, or `_AMBIGUOUS` if a member name occurs twice: no reading is safe then."""
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
    """Decode `record` by `form`. Raises `Poison`, with the key and bucket that `part` may hold."""
    try:
        return form(record)
    except _FAULTS as error:
        key = None
        with contextlib.suppress(TypeError, KeyError):
            key = record[part]["object"]["key"]
        named = f"{key[:_NAMED]!a}: " if isinstance(key, str) else ""
        raise Poison(named + _described(error), bucket=_bucket_of(record[part])) from error


def _inner(value: dict[str, Any]) -> Any:
    """The content of an envelope, or None for an unknown envelope.

    `Records` is a list of records. `Message` comes from SNS, `Sns` from an SNS record of Lambda.
    `body` comes from SQS, `requestPayload` from a Lambda destination.
    """
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
    """The bucket name of an invalid record or an unknown version, or an empty text if unknown.

    The name is found only where the known format has it.
    """
    try:
        return fields.bucket(about["bucket"]["name"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""


def _decoded(key: Any) -> str:
    if not isinstance(key, str) or len(key) > 3 * fields.KEY_MAX:
        raise Poison("the key is no text, or too long")
    return unquote_plus(key, errors="strict")


def _given(form: Callable[[Any], _T], value: Any, otherwise: _T) -> _T:
    """`otherwise` if the field is missing; some stores write null or an empty text then."""
    return otherwise if value is None or value == "" else form(value)


def _version(value: Any) -> str:
    return "" if value == "null" else _given(fields.version, value, "")


def older(sequencer: str, than: str) -> bool:
    """Whether an event precedes another event of the same key. False if either sequencer is empty.

    Sequencers are hexadecimal; the comparison right-pads the shorter one with zeros.
    """
    width = max(len(sequencer), len(than))
    return (
        bool(sequencer)
        and bool(than)
        and sequencer.lower().ljust(width, "0") < than.lower().ljust(width, "0")
    )


def reported(path: str, event: ObjectEvent) -> Side | None:
    """The side that an event promises: absent, an entry, or None without a size or an ETag."""
    if not event.created:
        return Absent(path)
    if event.size is None or not event.etag:
        return None
    return Entry(path, (event.etag, event.version, ""), event.size, 0, 0)
