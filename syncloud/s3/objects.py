"""An object as HTTP shows it: headers to Entry and back, and the few elements of XML that matter.

Sources: "Working with object metadata"; the form of `mtime` is rclone's (its S3 documentation, "Modification times").
"""

from __future__ import annotations

import calendar
import email.utils
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import NamedTuple

from ..aws import markup
from ..core import checksum, fields, names
from ..core.model import Base, Entry, Tag
from ..errors import Changed, Corrupt, Unavailable

DEFAULT_MODE = 0o644
"""For objects that other tools wrote without a mode."""
MARK = "x-amz-meta-syncloud"
_MTIME = re.compile(r"(-?)(\d{1,11})(?:\.(\d{1,9})\d*)?\Z", re.ASCII)
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_MODE = re.compile(r"[0-7]{3,7}\Z")
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_RESTORED = 'ongoing-request="false"'


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """Which conditional requests the store really obeys, by operation. AWS obeys all of them.

    `untried`: no deletion was allowed, so `delete` is a guess, the careful one.
    """

    put: bool = True
    complete: bool = True
    copy: bool = True
    delete: bool = True
    untried: bool = field(default=False, compare=False)

    @property
    def limitations(self) -> str:
        """What is not as it is with all of them, for people; empty where nothing is."""
        told = [f"{name} ({what})" for name, obeyed, what in self._consequences() if not obeyed]
        return f"this store ignores conditions on {'; '.join(told)}" if told else ""

    def _consequences(self) -> tuple[tuple[str, bool, str], ...]:
        looked = "objects are deleted only where the bucket keeps versions, and only after a look"
        lost = "what somebody else writes between our look and our write is overwritten"
        return (
            ("PUT", self.put, lost),
            ("CompleteMultipartUpload", self.complete, "the same, for as long as a large file is uploaded"),
            ("COPY", self.copy, "renamed files and touched large ones are uploaded again"),
            ("DELETE", self.delete or self.untried, looked),
        )


FULL = StoreCapabilities()


class Part(NamedTuple):
    """Of a multipart upload; `crc` as a header has it, empty where the store is told none."""

    number: int
    etag: str
    crc: str = ""


def is_echo(reported: Entry, base: Base, known: Tag) -> bool:
    """Whether an event is about the very version that the base has."""
    return bool(reported.tag[1]) and reported.tag[:2] == known[:2] and reported.size == base.size


def is_archived(headers: Mapping[str, str]) -> bool:
    """Whether the object is in cold storage, and no restored copy of it can be read."""
    return headers.get("x-amz-storage-class") in _ARCHIVES and _RESTORED not in headers.get("x-amz-restore", "")


def metadata(entry: Entry, nonce: str) -> dict[str, str]:
    """The user metadata that we write, as headers."""
    return {
        "x-amz-meta-mtime": format_mtime(entry.mtime_ns),
        "x-amz-meta-mode": f"{entry.mode:04o}",
        MARK: names.mark(nonce, entry.path),
    }


def tag_of(etag: str, version: str, modified: str = "") -> tuple[str, str, str]:
    """ETag, version id, LastModified in seconds; each empty where it is none. The version `null` is overwritten in place."""
    return (_known(fields.etag, etag), "" if version in ("", "null") else _known(fields.version, version), modified)


def _known(form: Callable[[str], str], text: str) -> str:
    try:
        return form(text)
    except fields.Odd:
        return ""


def pin(entry: Entry) -> str:
    """The ETag as a header of a condition has it. Raises Corrupt where none is known: a condition on it would never hold."""
    if not entry.tag[0]:
        raise Corrupt(entry.path, f"{entry.path}: the store gives no ETag that a condition could name")
    return f'"{entry.tag[0]}"'


def require_whole(path: str, status: int) -> None:
    """Raise Corrupt where an answer is not about a whole object, as it was asked for: a part of one would be taken for it."""
    if status != 200:
        raise Corrupt(path, f"{path}: the answer is {status}, where an object is 200")


def require_part(entry: Entry, status: int, headers: dict[str, str], offset: int, length: int) -> None:
    """Raise Changed where an answer is about another object than `entry`, Corrupt where it is about other bytes of it.

    Both were asked for, and a store that ignores If-Match or Range answers all the same. What is not said contradicts nothing.
    """
    path, etag = entry.path, tag_of(headers.get("etag", ""), "")[0]
    if etag and etag != entry.tag[0]:
        raise Changed(path, f"{path}: the object changed while it was read, and the store ignores If-Match")
    if length == entry.size:
        require_whole(path, status)
        return
    told, asked = headers.get("content-range", ""), f"bytes {offset}-{offset + length - 1}"
    if status != 206 or told not in (f"{asked}/{entry.size}", f"{asked}/*"):
        raise Corrupt(path, f"{path}: {status} {told[:80]!a} came where {asked}/{entry.size} was asked for")


def format_mtime(mtime_ns: int) -> str:
    """Decimal seconds since the epoch, nine digits of fraction, exact."""
    sign, value = ("-", -mtime_ns) if mtime_ns < 0 else ("", mtime_ns)
    return f"{sign}{value // 10**9}.{value % 10**9:09d}"


def parse_mtime(text: str) -> int | None:
    """Nanoseconds; None for what is no plausible time: before 1901 (ext4), or more than 64 bits hold (2262)."""
    match = _MTIME.match(text)
    if match is None:
        return None
    value = int(match[2]) * 10**9 + int((match[3] or "").ljust(9, "0"))
    value = -value if match[1] else value
    return value if -(2**31) * 10**9 <= value < 2**63 else None


def entry_of(path: str, headers: dict[str, str], body: bytes | None, nonce: str, denied: int = 0) -> Entry:
    """What an answer says of the object at `path`. `denied`: permission bits that no object gives.

    Raises Corrupt where the body has not the checksum it came with, or where there is no body and no length either.
    """
    seconds = _modified(headers.get("last-modified", ""))
    tag = tag_of(headers.get("etag", ""), headers.get("x-amz-version-id", ""), "" if seconds is None else str(seconds))
    size = len(body) if body is not None else _length(path, headers.get("content-length", "0"))
    mtime_ns = parse_mtime(headers.get("x-amz-meta-mtime", ""))
    mode = headers.get("x-amz-meta-mode", "")
    told = checksum.decode(headers[checksum.HEADER]) if checksum.HEADER in headers else None
    crc = told if body is None else checksum.update(body)
    if body is not None and told is not None and told != crc:
        raise Corrupt(path, f"{path}: the bytes received do not have the object's checksum")
    return Entry(
        path,
        tag,
        size,
        (seconds or 0) * 10**9 if mtime_ns is None else mtime_ns,
        (int(mode, 8) & 0o777 if _MODE.match(mode) else DEFAULT_MODE) & ~denied,
        crc,
        body,
        headers.get(MARK) == names.mark(nonce, path),
    )


@functools.lru_cache(1024)
def _modified(text: str) -> int | None:
    """Seconds since the epoch; None for what is no time between 1970 and 2262. A second's uploads share one text for it."""
    parsed = email.utils.parsedate(text)
    try:
        seconds = calendar.timegm(parsed) if parsed else -1
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < 2**63 // 10**9 else None


def _length(path: str, text: str) -> int:
    try:
        return fields.size(text)
    except fields.Odd as odd:
        raise Corrupt(path, f"{path}: the answer gives a length that is none: {odd}") from odd


def with_body(entry: Entry, body: bytes) -> Entry:
    return replace(entry, body=body, crc=checksum.update(body))


def with_crc(entry: Entry, crc: int | None) -> Entry:
    return replace(entry, crc=crc)


def etag_of(body: bytes) -> str:
    """The ETag in what CopyObject and CompleteMultipartUpload answer. Raises Unavailable."""
    return required(body, "ETag")


def required(body: bytes, name: str) -> str:
    """What the first element of this name holds, in an answer that must have it. Raises Unavailable: that is no store's."""
    if text := text_of(body, name):
        return text
    raise Unavailable(f"the answer has no {name}", hint="is it a proxy's? check the endpoint and what is on the way to it")


def text_of(body: bytes, name: str) -> str:
    """What the first element of this name holds, in an answer that is XML; empty where there is none."""
    try:
        elements = markup.read(body).iter()
    except markup.UNREADABLE:  # a proxy's page, in whatever encoding
        return ""
    return next((element.text or "" for element in elements if element.tag.rpartition("}")[2] == name), "")


def completion(parts: Iterable[Part]) -> bytes:
    """The body of CompleteMultipartUpload."""
    named = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag, quote=False)}</ETag>"
        + (f"<ChecksumCRC64NVME>{crc}</ChecksumCRC64NVME></Part>" if crc else "</Part>")
        for number, etag, crc in parts
    )
    return f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{named}</CompleteMultipartUpload>'.encode()


def condition(expected: Entry | None) -> dict[str, str]:
    """The header under which a write succeeds only where the object still is `expected` (None: where there is none)."""
    return {"if-none-match": "*"} if expected is None else {"if-match": pin(expected)}
