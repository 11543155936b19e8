"""Bounded parsing of XML and JSON from servers: a parsed tree takes a hundred times its text.

In JSON only lists and objects are that expensive. Brackets inside strings are text, so they do not
count.
"""

from __future__ import annotations

from xml.etree import ElementTree

TAGS_MAX = 100_000
"""Upper bound on the tags of one answer. A listing page has 1,000 rows of about 25 tags."""
CONTAINERS_MAX = 100_000
"""Upper bound on the lists and objects of one JSON answer. Ten SQS messages have some hundreds."""
UNREADABLE = (ElementTree.ParseError, LookupError, ValueError)
"""Errors of `read` for text that is no XML, or has an unknown encoding."""


def read(body: bytes) -> ElementTree.Element:
    """The root element. Raises one of `UNREADABLE`."""
    if body.count(b"<") > TAGS_MAX:
        raise ValueError(f"more than {TAGS_MAX:,} tags")
    return ElementTree.fromstring(body)


def excess(body: bytes) -> str | None:
    """The exceeded bound of an XML or JSON answer, as a text; None if the answer is acceptable.

    Only UTF-8 is parsed as JSON. A text that begins with a bracket or a brace is no XML in any
    encoding.
    """
    if body.lstrip()[:1] not in (b"[", b"{"):
        return f"more than {TAGS_MAX:,} tags" if body.count(b"<") > TAGS_MAX else None
    if body.count(b"[") + body.count(b"{") <= CONTAINERS_MAX:
        return None
    if _containers(body) <= CONTAINERS_MAX:
        return None
    return f"more than {CONTAINERS_MAX:,} lists and objects"


def _containers(body: bytes) -> int:
    """Count the lists and objects of a JSON text; counting stops soon after `CONTAINERS_MAX`."""
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # each quote left delimits a string
    count, at, end = 0, 0, len(text)
    while at < end and count <= CONTAINERS_MAX:
        begun = text.find(b'"', at)
        until = end if begun < 0 else begun
        count += text.count(b"[", at, until) + text.count(b"{", at, until)
        ended = text.find(b'"', until + 1)
        at = end if ended < 0 else ended + 1
    return count
