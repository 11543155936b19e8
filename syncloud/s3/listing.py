"""Paginated bucket listing: ListObjectsV2 through awscrt. Blocking, so callers use a thread.

boto3 builds a dozen Python objects per key; at ten thousand keys that cost exceeds the rest of a
start. Source: "ListObjectsV2" of the Amazon S3 API reference.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element

from .. import log
from ..aws import markup
from ..core import fields
from ..errors import Unavailable
from .response import Response
from .transport import Transport

T = TypeVar("T")

PAGE_TIMEOUT_S = 60.0
"""Seconds for one page. S3 also walks over deleted keys."""
MAX_EMPTY_PAGES = 1_000
"""Upper bound on consecutive empty pages: at 1,000 keys a page, a million deleted keys."""


class ObjectSummary(NamedTuple):
    """One key of a listing. `modified` is in whole seconds since the epoch.

    A field that is missing or malformed in the row is None, and `etag` is empty.
    """

    key: str
    etag: str
    size: int | None
    modified: int | None


class Page(NamedTuple):
    """One page of keys, and the continuation token of the next page; empty on the last page."""

    items: list[ObjectSummary]
    next: str


def listed(transport: Transport, where: str, prefix: str) -> Iterator[ObjectSummary]:
    """Every key that begins with `prefix`, in order. `where` names the listing in messages.

    Raises Unavailable or a subclass, or the error of `Response.refusal`.
    """
    return _ordered(_pages(transport, where, prefix))


def first(
    transport: Transport, where: str, prefix: str, *, deadline: float = PAGE_TIMEOUT_S
) -> ObjectSummary | None:
    """The first key, or None: one request proves that the bucket exists and allows listing.

    `deadline` is in seconds. Raises as `listed`.
    """
    page = _page(transport, where, [("prefix", prefix), ("max-keys", "1")], deadline)
    return next(iter(page.items), None)


def _pages(transport: Transport, where: str, prefix: str) -> Iterator[list[ObjectSummary]]:
    token, seen, empty = "", set[str](), 0
    while True:
        more = [("continuation-token", token)] if token else []
        page = _page(transport, where, [("prefix", prefix), *more], PAGE_TIMEOUT_S)
        yield page.items
        if not page.next:
            return
        empty = 0 if page.items else empty + 1
        if page.next in seen or empty > MAX_EMPTY_PAGES:
            raise Unavailable(
                f"list {where}: the listing repeats a page or has too many empty ones"
            )
        seen.add(token := page.next)


def _page(transport: Transport, where: str, query: list[tuple[str, str]], deadline: float) -> Page:
    what = f"list {where}"
    # XML cannot hold every character of a key, so keys travel URL-encoded.
    query = [("list-type", "2"), ("encoding-type", "url"), *query]
    answer = transport.request_blocking("ListObjectsV2", what, query, deadline=deadline)
    if not answer.ok:
        raise answer.refusal(what)
    return parse(answer, what)


def parse(answer: Response, what: str) -> Page:
    """Parse one page. Keys that no path can have are logged and skipped.

    Raises Unavailable for half a listing, whose missing keys would count as deleted objects.
    """
    try:
        root = markup.read(answer.body)
        space, name = root.tag.rpartition("}")[::2]
        space += "}" if space else ""
        if name != "ListBucketResult":
            raise ValueError(f"the root is {name}")
        return Page(_items(root, space, what), _continuation(root, space))
    except markup.UNREADABLE as error:
        raise Unavailable(f"{what}: the answer is no listing: {error}") from error


def _continuation(root: Element, space: str) -> str:
    """The token of the next page. Raises ValueError if a truncated page has none."""
    if root.findtext(f"{space}IsTruncated") != "true":
        return ""
    if token := root.findtext(f"{space}NextContinuationToken", ""):
        return token
    raise ValueError("a truncated page without a continuation token")


def _items(root: Element, space: str, what: str) -> list[ObjectSummary]:
    """Parse the rows. Raises KeyError for a row without a key, which could be any object."""
    items, odd, escaped = [], [], root.findtext(f"{space}EncodingType") == "url"
    named, *others = [space + name for name in ("Key", "ETag", "Size", "LastModified")]
    for row in root.iter(f"{space}Contents"):
        parts = {part.tag: part.text or "" for part in row}
        key = parts[named]
        try:
            key = fields.key(unquote_plus(key, errors="strict") if escaped else key)
        except ValueError as error:
            odd.append(str(error))
        else:
            items.append(_item(key, *map(parts.get, others)))
    if odd:
        _log_skipped(what, odd)
    return items


def _log_skipped(what: str, odd: list[str]) -> None:
    text = "%s: %d keys are skipped, because no path can have them; the first: %s"
    count = len(odd)
    log.warning("listing.skipped", text, what, count, odd[0], error_code="InvalidKey", count=count)


def _item(key: str, etag: str | None, size: str | None, modified: str | None) -> ObjectSummary:
    try:
        return ObjectSummary(key, fields.etag(etag), fields.size(size), _seconds(modified or ""))
    except ValueError:
        seconds = _known(_seconds, modified or "")
        known_etag = _known(fields.etag, etag) or ""
        return ObjectSummary(key, known_etag, _known(fields.size, size), seconds)


def _known(form: Callable[[Any], T], text: str | None) -> T | None:
    try:
        return form(text)
    except ValueError:
        return None


@functools.lru_cache(1024)
def _seconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


_BY_KEY = operator.itemgetter(0)


def _ordered(pages: Iterable[list[ObjectSummary]]) -> Iterator[ObjectSummary]:
    """Sort the pages by key.

    S3 lists in key order. A store that walks folders instead is sorted here, at the cost of memory.
    """
    last = ""
    pages = iter(pages)
    for page in pages:
        items = sorted(page, key=_BY_KEY)
        if items and items[0].key < last:
            yield from sorted(items + [item for later in pages for item in later], key=_BY_KEY)
            return
        yield from items
        last = items[-1].key if items else last
