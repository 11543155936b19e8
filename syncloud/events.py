"""What a queue message says, decoded by shape: S3 itself, SNS around it, EventBridge, any of them forwarded by Lambda.

Sources: "Event message structure" (S3), "Amazon SNS message formats", "EventBridge events for S3". Unknown fields and minor
versions are ignored, as AWS asks; a new major version is not acted on. Native keys are form-urlencoded, EventBridge's are not.
Pure: a hostile message can only raise Poison.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

DEPTH = 8
"""Envelopes within envelopes; a message that nests deeper is nobody's notification."""


class Poison(ValueError):
    """Not a notification. It is left for the dead-letter queue."""


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


@dataclass(frozen=True, slots=True)
class NewMajor:
    """A format of the future: something happened, and only a listing can tell what."""

    version: str


Decoded = ObjectEvent | TestEvent | NewMajor

_EVENTBRIDGE = {
    "Object Created": "ObjectCreated:EventBridge",
    "Object Deleted": "ObjectRemoved:EventBridge",
    "Object Restore Completed": "ObjectRestore:Completed",
}


def decode(body: str) -> list[Decoded]:
    """Everything a message says, never nothing. Raises Poison."""
    try:
        found = list(_open(body, 0))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Poison(f"{type(error).__name__}: {error}") from error
    if not found:
        raise Poison("no event in it")
    return found


def _open(value: Any, depth: int) -> Iterator[Decoded]:
    if depth > DEPTH:
        raise Poison("nested too deeply")
    if isinstance(value, str):
        value = json.loads(value)
    if isinstance(value, list):
        for item in value:
            yield from _open(item, depth + 1)
        return
    if not isinstance(value, dict):
        raise Poison("not an object")
    yield from _envelope(value, depth)


def _envelope(value: dict[str, Any], depth: int) -> Iterator[Decoded]:
    if "s3" in value and "eventName" in value:
        yield _native(value)
    elif value.get("Event") == "s3:TestEvent":
        yield TestEvent()
    elif value.get("source") == "aws.s3" and "detail" in value:
        yield _bridged(value)
    else:
        inner = _inner(value)
        if inner is None:
            raise Poison("no envelope that S3, SNS, EventBridge or Lambda makes")
        yield from _open(inner, depth + 1)


def _inner(value: dict[str, Any]) -> Any:
    """What an envelope holds: SNS's Message (also in Lambda's record), SQS's body, a Lambda destination's request, Records."""
    for name in ("Records", "Message", "Sns", "body", "requestPayload"):
        if value.get(name):
            return value[name]
    return None


def _native(record: dict[str, Any]) -> Decoded:
    version = str(record.get("eventVersion", "2.0"))
    if version.partition(".")[0] != "2":
        return NewMajor(version)
    thing = record["s3"]["object"]
    return ObjectEvent(
        bucket=_text(record["s3"]["bucket"]["name"]),
        key=_clean(unquote_plus(_text(thing["key"]), errors="strict")),
        name=_text(record["eventName"]).removeprefix("s3:"),
        etag=_text(thing.get("eTag") or "").strip('"'),
        version=_version(thing.get("versionId")),
        size=_size(thing.get("size")),
        sequencer=_text(thing.get("sequencer") or ""),
    )


def _bridged(event: dict[str, Any]) -> Decoded:
    thing = event["detail"]["object"]
    kind = _text(event.get("detail-type") or "")
    return ObjectEvent(
        bucket=_text(event["detail"]["bucket"]["name"]),
        key=_clean(_text(thing["key"])),
        name=_EVENTBRIDGE.get(kind, kind),
        etag=_text(thing.get("etag") or "").strip('"'),
        version=_version(thing.get("version-id")),
        size=_size(thing.get("size")),
        sequencer=_text(thing.get("sequencer") or ""),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Poison(f"text expected, not {type(value).__name__}")
    return value


def _clean(key: str) -> str:
    """S3's keys are UTF-8; a lone surrogate (JSON can spell one) is no key."""
    key.encode()
    return key


def _version(value: Any) -> str:
    return "" if value in (None, "null") else _text(value)


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def older(sequencer: str, than: str) -> bool:
    """Whether an event came before another one of the same key: hexadecimal, the shorter right-padded with zeros."""
    width = max(len(sequencer), len(than))
    return bool(sequencer) and bool(than) and sequencer.lower().ljust(width, "0") < than.lower().ljust(width, "0")
