"""Codec between objects and HTTP: headers to `Entry` and back, and the XML elements in use.

Sources: "Working with object metadata"; the format of `mtime` is rclone's (its S3 documentation,
"Modification times").
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
"""Permission bits for objects that other tools wrote without a mode."""
MARK = "x-amz-meta-syncloud"
_MTIME = re.compile(r"(-?)(\d{1,11})(?:\.(\d{1,9})\d*)?\Z", re.ASCII)
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_MODE = re.compile(r"[0-7]{3,7}\Z")
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_RESTORED = 'ongoing-request="false"'


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """Capabilities: which conditional requests the store really obeys, by operation.

    AWS obeys all conditions. `untried` means that the probe had no permission to delete, so
    `delete` is a guess on the safe side.
    """

    put: bool = True
    complete: bool = True
    copy: bool = True
    delete: bool = True
    untried: bool = field(default=False, compare=False)

    @property
    def limitations(self) -> str:
        """Human-readable consequences of ignored conditions; empty if the store obeys all."""
        ignored = [f"{name} ({what})" for name, obeyed, what in self._consequences() if not obeyed]
        return f"this store ignores conditions on {'; '.join(ignored)}" if ignored else ""

    def _consequences(self) -> tuple[tuple[str, bool, str], ...]:
        looked = "objects are deleted only where the bucket keeps versions, and only after a look"
        lost = "a write of another program between our look and our write is overwritten"
        large = "the same, for as long as a large file is uploaded"
        return (
            ("PUT", self.put, lost),
            ("CompleteMultipartUpload", self.complete, large),
            ("COPY", self.copy, "renamed files and touched large ones are uploaded again"),
            ("DELETE", self.delete or self.untried, looked),
        )


FULL = StoreCapabilities()


class Part(NamedTuple):
    """One part of a multipart upload. `crc` is in header format, and empty if none is sent."""

    number: int
    etag: str
    crc: str = ""


def is_echo(reported: Entry, base: Base, known: Tag) -> bool:
    """True if an event describes the very version that the base row has."""
    return bool(reported.tag[1]) and reported.tag[:2] == known[:2] and reported.size == base.size


def is_archived(headers: Mapping[str, str]) -> bool:
    """True if the object is in cold storage and has no readable restored copy."""
    if headers.get("x-amz-storage-class") not in _ARCHIVES:
        return False
    return _RESTORED not in headers.get("x-amz-restore", "")


def metadata(entry: Entry, nonce: str) -> dict[str, str]:
    """The user metadata of an uploaded object, as headers."""
    return {
        "x-amz-meta-mtime": format_mtime(entry.mtime_ns),
        "x-amz-meta-mode": f"{entry.mode:04o}",
        MARK: names.mark(nonce, entry.path),
    }


def tag_of(etag: str, version: str, modified: str = "") -> tuple[str, str, str]:
    """The tag: ETag, version id, and LastModified in seconds; an unknown field is empty.

    The version id `null` is dropped, because a write replaces that version in place.
    """
    lasting = "" if version in ("", "null") else _known(fields.version, version)
    return _known(fields.etag, etag), lasting, modified


def _known(form: Callable[[str], str], text: str) -> str:
    try:
        return form(text)
    except fields.Odd:
        return ""


def pin(entry: Entry) -> str:
    """The ETag in the format of a condition's header.

    Raises Corrupt if the ETag is unknown, because a condition on an empty ETag would never hold.
    """
    if not entry.tag[0]:
        raise Corrupt(entry.path, f"{entry.path}: the store gives no ETag for a condition")
    return f'"{entry.tag[0]}"'


def require_whole(path: str, status: int) -> None:
    """Raise Corrupt unless the answer is a whole object: a part could be taken for the whole."""
    if status != 200:
        raise Corrupt(path, f"{path}: the answer has status {status} instead of 200")


def require_part(
    entry: Entry, status: int, headers: dict[str, str], offset: int, length: int
) -> None:
    """Raise Changed for an answer about another object than `entry`, Corrupt for other bytes.

    The check is needed because a store may ignore If-Match or Range and still answer. A missing
    ETag passes. A partial answer must be a 206 with the requested Content-Range.
    """
    path, etag = entry.path, tag_of(headers.get("etag", ""), "")[0]
    if etag and etag != entry.tag[0]:
        text = "the object changed while it was read, and the store ignores If-Match"
        raise Changed(path, f"{path}: {text}")
    if length == entry.size:
        require_whole(path, status)
        return
    came, asked = headers.get("content-range", ""), f"bytes {offset}-{offset + length - 1}"
    if status != 206 or came not in (f"{asked}/{entry.size}", f"{asked}/*"):
        text = f"{status} {came[:80]!a} came instead of {asked}/{entry.size}"
        raise Corrupt(path, f"{path}: {text}")


def format_mtime(mtime_ns: int) -> str:
    """Exact decimal seconds since the epoch, with nine digits of fraction."""
    sign, value = ("-", -mtime_ns) if mtime_ns < 0 else ("", mtime_ns)
    return f"{sign}{value // 10**9}.{value % 10**9:09d}"


def parse_mtime(text: str) -> int | None:
    """Nanoseconds since the epoch; None for an implausible time.

    Plausible times begin in 1901 (the limit of ext4) and end in 2262 (the limit of 64 bits).
    """
    match = _MTIME.match(text)
    if match is None:
        return None
    value = int(match[2]) * 10**9 + int((match[3] or "").ljust(9, "0"))
    value = -value if match[1] else value
    return value if -(2**31) * 10**9 <= value < 2**63 else None


def entry_of(
    path: str, headers: dict[str, str], body: bytes | None, nonce: str, denied: int = 0
) -> Entry:
    """Build the `Entry` of the object at `path` from an answer.

    `denied` holds permission bits that no object may grant. Raises Corrupt if the body does not
    match its checksum, or if an answer without a body gives no length: a HEAD may lack it (RFC
    9110, section 8.6), and a guess would make an empty file of any object.
    """
    size = len(body) if body is not None else _length(path, headers.get("content-length", ""))
    seconds = _modified(headers.get("last-modified", ""))
    modified = "" if seconds is None else str(seconds)
    mtime_ns = parse_mtime(headers.get("x-amz-meta-mtime", ""))
    if mtime_ns is None:
        mtime_ns = (seconds or 0) * 10**9
    mode = headers.get("x-amz-meta-mode", "")
    return Entry(
        path,
        tag_of(headers.get("etag", ""), headers.get("x-amz-version-id", ""), modified),
        size,
        mtime_ns,
        (int(mode, 8) & 0o777 if _MODE.match(mode) else DEFAULT_MODE) & ~denied,
        _crc(path, headers, body),
        body,
        headers.get(MARK) == names.mark(nonce, path),
    )


def _crc(path: str, headers: Mapping[str, str], body: bytes | None) -> int | None:
    """The checksum of the object, compared with `body` if there is one. Raises Corrupt."""
    stored = checksum.decode(headers[checksum.HEADER]) if checksum.HEADER in headers else None
    if body is None:
        return stored
    crc = checksum.update(body)
    if stored is not None and stored != crc:
        raise Corrupt(path, f"{path}: the bytes received do not have the object's checksum")
    return crc


@functools.lru_cache(1024)
def _modified(text: str) -> int | None:
    """Seconds since the epoch; None for a text that is no time between 1970 and 2262.

    The cache pays off because uploads of the same second share one text.
    """
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
        raise Corrupt(path, f"{path}: the answer has an invalid length: {odd}") from odd


def with_body(entry: Entry, body: bytes) -> Entry:
    return replace(entry, body=body, crc=checksum.update(body))


def with_crc(entry: Entry, crc: int | None) -> Entry:
    return replace(entry, crc=crc)


def etag_of(body: bytes) -> str:
    """The ETag in an answer to CopyObject or CompleteMultipartUpload. Raises Unavailable."""
    return required(body, "ETag")


def required(body: bytes, name: str) -> str:
    """The text of the first element called `name`. Raises Unavailable if the element is missing.

    The error is Unavailable because such an answer comes from a proxy, not from a store.
    """
    if text := text_of(body, name):
        return text
    raise Unavailable(
        f"the answer has no {name}",
        hint="a portal or a proxy may have answered; check the endpoint and the way to it",
    )


def text_of(body: bytes, name: str) -> str:
    """The text of the first element called `name` in an XML answer; empty if there is none."""
    try:
        elements = markup.read(body).iter()
    except markup.UNREADABLE:  # a proxy's page, in any encoding
        return ""
    texts = (element.text for element in elements if element.tag.rpartition("}")[2] == name)
    return next(texts, "") or ""


def completion(parts: Iterable[Part]) -> bytes:
    """The request body of CompleteMultipartUpload."""
    named = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag, quote=False)}</ETag>"
        + (f"<ChecksumCRC64NVME>{crc}</ChecksumCRC64NVME></Part>" if crc else "</Part>")
        for number, etag, crc in parts
    )
    return (
        f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{named}</CompleteMultipartUpload>'.encode()
    )


def condition(expected: Entry | None) -> dict[str, str]:
    """The condition header of a write: the object must still be `expected`, or absent for None."""
    return {"if-none-match": "*"} if expected is None else {"if-match": pin(expected)}
