"""Server-side copies, and the copy that keeps an object under a conflict name.

A copy is only an optimisation. If the store refuses a copy, times out or cannot copy that size, the
bytes are transferred. Source: "CopyObject" of the Amazon S3 API reference (5 GiB limit; a 200 may
carry an error).
"""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import quote

from .. import log
from ..core import names
from ..core.interfaces import Content
from ..core.model import SMALL_BYTES, Absent, Base, Entry, Side, Tag
from ..errors import Changed, PathError, Scope, SyncloudError, Unavailable
from . import objects
from .bucket import Bucket
from .response import Response

COPY_MAX_BYTES = 5 * 1024**3
"""Bytes: CopyObject's limit."""
COPY_TIMEOUT_S = 30.0
SLOWEST_BYTES_PER_S = 10_000_000
"""Deadline of a copy: `COPY_TIMEOUT_S` seconds plus the size at `SLOWEST_BYTES_PER_S`.

A store answers only after the copy is complete.
"""
MAX_NAMES = 8
"""Upper bound on the conflict names tried, because some stores never match their own ETags."""
_FOR_GOOD = (404, 409, 412)
"""HTTP statuses that mean a failed condition."""


class Store(Protocol):
    """The part of S3Tree that copies need."""

    bucket: Bucket
    conditions: objects.StoreCapabilities

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side: ...

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> Content: ...

    async def write(
        self, entry: Entry, content: Content | None, expected: Entry | None
    ) -> Entry: ...

    async def still(self, expected: Entry) -> Entry: ...

    def metadata(self, entry: Entry) -> dict[str, str]: ...

    def written(self, entry: Entry, etag: str, version: str) -> Entry: ...


class Copies:
    """Server-side copies within one `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def make(self, origin: Entry, entry: Entry, condition: dict[str, str]) -> Entry | None:
        """Create `entry` as a copy of the object `origin`; None if the bytes must be transferred.

        Raises Changed if a condition fails, Corrupt if `origin` has no ETag, other PathErrors,
        CredentialsError, Overlong, and Unavailable if the answer has no ETag.
        """
        if not self._store.conditions.copy:
            return None
        headers = self._store.metadata(entry) | condition | {"x-amz-metadata-directive": "REPLACE"}
        response = await self._copied(origin, entry.path, headers)
        if response is None:
            return None
        return self._store.written(entry, objects.etag_of(response.body), response.version)

    async def _copied(self, origin: Entry, path: str, headers: dict[str, str]) -> Response | None:
        """The answer to a successful copy; None if the store made no copy. Raises Changed.

        Only a plain Unavailable or a refusal counts as "no copy". Other errors are raised.
        """
        if origin.size > COPY_MAX_BYTES:
            return None
        response = await self._send(origin, path, headers)
        if response is None:
            return None
        if response.status in _FOR_GOOD and response.code != "NoSuchBucket":
            raise Changed(path, f"{path}: the object changed meanwhile", code=response.code)
        if not response.ok:
            _log_refusal(path, response.refusal(f"copy to {self._store.bucket.url(path)}"))
            return None
        return response

    async def _send(self, origin: Entry, path: str, headers: dict[str, str]) -> Response | None:
        deadline = COPY_TIMEOUT_S + origin.size / SLOWEST_BYTES_PER_S
        headers, send = self._origin(origin) | headers, self._store.bucket.send
        try:
            return await send("CopyObject", path, headers, deadline=deadline)
        except Unavailable as error:
            if error.scope is not Scope.STORE:
                raise
            _log_refusal(path, error)
            return None

    def _origin(self, origin: Entry) -> dict[str, str]:
        bucket = self._store.bucket
        source = quote(f"{bucket.name}/{names.key_of(bucket.prefix, origin.path)}", safe="/-_.~")
        return {"x-amz-copy-source": source, "x-amz-copy-source-if-match": objects.pin(origin)}

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        """Keep the object under a conflict name as well. Returns that path and the object.

        Raises Changed if the object changed, PathError if the store refused `MAX_NAMES` names.
        """
        host, now, prefix = socket.gethostname(), datetime.now(UTC), self._store.bucket.prefix
        for counter in range(MAX_NAMES):
            aside = names.conflict(entry.path, host, now, counter, prefix)
            try:
                if not await self._copied_aside(entry, aside):
                    await self._carried_aside(entry, aside)
                return aside, entry
            except Changed:
                await self._store.still(entry)
        raise _no_name(entry.path)

    async def _copied_aside(self, entry: Entry, aside: str) -> bool:
        if self._store.conditions.copy:
            return await self._copied(entry, aside, {"if-none-match": "*"}) is not None
        if entry.size <= SMALL_BYTES:
            return False
        if not isinstance(await self._store.observe(aside, None, None), Absent):
            raise Changed(aside, f"{aside}: the name is taken")
        return await self._copied(entry, aside, {}) is not None

    async def _carried_aside(self, entry: Entry, aside: str) -> None:
        content = await self._store.open(entry)
        try:
            copy = replace(entry, path=aside, crc=None, body=None)
            if entry.size <= SMALL_BYTES:
                body = b"".join(await content.part(0, entry.size))
                copy = objects.with_body(copy, body)
            await self._store.write(copy, content if copy.body is None else None, None)
        finally:
            content.close()


def _log_refusal(path: str, refusal: SyncloudError) -> None:
    text = "%s: sent instead of copied: %s"
    log.info("copy.refused", text, path, refusal, path=path, error=refusal)


def _no_name(path: str) -> PathError:
    return PathError(
        path,
        f"{path}: not kept under a conflict name:"
        f" the store refused {MAX_NAMES} names, and the object is unchanged",
        hint="check whether a proxy on the way to the store changes its ETags",
    )
