"""S3Tree: the keys below a prefix of a bucket, as source and as target.

LIST nominates; HEAD and GET observe; every write carries its condition (`If-Match`, `If-None-Match: *`). A 404 proves absence
only together with a LIST that the bucket answers afterwards. A small object's GET is its look: one request.

Sources: "Conditional requests", "HeadObject", "GetObject", "CopyObject" and "Working with object metadata" of the Amazon S3
documentation; the form of `mtime` is rclone's (docs, S3, "Modification times").
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
from ..errors import Archived, Changed, Corrupt, Malformed, Overlong, PathError, PermissionRefused, SyncloudError, Unavailable
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
    """`crt`: every request but the first one over TLS, which is for boto3's client; `s3` makes that. `denied`: permission
    bits that no object's metadata gives to a file.
    """

    role = "push"
    written_event = "push.uploaded"
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

    # As both

    def scan(self, under: str = "") -> Iterator[Side]:
        """Every key below the prefix, in the order of its UTF-8 bytes. Blocking: for a thread. Only nominates.

        Raises Unavailable and its kind.
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
        self, path: str, base: Base | None, known: Tag | None, *, reported: Side | None = None, deadline_passed: bool = False
    ) -> Side:
        """Look now: GET where a listing or an event promised other bytes and few of them, HEAD otherwise.

        The GET is pinned to the ETag that was promised, so that it cannot turn out to be a huge one.
        An event about the very version that the base has is an echo, or came twice: nothing is asked.
        Raises Unavailable and its kind, Corrupt.
        """
        if reason := names.refusal(path):
            return Unknown(path, reason)
        if isinstance(reported, Entry):
            if base is not None and known is not None and objects.is_echo(reported, base, known):
                return Entry(path, known, base.size, base.mtime_ns, base.mode, base.crc)
            if reported.size <= SMALL_BYTES and reported.tag[0] and (known is None or reported.tag[0] != known[0]):
                pinned = {"x-amz-checksum-mode": "ENABLED", "if-match": objects.pin(reported)}
                with contextlib.suppress(Overlong):  # so the promise was wrong: HEAD tells
                    response = await self._send("GET", path, "GetObject", pinned, most=reported.size)
                    if response.status != 412:
                        return await self._sighted(path, response, base, known)
        response = await self._send("HEAD", path, "HeadObject", {"x-amz-checksum-mode": "ENABLED"})
        return await self._sighted(path, response, base, known, head=True)

    async def _sighted(
        self, path: str, response: Response, base: Base | None, known: Tag | None, *, head: bool = False
    ) -> Side:
        if response.status == 404 and response.code != "NoSuchBucket":
            await self._prove()
            return Absent(path)
        if response.status == 403 and response.code == "InvalidObjectState":
            return Unknown(path, "archived: restore the object first")
        if response.status == 403 and not await asyncio.to_thread(self._is_listed, path):
            if await asyncio.to_thread(self._lists_something):
                return Absent(path)
            return Unknown(path, "refused, while nothing at all is listed: that does not prove that it is gone")
        self._require(response, path, "read")
        objects.require_whole(path, response.status)
        headers = response.headers
        if objects.is_archived(headers):
            return Unknown(path, "archived: restore the object first")
        body = None if head else response.body
        entry = objects.entry_of(path, headers, body, self._nonce, self._denied)
        if path.endswith("/") and entry.size:
            return Unknown(path, "the key ends in a slash and has content")
        if entry.crc is None and base is not None and known is not None and entry.tag[0] == known[0]:
            entry = objects.with_crc(entry, base.crc)
        return entry

    def _is_listed(self, path: str) -> bool:
        """Whether LIST shows the key. A role whose s3:ListBucket is limited by s3:prefix may be told 403 for a missing key
        (GetObject, "Permissions"); LIST, which it may, tells the truth. Blocking. Raises PermissionRefused and its kind.
        """
        key = names.key_of(self.prefix, path)
        found = listing.first(self._transport, f"s3://{self.bucket}/{key}", key)
        return found is not None and found.key == key

    def _lists_something(self) -> bool:
        """Whether LIST shows any key: one that shows none, to a role that is refused objects, may be lying. Blocking."""
        return listing.first(self._transport, f"s3://{self.bucket}/{self.prefix}", self.prefix) is not None

    async def _prove(self) -> None:
        """A 404 is believed only if the bucket answers a LIST that began after it. One proof serves all that wait for it."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._proof:
            if self._proven_at > asked:
                return
            started = loop.time()
            await loop.run_in_executor(None, self.check)
            self._proven_at = started

    async def reach(self, known: str | None) -> None:
        """As `check`; where `known` should be an object by its HEAD, at a twelfth of LIST's price. LIST says what is wrong."""
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
        """Prove that the bucket is there and may be listed: one ListObjectsV2 with MaxKeys=1. Blocking.

        Raises Unavailable and its kind, ConfigurationError.
        """
        where = f"s3://{self.bucket}/{self.prefix}"
        if self._transport.unproven:  # boto3 says at once what is wrong with a certificate
            owner = self._transport.owner
            try:
                with translated(f"list {where}", asked=self._transport.region):
                    expected = {"ExpectedBucketOwner": owner} if owner else {}
                    self._s3().list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1, **expected)
            except PermissionRefused as error:
                raise or_of_another(error, owner) from error.__cause__
        else:
            listing.first(self._transport, where, self.prefix)
        self._checked = True

    # As the source

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> S3Content:
        """The bytes of an object in parts, all of the version that was seen."""
        return S3Content(self, entry)

    async def part(self, entry: Entry, offset: int, length: int) -> Sequence[bytes]:
        """Raises Changed where the object is another one now, Archived."""
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
        """`entry` with its checksum: from HEAD, else by reading it all. Raises Changed."""
        seen = await self.observe(entry.path, None, None)
        if not isinstance(seen, Entry) or seen.tag[0] != entry.tag[0]:
            raise Changed(entry.path, f"{entry.path}: the object changed")
        if seen.crc is not None:
            return seen
        crc = 0
        for offset in range(0, entry.size, SMALL_BYTES):
            crc = checksum.of(await self.part(entry, offset, min(SMALL_BYTES, entry.size - offset)), crc)
        return objects.with_crc(seen, crc)

    def rename_identity(self, entry: Entry) -> Tag | None:
        """Objects are not renamed."""
        return None

    # As the target

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        """Make the object what `entry` is, provided it still is `expected`: one PUT, or a multipart upload.

        Raises Changed where the condition fails (also where our own lost success makes it fail: observe, compare).
        """
        obeyed = self.conditions.complete if entry.body is None else self.conditions.put
        condition = objects.condition(expected) if obeyed else await self._look_first(entry.path, expected)
        if entry.body is None:
            assert content is not None
            return await multipart.upload(self, entry, content, condition)
        headers = objects.metadata(entry, self._nonce) | condition
        if self.sends_checksum and entry.crc is not None:
            headers[checksum.HEADER] = checksum.encode(entry.crc)
        response = await self._send("PUT", entry.path, "PutObject", headers, body=entry.body)
        self._require(response, entry.path, "write")
        return self.written(entry, response.headers["etag"], response.headers.get("x-amz-version-id", ""))

    async def admit(self, entry: Entry) -> None:
        await self.budget.turn(multipart.part_size(entry.size), entry.size)

    def written(self, entry: Entry, etag: str, version: str) -> Entry:
        tag = objects.tag_of(etag, version)
        if not tag[1] and not self._unversioned:
            self._unversioned = True
            log.warning("bucket.unversioned", _UNVERSIONED, self.bucket, bucket=self.bucket)
        return Entry(entry.path, tag, entry.size, entry.mtime_ns, entry.mode, entry.crc)

    async def _look_first(self, path: str, expected: Entry | None) -> dict[str, str]:
        """Instead of a condition that the store ignores: the best there is. SEMANTICS.md says what is weaker."""
        now = await self.observe(path, None, None)
        etag = now.tag[0] if isinstance(now, Entry) else None
        if etag != (expected.tag[0] if expected is not None else None):
            raise Changed(path, f"{path}: the object changed meanwhile")
        return {}

    async def touch(self, expected: Entry, source: Entry) -> Entry | None:
        """Give the object the source's mtime and mode: with the body at hand a PUT, else a conditional copy onto itself.

        None where the store cannot do it: then the bytes must travel again. Raises Changed.
        """
        if source.body is not None:
            return await self.write(source, None, expected)
        return await self._copies.make(expected, source, {"if-match": objects.pin(expected)})

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        """What an object's metadata says gives nobody rights in the bucket."""
        return source.mode

    async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
        """Make `entry` from the object `origin`, which has the same bytes, without sending them; None where that fails."""
        try:
            return await self._copies.make(origin, entry, {"if-none-match": "*"})
        except Changed:
            return None

    async def delete(self, expected: Entry) -> None:
        """Remove the object, provided it is `expected`. Raises Changed; PathError where that cannot be made sure."""
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
        """The object as it is now, if it still is `expected`. Raises Changed."""
        now = await self.observe(expected.path, None, None)
        if not isinstance(now, Entry) or now.tag[0] != expected.tag[0]:
            raise Changed(expected.path, f"{expected.path}: the object changed meanwhile")
        return now

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        """Keep the object under a conflict name too: that path, and the object. Raises Changed."""
        return await self._copies.keep_conflict_copy(entry)

    def keeps_versions(self, entry: Entry) -> bool:
        """Whether an overwritten object stays as a version: only a real version id says so."""
        return bool(entry.tag[1])

    async def _send(
        self, method: str, path: str, operation: str, headers: dict[str, str], *, body: Body | None = None, **more: Any
    ) -> Response:
        """`more` is as `Transport.send` takes it."""
        key, named = names.key_of(self.prefix, path), tuple(headers.items())
        try:
            response = await self._transport.request(method, key, operation=operation, headers=named, body=body, **more)
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
        """One request of a multipart upload, granted. Raises Changed for a failed condition, PathError, Unavailable."""
        response = await self._send(method, path, operation, headers, query=query, body=body, deadline=deadline)
        self._require(response, path, "write")
        return response

    def metadata(self, entry: Entry) -> dict[str, str]:
        """The user metadata that we write, as headers."""
        return objects.metadata(entry, self._nonce)

    def _require(self, response: Response, path: str, verb: str) -> None:
        """Raise what a status that is no success means."""
        if response.ok:
            return
        if response.status in (404, 409, 412) and response.code != "NoSuchBucket":
            raise Changed(path, f"{path}: the object changed meanwhile", code=response.code)
        error = response.refusal(f"{verb} s3://{self.bucket}/{names.key_of(self.prefix, path)}")
        if type(error) is SyncloudError:  # what S3 has against this request is this path's affair
            raise PathError(path, str(error), code=error.code, hint=error.hint, request_id=error.request_id)
        raise error


class S3Content(Content):
    """An object's bytes, in parts that are all pinned to one ETag."""

    def __init__(self, tree: S3Tree, entry: Entry) -> None:
        self.entry = entry
        self._tree = tree

    async def part(self, offset: int, length: int) -> Sequence[bytes]:
        return await self._tree.part(self.entry, offset, length)

    async def verify(self, crc: int | None) -> None:
        """Every part was pinned by If-Match; the whole has the object's checksum."""
        if crc is not None and self.entry.crc is not None and crc != self.entry.crc:
            raise Corrupt(self.entry.path, f"{self.entry.path}: the bytes received do not have the object's checksum")

    def close(self) -> None:
        pass
