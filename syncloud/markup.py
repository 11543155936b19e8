"""XML that a server has sent, with a bound: a tree takes a hundred times the memory of the text that it is made of."""

from __future__ import annotations

from xml.etree import ElementTree

TAGS_MAX = 100_000
"""Tags of one answer. A page of a listing has a thousand rows of about twenty-five."""
UNREADABLE = (ElementTree.ParseError, LookupError, ValueError)
"""What `read` raises for what is no XML, or in no encoding that there is."""


def read(body: bytes) -> ElementTree.Element:
    """The root. Raises one of `UNREADABLE`."""
    if body.count(b"<") > TAGS_MAX:
        raise ValueError(f"it has more than {TAGS_MAX:,} tags")
    return ElementTree.fromstring(body)
