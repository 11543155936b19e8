"""S3 tree: one prefix of a bucket as the source or the target of a sync.

LIST only yields candidates, HEAD and GET observe them, and every write is conditional (`If-Match`,
`If-None-Match: *`). The GET of a small object is its observation: one request. A 404 proves absence
only together with a later, successful LIST. Sources: "Conditional requests", "HeadObject",
"GetObject", "CopyObject", "Working with object metadata" of the Amazon S3 documentation; rclone's
documentation (S3, "Modification times") for the format of `mtime`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import log
from ..aws.error_mapping import translated
from ..core import checksum, names
from ..core.budget import Budget
from ..core.interfaces import Content
from ..core.model import SMALL_BYTES, Absent, Base, Entry, Side, Tag, Unknown
from ..errors import (
    Archived,
    Changed,
    Corrupt,
    Malformed,
    Overlong,
    PathError,
    PermissionRefused,
    Unavailable,
)
from . import listing, multipart, objects, trial
from .copies import Copies
from .request import Body
from .response import or_of_another

if TYPE_CHECKING:
    from .response import Response
    from .transport import Transport

_UNVERSIONED = "bucket %s keeps no versions: what is replaced or deleted there is gone for good; enable versioning on it"
_TAKEN = ("PutObject", "UploadPart")


class S3Tree:
    """A `Tree` of the keys below `prefix`, over the transport `crt`. `s3` makes boto3's client,
    for the first request over TLS only. `denied`: permission bits that no metadata may grant.
    """

    given = taken = 0

    def __init__(
        self,
        crt: Transport,
        s3: Callable[[], Any],
        *,
        bucket: str,
        prefix: str,
        nonce: str,
        conditions: objects.StoreCapabilities = objects.FULL,
        sends_checksum: bool = True,
        uploads: multipart.Uploads | None = None,
        denied: int = 0,
    ) -> None:
        self._transport = crt
        self._s3 = s3
        self.bucket = bucket
        self.prefix = prefix
        self._nonce = nonce
        self.conditions = conditions
        self.sends_checksum = sends_checksum
        self.uploads = uploads
        self._denied = denied
        self.budget = Budget()
        self._copies = Copies(self, self._send)
        self._unversioned = False
        self._trial = ""
        self._checked = False
        self._proof = asyncio.Lock()
        self._proven_at = 0.0

    # Both roles

    def scan(self, under: str = "") -> Iterator[Side]:
        """Yield every key below the prefix as a candidate, in order of UTF-8 bytes. Blocking.

        Raises Unavailable or a subclass, or the error of `Response.refusal`.
        """
        if self._transport.unproven and not self._checked:
            self.check()
        beginning = names.key_of(self.prefix, f"{under}/" if under else "")
        for item in listing.listed(self._transport, f"s3://{self.bucket}/{beginning}", beginning):
            path = names.path_of(self.prefix, item.key)
            if path and not names.is_hidden(path):
                yield self._nominate(path, item)

    def _nominate(self, path: str, item: listing.ObjectSummary) -> Side:
        if reason := names.refusal(path):
            return Unknown(path, reason)
        if path.endswith("/") and item.size:
            return Unknown(path, "the key ends in a slash and has content")
        if item.size is None:
            return Unknown(path, "the listing gives no size for it")
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
            if (
                reported.size <= SMALL_BYTES
                and reported.tag[0]
                and (known is None or reported.tag[0] != known[0])
            ):
                pinned = {"x-amz-checksum-mode": "ENABLED", "if-match": objects.pin(reported)}
                with contextlib.suppress(Overlong):  # the reported size was wrong: HEAD decides
                    response = await self._send(
                        "GET", path, "GetObject", pinned, most=reported.size
                    )
                    if response.status != 412:
                        return await self._sighted(path, response, base, known)
        response = await self._send("HEAD", path, "HeadObject", {"x-amz-checksum-mode": "ENABLED"})
        return await self._sighted(path, response, base, known, head=True)

    async def _sighted(
        self,
        path: str,
        response: Response,
        base: Base | None,
        known: Tag | None,
        *,
        head: bool = False,
    ) -> Side:
        if response.status == 404 and response.code != "NoSuchBucket":
            await self._prove()
            return Absent(path)
        if response.status == 403 and response.code == "InvalidObjectState":
            return Unknown(path, "archived: restore the object first")
        if response.status == 403 and not await asyncio.to_thread(self._is_listed, path):
            if await asyncio.to_thread(self._lists_something):
                return Absent(path)
            return Unknown(
                path, "refused, while nothing at all is listed: that does not prove that it is gone"
            )
        self._require(response, path, "read")
        objects.require_whole(path, response.status)
        headers = response.headers
        if objects.is_archived(headers):
            return Unknown(path, "archived: restore the object first")
        body = None if head else response.body
        entry = objects.entry_of(path, headers, body, self._nonce, self._denied)
        if path.endswith("/") and entry.size:
            return Unknown(path, "the key ends in a slash and has content")
        if (
            entry.crc is None
            and base is not None
            and known is not None
            and entry.tag[0] == known[0]
        ):
            entry = objects.with_crc(entry, base.crc)
        return entry

    def _is_listed(self, path: str) -> bool:
        """True if LIST shows the key. Blocking; raises as `scan`. A role with s3:ListBucket limited
        by s3:prefix may get a 403 for a missing key (GetObject, "Permissions"); LIST is reliable.
        """
        key = names.key_of(self.prefix, path)
        found = listing.first(self._transport, f"s3://{self.bucket}/{key}", key)
        return found is not None and found.key == key

    def _lists_something(self) -> bool:
        """True if LIST shows any key: an empty LIST after a refused read may be a lie. Blocking."""
        return (
            listing.first(self._transport, f"s3://{self.bucket}/{self.prefix}", self.prefix)
            is not None
        )

    async def _prove(self) -> None:
        """Confirm a 404 by a successful LIST that began after it. Concurrent calls share one."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._proof:
            if self._proven_at > asked:
                return
            started = loop.time()
            await loop.run_in_executor(None, self.check)
            self._proven_at = started

    async def reach(self, known: str | None) -> None:
        """Prove that the bucket answers: a HEAD of `known`, if given, is a twelfth of LIST's price.
        Without a success `check` follows, because only LIST shows the reason. Raises as `check`.
        """
        try:
            if known is not None and (await self._send("HEAD", known, "HeadObject", {})).ok:
                return
        except Unavailable:
            if not self._transport.unproven:
                raise
        await asyncio.to_thread(self.check)

    async def try_giving(self, known: Sequence[str]) -> None:
        self.given += await trial.gives(self._send, known)

    async def try_taking(self) -> None:
        self._trial = self._trial or names.hidden("probe", self._nonce)
        self.taken += await trial.takes(self._send, self._trial)

    def check(self) -> None:
        """Prove that the bucket exists and allows listing: one ListObjectsV2, MaxKeys=1. Blocking.

        Raises Unavailable or a subclass, ConfigurationError, or S3's other refusals.
        """
        where = f"s3://{self.bucket}/{self.prefix}"
        if self._transport.unproven:  # boto3 reports a certificate problem at once
            owner = self._transport.owner
            try:
                with translated(f"list {where}", asked=self._transport.region):
                    expected = {"ExpectedBucketOwner": owner} if owner else {}
                    self._s3().list_objects_v2(
                        Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1, **expected
                    )
            except PermissionRefused as error:
                raise or_of_another(error, owner) from error.__cause__
        else:
            listing.first(self._transport, where, self.prefix)
        self._checked = True

    # The source role

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> S3Content:
        """The bytes of an object in parts, all of the observed version."""
        return S3Content(self, entry)

    async def part(self, entry: Entry, offset: int, length: int) -> Sequence[bytes]:
        """One part. Raises Changed if the object was replaced, Archived, Corrupt."""
        headers = {"if-match": objects.pin(entry)}
        if length < entry.size:
            headers["range"] = f"bytes={offset}-{offset + length - 1}"
        try:
            response = await self._send("GET", entry.path, "GetObject", headers, most=length)
        except Overlong as error:
            raise Corrupt(entry.path, str(error), hint=error.hint) from error
        if response.status in (412, 404, 416):
            raise Changed(entry.path, f"{entry.path}: the object changed while it was read")
        if response.status == 403 and response.code == "InvalidObjectState":
            raise Archived(entry.path, f"{entry.path}: archived")
        self._require(response, entry.path, "read")
        objects.require_part(entry, response.status, response.headers, offset, length)
        came = sum(map(len, response.pieces))
        if came != length:
            raise Corrupt(entry.path, f"{entry.path}: {came} bytes came instead of {length}")
        return response.pieces

    async def with_checksum(self, entry: Entry) -> Entry:
        """`entry` with its checksum: from HEAD, else by reading all bytes. Raises Changed."""
        seen = await self.observe(entry.path, None, None)
        if not isinstance(seen, Entry) or seen.tag[0] != entry.tag[0]:
            raise Changed(entry.path, f"{entry.path}: the object changed")
        if seen.crc is not None:
            return seen
        crc = 0
        for offset in range(0, entry.size, SMALL_BYTES):
            crc = checksum.of(
                await self.part(entry, offset, min(SMALL_BYTES, entry.size - offset)), crc
            )
        return objects.with_crc(seen, crc)

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
        headers = objects.metadata(entry, self._nonce) | condition
        if self.sends_checksum and entry.crc is not None:
            headers[checksum.HEADER] = checksum.encode(entry.crc)
        response = await self._send("PUT", entry.path, "PutObject", headers, body=entry.body)
        self._require(response, entry.path, "write")
        return self.written(
            entry, response.headers["etag"], response.headers.get("x-amz-version-id", "")
        )

    async def admit(self, entry: Entry) -> None:
        await self.budget.turn(multipart.part_size(entry.size), entry.size)

    def written(self, entry: Entry, etag: str, version: str) -> Entry:
        tag = objects.tag_of(etag, version)
        if not tag[1] and not self._unversioned:
            self._unversioned = True
            log.warning("bucket.unversioned", _UNVERSIONED, self.bucket, bucket=self.bucket)
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

    async def delete(self, expected: Entry) -> None:
        """Delete the object if still `expected`. Raises Changed; PathError if unprovable."""
        headers = {"if-match": objects.pin(expected)}
        if not self.conditions.delete:
            if not self.keeps_versions(await self.still(expected)):
                raise PathError(
                    expected.path,
                    f"{expected.path}: not deleted: this store ignores conditions on DELETE and keeps no versions",
                    hint="enable versioning on the bucket, or delete the object yourself",
                )
            headers = {}
        response = await self._send("DELETE", expected.path, "DeleteObject", headers)
        self._require(response, expected.path, "delete")

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

    async def _send(
        self,
        method: str,
        path: str,
        operation: str,
        headers: dict[str, str],
        *,
        body: Body | None = None,
        **more: Any,
    ) -> Response:
        """One request; `more` goes to `Transport.request`. Raises PathError for Malformed."""
        key, named = names.key_of(self.prefix, path), tuple(headers.items())
        try:
            response = await self._transport.request(
                method, key, operation=operation, headers=named, body=body, **more
            )
        except Malformed as error:
            raise PathError(path, str(error), code=error.code, hint=error.hint) from error
        if response.ok:
            self.given += operation == "GetObject"
            self.taken += operation in _TAKEN
        return response

    async def request(
        self,
        method: str,
        path: str,
        operation: str,
        query: Iterable[tuple[str, str]],
        headers: dict[str, str],
        *,
        body: Body | None = None,
        deadline: float | None = None,
    ) -> Response:
        """One granted upload request. Raises Changed (failed condition), PathError, Unavailable."""
        response = await self._send(
            method, path, operation, headers, query=query, body=body, deadline=deadline
        )
        self._require(response, path, "write")
        return response

    def metadata(self, entry: Entry) -> dict[str, str]:
        """The user metadata of an uploaded object, as headers."""
        return objects.metadata(entry, self._nonce)

    def _require(self, response: Response, path: str, verb: str) -> None:
        response.require(path, f"{verb} s3://{self.bucket}/{names.key_of(self.prefix, path)}")


class S3Content(Content):
    """The bytes of an object, in parts that are all pinned to one ETag."""

    def __init__(self, tree: S3Tree, entry: Entry) -> None:
        self.entry = entry
        self._tree = tree

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        return await self._tree.part(self.entry, offset, length)

    async def verify(self, crc: int | None) -> None:
        """Compare the checksum of the whole; If-Match has pinned every part. Raises Corrupt."""
        if crc is not None and self.entry.crc is not None and crc != self.entry.crc:
            raise Corrupt(
                self.entry.path,
                f"{self.entry.path}: the bytes received do not have the object's checksum",
            )

    def close(self) -> None:
        pass
