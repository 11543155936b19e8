"""Names: the one-to-one mapping of keys to paths (or a refusal), hidden and conflict names.

The sources of the rules: "Naming Amazon S3 objects" (1 to 1,024 bytes of UTF-8), path_resolution(7)
(NAME_MAX 255 bytes).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from datetime import datetime

from . import fields

KEY_MAX = fields.KEY_MAX
NAME_MAX = 255

_HIDDEN = re.compile(r"\.syncloud-(?:tmp|old|probe)-[0-9a-f]{16}-[0-9a-f]{16}\Z")
_CONFLICT = re.compile(r"\.conflict-\d{8}T\d{6}Z-[A-Za-z0-9_-]+?(?:-\d+)?(?=\.|\Z)")


def key_of(prefix: str, path: str) -> str:
    return prefix + path


def path_of(prefix: str, key: str) -> str:
    """The path of a key below `prefix`; the caller has checked the prefix."""
    return key[len(prefix) :]


def above(path: str) -> Iterator[str]:
    """The directories on the way to `path`, the outermost first."""
    return (path[:at] for at, letter in enumerate(path) if letter == "/")


def refusal(path: str) -> str | None:
    """Why `path` cannot exist on both sides, or None.

    A path that ends in a slash is a directory marker. No name is ever mapped to a similar one: two
    keys can never meet in one file.
    """
    if not path:
        return "the key is the prefix itself"
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "the name is not valid UTF-8"
    if "\0" in path:
        return "the key holds a NUL character"
    if path.startswith("/"):
        return "the key is absolute below the prefix"
    for part in path.removesuffix("/").split("/"):
        if part in ("", ".", ".."):
            return f"the key has the component {part!r}"
    if len(raw) > NAME_MAX and any(len(part.encode()) > NAME_MAX for part in path.split("/")):
        return f"a component is longer than {NAME_MAX} bytes"
    return None


def spelled(text: str) -> str:
    """The escaped form for a database, a page or a message: bytes outside UTF-8 become `\\xNN`."""
    if text.isascii():
        return text
    try:
        raw = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # a surrogate in a message; no file's name decodes to it
        raw = text.encode(errors="backslashreplace")
    return raw.decode(errors="backslashreplace")


def too_long_for_a_key(prefix: str, path: str) -> bool:
    if len(path) * 4 + len(prefix) <= KEY_MAX:
        return False
    return len((prefix + path).encode(errors="surrogatepass")) > KEY_MAX


def new_nonce() -> str:
    """A state's identifier in its hidden names: 16 hexadecimal digits."""
    return secrets.token_hex(8)


def mark(nonce: str, path: str) -> str:
    """The ownership mark on a file or an object: the state with this nonce wrote it at this path.

    32 hexadecimal digits.
    """
    return nonce + hashlib.blake2s(path.encode(), digest_size=8).hexdigest()


def hidden(kind: str, nonce: str) -> str:
    """A new hidden name.

    `tmp` is for a file in progress, `old` for a file in replacement, `probe` for a trial object.
    The name never has the extension of a user's file.
    """
    return f".syncloud-{kind}-{nonce}-{secrets.token_hex(8)}"


def is_ours(name: str, kind: str, nonce: str) -> bool:
    """Whether the state with this nonce made the hidden `name`."""
    return name.startswith(f".syncloud-{kind}-{nonce}-")


def is_hidden(path: str) -> bool:
    """Whether any component is a hidden name: such a path is never published and never pulled."""
    return ".syncloud-" in path and any(_HIDDEN.match(part) for part in path.split("/"))


def conflict(path: str, host: str, when: datetime, counter: int, prefix: str = "") -> str:
    """A conflict name: `NAME.conflict-UTC-HOST.EXT`.

    NAME is cut, so that the name has at most 255 and the key at most 1,024 bytes. With a directory
    near that limit, the key may exceed it. An extension above 32 bytes is dropped. A conflict copy
    of a conflict copy replaces the mark instead of adding one.
    """
    parent, _, name = path.rpartition("/")
    stem, dot, extension = _CONFLICT.sub("", name).rpartition(".")
    if not stem:
        stem, dot, extension = _CONFLICT.sub("", name), "", ""
    safe_host = re.sub(r"[^A-Za-z0-9_-]", "-", host)[:32] or "host"
    mark = f".conflict-{when:%Y%m%dT%H%M%SZ}-{safe_host}" + (f"-{counter}" if counter else "")
    ending = mark + dot + extension if len(extension.encode()) <= 32 else mark
    folder = f"{parent}/" if parent else ""
    room = min(NAME_MAX, KEY_MAX - len((prefix + folder).encode())) - len(ending.encode())
    return folder + stem.encode()[: max(room, 1)].decode(errors="ignore") + ending
