"""A matcher without backtracking for one line of a gitignore(5) file.

The semantics are those of git's own dir.c and wildmatch.c.

git compares bytes, so a path is matched as `octets`, one character per byte. The cost of a match is
at most the pattern's length times the path's. Between two stars stands a run of fixed length, and a
star takes the shortest match.
"""

from __future__ import annotations

import itertools
import operator
import re
import string
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

_T = TypeVar("_T")
_S = TypeVar("_S", str, Sequence[str], contravariant=True)

_BYTES = "".join(map(chr, range(1, 256))).replace("/", "")
"""The bytes that `?` matches."""

_ASCII = "".join(map(chr, range(1, 128)))
_CLASSES = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(one for one in _ASCII if not one.isprintable()),
    "digit": string.digits,
    "graph": string.ascii_letters + string.digits + string.punctuation,
    "lower": string.ascii_lowercase,
    "print": string.ascii_letters + string.digits + string.punctuation + " ",
    "punct": string.punctuation,
    "space": " \t\n\r",  # git has no vertical tab and no form feed here
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}
"""The members of [:NAME:] in a bracket expression; git knows ASCII alone, in any locale."""


class Pattern(NamedTuple):
    """A compiled line.

    `matches` takes the octets of a whole path (without a final slash), or of its last component.
    `negated`: the line began with `!`. `folders`: it matches only directories. `whole`: it matches
    paths.
    """

    negated: bool
    folders: bool
    whole: bool
    matches: Callable[[str], bool]


class _Element(NamedTuple):
    """A matcher for one of `bytes`, or a star. `escaped`: written with a backslash (`\\/`)."""

    bytes: str
    star: bool = False
    escaped: bool = False


_Component = Sequence[_Element]


class _Never(Exception):
    """The pattern matches nothing in git."""


def octets(text: str) -> str:
    """`text` with one character per byte, in the encoding of Linux and S3."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:  # a lone surrogate stands for no byte; only messages hold one
        return text.encode("utf-8", "surrogatepass").decode("latin-1")


def parse(line: str) -> Pattern | None:
    """Compile a line; None if it matches nothing.

    Such a line is blank, a comment, or incomplete (git reports no error).
    """
    text = _trimmed(octets(line))
    if text.startswith("#"):
        return None
    negated = text.startswith("!")
    written = text.removeprefix("!")
    body = written.removesuffix("/")
    if body.startswith("**/") and "/" not in body[3:]:
        body = body[3:]  # the last component, at any depth
    whole = "/" in body
    try:
        text = body.removeprefix("/")
        elements = list(_elements(text))
        matches = _path(elements, _letters(text)) if whole else _name(elements)
    except _Never:
        return None
    return Pattern(negated, written.endswith("/"), whole, matches) if elements else None


def _trimmed(text: str) -> str:
    """The line without trailing blanks; a backslash keeps one."""
    bare = text.rstrip(" ")
    escaped = (len(bare) - len(bare.rstrip("\\"))) % 2
    return text[: len(bare) + escaped]


def _elements(text: str) -> Iterator[_Element]:
    at = 0
    while at < len(text):
        one, escaped = text[at], False
        if one == "[":
            taken, at = _bracket(text, at + 1)
            yield _Element(taken)
            continue
        if one == "\\":
            at, escaped = at + 1, True
            if at == len(text):
                raise _Never
        wild = "" if escaped else text[at]
        yield _Element(_BYTES if wild == "?" else text[at], wild == "*", escaped)
        at += 1


def _bracket(text: str, at: int) -> tuple[str, int]:
    """Parse a bracket expression from `at`, the place after its `[`.

    Returns the bytes that it matches, and the place after its end. Raises _Never.
    """
    try:
        negated = text[at] in "!^"
        listed, at = _listed(text, at + negated)
    except (IndexError, ValueError, KeyError):  # no end, or an unknown class
        raise _Never from None
    if taken := "".join(one for one in _BYTES if (one in listed) != negated):
        return taken, at
    raise _Never


def _listed(text: str, at: int) -> tuple[set[str], int]:
    """The bytes in a bracket expression, and the place after its `]`.

    A `]` in first place is a member; so is a `-` without a byte on both sides, or after a range.
    """
    listed: set[str] = set()
    first, before = at, ""
    while at == first or text[at] != "]":
        one = text[at]
        if one == "\\":
            at += 1
            listed.add(one := text[at])
        elif one == "-" and before and text[at + 1] != "]":
            at += 1 + (text[at + 1] == "\\")
            listed.update(map(chr, range(ord(before), ord(text[at]) + 1)))
            one = ""
        elif name := _class(text, at):
            listed.update(_CLASSES[name])
            at, one = at + len(name) + 3, ""
        else:
            listed.add(one)
        at, before = at + 1, one
    return listed, at + 1


def _class(text: str, at: int) -> str:
    """The name in `[:NAME:]`; empty without one.

    Raises ValueError for a missing end, KeyError for `[::]`.
    """
    if not text.startswith("[:", at):
        return ""
    inside = text[at + 2 : text.index("]", at + 2)]
    if inside == ":":
        raise KeyError(inside)
    return inside[:-1] if inside.endswith(":") else ""


def _name(elements: _Component) -> Callable[[str], bool]:
    """A matcher for one component, in which a star takes any bytes."""
    runs = [_Run(run) for run in _between(elements, lambda element: element.star)]
    head, tail = runs[0].literal, runs[-1].literal
    if len(runs) == 1:
        return runs[0].equals if head is None else head.__eq__
    middle = [run for run in runs[1:-1] if run.size]
    if not middle and head == "" and tail is not None:
        return operator.methodcaller("endswith", tail)
    if not middle and tail == "" and head is not None:
        return operator.methodcaller("startswith", head)
    return _gapped(runs[0], middle, runs[-1])


def _letters(text: str) -> int:
    """The length of the literal prefix: the bytes before the first special character."""
    return next((at for at, one in enumerate(text) if one in "*?[\\"), len(text))


def _path(elements: _Component, letters: int = 0) -> Callable[[str], bool]:
    """A matcher for a path.

    A star takes bytes of one component, `**` between slashes takes whole components. git (before
    2.52) compares the first `letters` bytes separately: a `**` after them starts a new pattern.
    """
    if letters and elements[letters - 1].bytes != "/":
        beginning = "".join(element.bytes for element in elements[:letters])
        follows = _path(elements[letters:])
        return lambda path: path.startswith(beginning) and follows(path[letters:])
    components = list(_components(elements))
    blocks = [_Block(block) for block in _between(components, lambda one: one is None)]
    lead = "".join(element.bytes for element in itertools.takewhile(_fixed, elements))
    if len(lead) == len(elements):
        return lead.__eq__
    head, *rest = blocks
    matches = _gapped(head, rest[:-1], rest[-1]) if rest else head.equals
    return lambda path: path.startswith(lead) and matches(path.split("/"))


def _components(elements: _Component) -> Iterator[_Component | None]:
    """The pattern's components; None stands for any number of components.

    A `**` takes at least one component at the end of the pattern, or before an escaped slash.
    """
    slashes = [at for at, element in enumerate(elements) if element.bytes == "/"]
    for start, end in itertools.pairwise([-1, *slashes, len(elements)]):
        component = elements[start + 1 : end]
        if len(component) < 2 or not all(element.star for element in component):
            yield component
            continue
        if end == len(elements) or elements[end].escaped:
            yield component[:1]
        yield None


def _between(items: Sequence[_T], gap: Callable[[_T], bool]) -> list[list[_T]]:
    """Split a sequence at its gaps; the gaps are dropped."""
    found: list[list[_T]] = [[]]
    for item in items:
        if gap(item):
            found.append([])
        else:
            found[-1].append(item)
    return found


def _gapped(
    head: _Fixed[_S], middle: Sequence[_Fixed[_S]], tail: _Fixed[_S]
) -> Callable[[_S], bool]:
    """A matcher for `head`, `middle` and `tail` in this order, with anything in the gaps."""

    def matches(text: _S) -> bool:
        at, end = head.size, len(text) - tail.size
        if end < at or not head.stands(text, 0) or not tail.stands(text, end):
            return False
        # The leftmost fit leaves the most room for the later ones, so no backtracking is needed.
        return all((at := fixed.after(text, at, end)) >= 0 for fixed in middle)

    return matches


class _Fixed(Protocol[_S]):
    """A matcher that always takes `size` items of a text."""

    size: int

    def stands(self, text: _S, at: int) -> bool: ...

    def after(self, text: _S, at: int, end: int) -> int:
        """The place after the first match in text[at:end]; -1 if there is none."""


class _Run:
    """Elements without a star, one byte each. `literal`: their text, if none has alternatives."""

    def __init__(self, elements: _Component) -> None:
        self.size = len(elements)
        text = "".join(element.bytes for element in elements)
        self.literal = text if all(map(_fixed, elements)) else None
        # A fixed length without alternation: the expression cannot backtrack.
        sets = ("".join(f"\\x{ord(one):02x}" for one in element.bytes) for element in elements)
        self._form = re.compile("".join(f"[{one}]" for one in sets))

    def equals(self, text: str) -> bool:
        return self._form.fullmatch(text) is not None

    def stands(self, text: str, at: int) -> bool:
        return self._form.match(text, at) is not None

    def after(self, text: str, at: int, end: int) -> int:
        found = self._form.search(text, at, end)
        return found.end() if found else -1


class _Block:
    """Pattern components without `**`; each takes one component of a path."""

    def __init__(self, components: Sequence[_Component | None]) -> None:
        self.size = len(components)
        self._matches = [_name(component) for component in components if component is not None]

    def equals(self, parts: Sequence[str]) -> bool:
        return len(parts) == self.size and self.stands(parts, 0)

    def stands(self, parts: Sequence[str], at: int) -> bool:
        places = zip(self._matches, parts[at : at + self.size], strict=True)
        return all(matches(part) for matches, part in places)

    def after(self, parts: Sequence[str], at: int, end: int) -> int:
        places = range(at, end - self.size + 1)
        return next((place + self.size for place in places if self.stands(parts, place)), -1)


def _fixed(element: _Element) -> bool:
    return not element.star and len(element.bytes) == 1
