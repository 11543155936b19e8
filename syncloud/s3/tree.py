"""S3 tree: one prefix of a bucket as the source or the target of a sync.

LIST only yields candidates, HEAD and GET observe them, and every write is conditional (`If-Match`,
`If-None-Match: *`). The GET of a small object is its observation: one request. Sources:
"Conditional requests", "HeadObject", "GetObject", "CopyObject", "Working with object metadata" of
the Amazon S3 documentation; rclone's documentation (S3, "Modification times") for the format of
`mtime`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from .. import log
from ..core import checksum, names
from ..core.budget import Budget
from ..core.model import SMALL_BYTES, Absent, Base, Entry, Kind, Side, Tag, Unknown, kind_of
from ..errors import Changed, Overlong, PathError, Unavailable
from . import listing, multipart, objects, trial
from .bucket import Bucket
from .content import S3Content
from .copies import Copies
from .presence import Presence

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from ..core.interfaces import Content
    from .response import Response
    from .transport import Transport

_UNVERSIONED = (
    "bucket %s keeps no versions: replaced and deleted objects are lost for good;"
    " enable versioning on the bucket"
)
_ARCHIVED = "archived: restore the object first"
_UNPROVEN = "refused, and the listing is empty: an empty listing proves no absence"


class S3Tree:
    """A `Tree` of the keys below `prefix`, over `transport`. `s3` makes boto3's client, for the
    first request over TLS only. `denied`: permission bits that no metadata may grant.
    """

    def __init__(
        self,
        transport: Transport,
        s3: Callable[[], Any],
        *,
        bucket: str,
        prefix: str,
        nonce: str,
        sends_checksum: bool = True,
        uploads: multipart.Uploads | None = None,
        denied: int = 0,
    ) -> None:
        self._transport = transport
        self.bucket = Bucket(transport, bucket, prefix)
        self.conditions = objects.FULL
        self.sends_checksum = sends_checksum
        self.uploads = uploads
        self.budget = Budget()
        self._nonce = nonce
        self._denied = denied
        self._copies = Copies(self)
        self._presence = Presence(transport, s3, self.bucket)
        self._unversioned = False
        self._trial = ""

    @property
    def given(self) -> int:
        return self.bucket.given

    @property
    def taken(self) -> int:
        return self.bucket.taken

    # Both roles

    def scan(self, under: str = "") -> Iterator[Side]:
        """Yield every key below the prefix as a candidate, in order of UTF-8 bytes. Blocking.

        Raises Unavailable or a subclass, or the error of `Response.refusal`.
        """
        if self._transport.unproven and not self._presence.checked:
            self._presence.check()
        bucket, below = self.bucket, f"{under}/" if under else ""
        begin, prefix = names.key_of(bucket.prefix, below), bucket.prefix
        for item in listing.listed(self._transport, bucket.url(below), begin):
            path = names.path_of(prefix, item.key)
            if path and not names.is_hidden(path):
                yield self._side_of(path, item)

    def _side_of(self, path: str, item: listing.ObjectSummary) -> Side:
        if reason := names.refusal(path):
            return Unknown(path, reason)
        if kind_of(path) is Kind.DIRECTORY and item.size:
            return Unknown(path, "the key ends in a slash and has content")
        if item.size is None:
            return Unknown(path, "the listing gives no size")
        tag = (item.etag, "", "" if item.modified is None else str(item.modified))
        return Entry(path, tag, item.size, (item.modified or 0) * 10**9, objects.DEFAULT_MODE)

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        """Observe the object: by GET if `reported` shows a new ETag and a small size, else by HEAD.

        The GET is pinned to the reported ETag, so a huge successor cannot be returned. An event
        about the very version of `base` is an echo or a duplicate, and costs no request.
        Raises Unavailable or a subclass, ConfigurationError, Corrupt, or another PathError.
        """
        if reason := names.refusal(path):
            return Unknown(path, reason)
        if isinstance(reported, Entry):
            if base is not None and known is not None and objects.is_echo(reported, base, known):
                return Entry(path, known, base.size, base.mtime_ns, base.mode, base.crc)
            etag = reported.tag[0]
            if reported.size <= SMALL_BYTES and etag and (known is None or etag != known[0]):
                response = await self._get(path, reported)
                if response is not None:
                    return await self._sighted(path, response, base, known)
        asked = {"x-amz-checksum-mode": "ENABLED"}
        response = await self.bucket.send("HeadObject", path, asked)
        return await self._sighted(path, response, base, known, head=True)

    async def _get(self, path: str, reported: Entry) -> Response | None:
        """The answer about the reported version; None if HEAD must decide."""
        pinned = {"x-amz-checksum-mode": "ENABLED", "if-match": objects.pin(reported)}
        with contextlib.suppress(Overlong):  # the reported size was wrong
            response = await self.bucket.send("GetObject", path, pinned, most=reported.size)
            return None if response.status == 412 else response
        return None

    async def _sighted(
        self,
        path: str,
        response: Response,
        base: Base | None,
        known: Tag | None,
        *,
        head: bool = False,
    ) -> Side:
        if not response.ok:
            return await self._unreadable(path, response)
        objects.require_whole(path, response.status)
        headers, body = response.headers, None if head else response.body
        if objects.is_archived(headers):
            return Unknown(path, _ARCHIVED)
        entry = objects.entry_of(path, headers, body, self._nonce, self._denied)
        if entry.kind is Kind.DIRECTORY and entry.size:
            return Unknown(path, "the key ends in a slash and has content")
        if entry.crc is None and base is not None and known is not None:
            return objects.with_crc(entry, base.crc) if entry.tag[0] == known[0] else entry
        return entry

    async def _unreadable(self, path: str, response: Response) -> Side:
        """The side behind an answer that is no success. Raises the error of `Response.failure`."""
        if response.status == 404 and response.code != "NoSuchBucket":
            await self._presence.confirm_absence()
            return Absent(path)
        if response.is_archived:
            return Unknown(path, _ARCHIVED)
        if response.status == 403 and not await asyncio.to_thread(self._presence.lists, path):
            anything = await asyncio.to_thread(self._presence.lists_anything)
            return Absent(path) if anything else Unknown(path, _UNPROVEN)
        raise response.failure(path, f"read {self.bucket.url(path)}")

    async def reach(self, known: str | None) -> None:
        """Prove that the bucket answers: a HEAD of `known`, if given, is a twelfth of LIST's price.
        Without a success `check` follows, because only LIST shows the reason. Raises as `check`.
        """
        try:
            if known is not None and (await self.bucket.send("HeadObject", known, {})).ok:
                return
        except Unavailable:
            if not self._transport.unproven:
                raise
        await asyncio.to_thread(self.check)

    def check(self) -> None:
        """Prove that the bucket exists and allows listing. Blocking; raises as `Presence.check`."""
        self._presence.check()

    async def try_giving(self, known: Sequence[str]) -> None:
        gives = await trial.gives(self.bucket.send, known)
        self.bucket.given += gives

    async def try_taking(self) -> None:
        self._trial = self._trial or names.hidden("probe", self._nonce)
        takes = await trial.takes(self.bucket.send, self._trial)
        self.bucket.taken += takes

    # The source role

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> S3Content:
        """The bytes of an object in parts, all of the observed version."""
        return S3Content(self.bucket, entry)

    async def with_checksum(self, entry: Entry) -> Entry:
        """`entry` with its checksum: from HEAD, else by reading all bytes. Raises Changed."""
        seen = await self.still(entry)
        if seen.crc is not None:
            return seen
        return objects.with_crc(seen, await S3Content(self.bucket, entry).checksum())

    def rename_identity(self, entry: Entry) -> Tag | None:
        """None: S3 cannot rename objects."""
        return None

    # The target role

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        """Write `entry` in place of `expected` (None: no object): one PUT, or a multipart upload.

        Raises Changed if the condition fails, also after our own lost success: observe, compare.
        """
        obeyed = self.conditions.complete if entry.body is None else self.conditions.put
        condition = (
            objects.condition(expected) if obeyed else await self._look_first(entry.path, expected)
        )
        if entry.body is None:
            assert content is not None
            return await multipart.upload(self, entry, content, condition)
        headers = self.metadata(entry) | condition
        if self.sends_checksum and entry.crc is not None:
            headers[checksum.HEADER] = checksum.encode(entry.crc)
        response = await self.bucket.send("PutObject", entry.path, headers, body=entry.body)
        self.bucket.require(response, entry.path, "write")
        return self.written(entry, response.headers["etag"], response.version)

    async def admit(self, entry: Entry) -> None:
        await self.budget.turn(multipart.part_size(entry.size), entry.size)

    def written(self, entry: Entry, etag: str, version: str) -> Entry:
        tag = objects.tag_of(etag, version)
        if not tag[1] and not self._unversioned:
            self._unversioned, bucket = True, self.bucket.name
            log.warning("bucket.unversioned", _UNVERSIONED, bucket, bucket=bucket)
        return Entry(entry.path, tag, entry.size, entry.mtime_ns, entry.mode, entry.crc)

    async def _look_first(self, path: str, expected: Entry | None) -> dict[str, str]:
        """Best effort where the store ignores the condition: a look first (see SEMANTICS.md)."""
        now = await self.observe(path, None, None)
        etag = now.tag[0] if isinstance(now, Entry) else None
        if etag != (expected.tag[0] if expected is not None else None):
            raise Changed(path, f"{path}: the object changed meanwhile")
        return {}

    async def touch(self, expected: Entry, source: Entry) -> Entry | None:
        """Set the mtime and mode of `source`: by PUT if its body is known, else by self-copy.

        None if the store cannot copy, and the bytes must be sent again. Raises Changed.
        """
        if source.body is not None:
            return await self.write(source, None, expected)
        return await self._copies.make(expected, source, {"if-match": objects.pin(expected)})

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        """The source's mode: an object's metadata gives nobody rights in the bucket."""
        return source.mode

    async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
        """Copy `origin`, which has equal bytes, to `entry` within S3; None if the copy fails."""
        try:
            return await self._copies.make(origin, entry, {"if-none-match": "*"})
        except Changed:
            return None

    async def delete(self, expected: Entry, keep: Collection[str] = ()) -> None:
        """Delete the object if still `expected`. Raises Changed; PathError if unprovable."""
        headers = {"if-match": objects.pin(expected)}
        if not self.conditions.delete:
            if not self.keeps_versions(await self.still(expected)):
                raise _undeletable(expected.path)
            headers = {}
        response = await self.bucket.send("DeleteObject", expected.path, headers)
        self.bucket.require(response, expected.path, "delete")

    async def still(self, expected: Entry) -> Entry:
        """The object as observed now. Raises Changed unless the object still is `expected`."""
        now = await self.observe(expected.path, None, None)
        if not isinstance(now, Entry) or now.tag[0] != expected.tag[0]:
            raise Changed(expected.path, f"{expected.path}: the object changed meanwhile")
        return now

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        """Keep a conflict copy: returns that path and the object. Raises Changed, PathError."""
        return await self._copies.keep_conflict_copy(entry)

    def keeps_versions(self, entry: Entry) -> bool:
        """True if the object survives an overwrite: only a real version id proves that."""
        return bool(entry.tag[1])

    async def request(
        self, operation: str, path: str, headers: dict[str, str], **more: Any
    ) -> Response:
        """One granted upload request. Raises Changed (failed condition), PathError, Unavailable."""
        response = await self.bucket.send(operation, path, headers, **more)
        self.bucket.require(response, path, "write")
        return response

    def metadata(self, entry: Entry) -> dict[str, str]:
        """The user metadata of an uploaded object, as headers."""
        return objects.metadata(entry, self._nonce)


def _undeletable(path: str) -> PathError:
    return PathError(
        path,
        f"{path}: not deleted: this store ignores conditions on DELETE and keeps no versions",
        hint="enable versioning on the bucket, or delete the object yourself",
    )
