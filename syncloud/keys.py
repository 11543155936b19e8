"""What a bucket lists below a prefix: ListObjectsV2 a page at a time, by awscrt. Blocking: for a thread.

boto3 makes a dozen objects of each key before it shows one; ten thousand of them cost more than all else of a start.
Sources: "ListObjectsV2" of the Amazon S3 API reference.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from .crt import Crt
from .errors import Unavailable
from .response import Response

PATIENCE = 60.0
"""Seconds for a page. S3 walks over all that is deleted, too."""
EMPTY_MAX = 1_000
"""Empty pages in a row that are not the last: a million deleted keys."""


class Listed(NamedTuple):
    """One key. `modified` in whole seconds since the epoch."""

    key: str
    etag: str
    size: int
    modified: int


class Page(NamedTuple):
    """Some keys, and where the next ones are found; empty where these are the last."""

    items: list[Listed]
    next: str


def listed(crt: Crt, where: str, prefix: str) -> Iterator[Listed]:
    """Every key that begins with `prefix`, in order. `where` names it for people. Raises Unavailable and its kind."""
    return _ordered(_pages(crt, where, prefix))


def first(crt: Crt, where: str, prefix: str, *, deadline: float = PATIENCE) -> Listed | None:
    """The first of them: proof that the bucket is there and may be listed, in one request. Raises as `listed`."""
    return next(iter(_page(crt, where, [("prefix", prefix), ("max-keys", "1")], deadline).items), None)


def _pages(crt: Crt, where: str, prefix: str) -> Iterator[list[Listed]]:
    token, seen, empty = "", {""}, 0
    while True:
        more = [("continuation-token", token)] if token else []
        page = _page(crt, where, [("prefix", prefix), *more], PATIENCE)
        yield page.items
        if not page.next:
            return
        empty = 0 if page.items else empty + 1
        if page.next in seen or empty > EMPTY_MAX:
            raise Unavailable(f"list {where}: the same pages come again and again, or empty ones")
        token = page.next
        seen.add(token)


def _page(crt: Crt, where: str, query: list[tuple[str, str]], deadline: float) -> Page:
    what = f"list {where}"
    # A key may have characters that XML cannot hold: they travel in the form of a URL.
    query = [("list-type", "2"), ("encoding-type", "url"), *query]
    answer = crt.ask("ListObjectsV2", what, query, deadline=deadline)
    if not answer.ok:
        raise answer.refusal(what)
    return parse(answer, what)


def parse(answer: Response, what: str) -> Page:
    """Raises Unavailable for what is no listing, or half of one: an absent key must not be taken for a deleted one."""
    try:
        root = ElementTree.fromstring(answer.body)
        space, name = root.tag.rpartition("}")[::2]
        space += "}" if space else ""
        if name != "ListBucketResult":
            raise ValueError(f"it is a {name}")
        escaped = root.findtext(f"{space}EncodingType") == "url"
        rows = ({part.tag: part.text or "" for part in row} for row in root.iter(f"{space}Contents"))
        items = [_item(row, space, escaped) for row in rows]
        more = root.findtext(f"{space}NextContinuationToken", "") if root.findtext(f"{space}IsTruncated") == "true" else None
        if more == "":
            raise ValueError("it does not say where it goes on")
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise Unavailable(f"{what}: the answer is no listing: {error}") from error
    return Page(items, more or "")


def _item(row: dict[str, str], space: str, escaped: bool) -> Listed:
    key, modified = row[f"{space}Key"], _seconds(row[f"{space}LastModified"])
    return Listed(unquote_plus(key) if escaped else key, row[f"{space}ETag"], int(row[f"{space}Size"]), modified)


@functools.lru_cache(1024)
def _seconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _ordered(pages: Iterable[list[Listed]]) -> Iterator[Listed]:
    """By key. S3 lists them so; a store that walks folders instead is sorted here, at the price of memory."""
    last = ""
    pages = iter(pages)
    for page in pages:
        items = sorted(page)
        if items and items[0].key < last:
            yield from sorted(items + [item for later in pages for item in later])
            return
        yield from items
        last = items[-1].key if items else last
