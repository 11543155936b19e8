"""What a bucket lists below a prefix: ListObjectsV2 a page at a time, by awscrt. Blocking: for a thread.

boto3 makes a dozen objects of each key before it shows one; ten thousand of them cost more than all else of a start.
Sources: "ListObjectsV2" of the Amazon S3 API reference.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote_plus

from .. import log
from ..aws import markup
from ..core import fields
from ..errors import Unavailable
from .response import Response
from .transport import Transport

T = TypeVar("T")

PAGE_TIMEOUT_S = 60.0
"""Seconds for a page. S3 walks over all that is deleted, too."""
MAX_EMPTY_PAGES = 1_000
"""Empty pages in a row that are not the last: a million deleted keys."""


class ObjectSummary(NamedTuple):
    """One key. `modified` in whole seconds since the epoch. What the row does not say, or says in a form that is none, is
    empty or None.
    """

    key: str
    etag: str
    size: int | None
    modified: int | None


class Page(NamedTuple):
    """Some keys, and where the next ones are found; empty where these are the last."""

    items: list[ObjectSummary]
    next: str


def listed(crt: Transport, where: str, prefix: str) -> Iterator[ObjectSummary]:
    """Every key that begins with `prefix`, in order. `where` names it for people. Raises Unavailable and its kind."""
    return _ordered(_pages(crt, where, prefix))


def first(crt: Transport, where: str, prefix: str, *, deadline: float = PAGE_TIMEOUT_S) -> ObjectSummary | None:
    """The first of them: proof that the bucket is there and may be listed, in one request. Raises as `listed`."""
    return next(iter(_page(crt, where, [("prefix", prefix), ("max-keys", "1")], deadline).items), None)


def _pages(crt: Transport, where: str, prefix: str) -> Iterator[list[ObjectSummary]]:
    token, seen, empty = "", set[str](), 0
    while True:
        more = [("continuation-token", token)] if token else []
        page = _page(crt, where, [("prefix", prefix), *more], PAGE_TIMEOUT_S)
        yield page.items
        if not page.next:
            return
        empty = 0 if page.items else empty + 1
        if page.next in seen or empty > MAX_EMPTY_PAGES:
            raise Unavailable(f"list {where}: the same pages come again and again, or empty ones")
        seen.add(token := page.next)


def _page(crt: Transport, where: str, query: list[tuple[str, str]], deadline: float) -> Page:
    what = f"list {where}"
    # A key may have characters that XML cannot hold: they travel in the form of a URL.
    query = [("list-type", "2"), ("encoding-type", "url"), *query]
    answer = crt.request_blocking("ListObjectsV2", what, query, deadline=deadline)
    if not answer.ok:
        raise answer.refusal(what)
    return parse(answer, what)


def parse(answer: Response, what: str) -> Page:
    """Raises Unavailable for what is no listing, or half of one: an absent key must not be taken for a deleted one. Rows whose
    keys no path can be are logged and left out.
    """
    try:
        root = markup.read(answer.body)
        space, name = root.tag.rpartition("}")[::2]
        space += "}" if space else ""
        if name != "ListBucketResult":
            raise ValueError(f"it is a {name}")
        escaped = root.findtext(f"{space}EncodingType") == "url"
        rows = ({part.tag: part.text or "" for part in row} for row in root.iter(f"{space}Contents"))
        items = _items(rows, space, what, escaped=escaped)
        more = root.findtext(f"{space}NextContinuationToken", "") if root.findtext(f"{space}IsTruncated") == "true" else None
        if more == "":
            raise ValueError("it does not say where it goes on")
    except markup.UNREADABLE as error:
        raise Unavailable(f"{what}: the answer is no listing: {error}") from error
    return Page(items, more or "")


def _items(rows: Iterable[dict[str, str]], space: str, what: str, *, escaped: bool) -> list[ObjectSummary]:
    """Raises KeyError for a row without a key: that could be any."""
    items, odd = [], []
    named, *others = [f"{space}{name}" for name in ("Key", "ETag", "Size", "LastModified")]
    for row in rows:
        told = row[named]
        try:
            key = fields.key(unquote_plus(told, errors="strict") if escaped else told)
        except ValueError as error:
            odd.append(str(error))
        else:
            items.append(_item(key, *map(row.get, others)))
    if odd:
        text = "%s: %d keys are left out, because no path can have them; the first: %s"
        log.warning("listing.skipped", text, what, len(odd), odd[0], error_code="InvalidKey", count=len(odd))
    return items


def _item(key: str, etag: str | None, size: str | None, modified: str | None) -> ObjectSummary:
    try:
        return ObjectSummary(key, fields.etag(etag), fields.size(size), _seconds(modified or ""))
    except ValueError:
        return ObjectSummary(key, _known(fields.etag, etag) or "", _known(fields.size, size), _known(_seconds, modified or ""))


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
    """By key. S3 lists them so; a store that walks folders instead is sorted here, at the price of memory."""
    last = ""
    pages = iter(pages)
    for page in pages:
        items = sorted(page, key=_BY_KEY)
        if items and items[0].key < last:
            yield from sorted(items + [item for later in pages for item in later], key=_BY_KEY)
            return
        yield from items
        last = items[-1].key if items else last
