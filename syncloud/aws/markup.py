"""XML and JSON that a server has sent, with a bound: a tree takes a hundred times the memory of the text that it is made of.

Of JSON it is lists and objects that do; its strings may hold any text, also such as looks like many of them.
"""

from __future__ import annotations

from xml.etree import ElementTree

TAGS_MAX = 100_000
"""Tags of one answer. A page of a listing has a thousand rows of about twenty-five."""
CONTAINERS_MAX = 100_000
"""Lists and objects of one answer in JSON. Ten messages of SQS have some hundreds."""
UNREADABLE = (ElementTree.ParseError, LookupError, ValueError)
"""What `read` raises for what is no XML, or in no encoding that there is."""


def read(body: bytes) -> ElementTree.Element:
    """The root. Raises one of `UNREADABLE`."""
    if body.count(b"<") > TAGS_MAX:
        raise ValueError(f"it has more than {TAGS_MAX:,} tags")
    return ElementTree.fromstring(body)


def excess(body: bytes) -> str | None:
    """Of what an answer in XML or in JSON has more than any service's, or None. Only JSON in UTF-8 is read as JSON, and what
    begins as its lists and objects do is no XML in any encoding.
    """
    if body.lstrip()[:1] not in (b"[", b"{"):
        return f"more than {TAGS_MAX:,} tags" if body.count(b"<") > TAGS_MAX else None
    if body.count(b"[") + body.count(b"{") <= CONTAINERS_MAX:
        return None
    return f"more than {CONTAINERS_MAX:,} lists and objects" if _containers(body) > CONTAINERS_MAX else None


def _containers(body: bytes) -> int:
    """The lists and objects of a text in JSON, so far as it is one; a few more than CONTAINERS_MAX are enough."""
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # of the quotes that is left, each begins or ends a string
    count, at, end = 0, 0, len(text)
    while at < end and count <= CONTAINERS_MAX:
        begun = text.find(b'"', at)
        until = end if begun < 0 else begun
        count += text.count(b"[", at, until) + text.count(b"{", at, until)
        ended = text.find(b'"', until + 1)
        at = end if ended < 0 else ended + 1
    return count
