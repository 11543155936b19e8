"""Multipart upload of a large object: CreateMultipartUpload, UploadPart, CompleteMultipartUpload.

CompleteMultipartUpload carries the condition, because AWS refuses `If-Match` on the other requests.
Sources: "Amazon S3 multipart upload limits" (5 MiB to 5 GiB a part, 10,000 parts),
"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload".
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Any, Protocol

from .. import log
from ..core import checksum
from ..core.budget import Budget
from ..core.interfaces import Content
from ..core.model import SMALL_BYTES, Entry
from ..errors import Changed, Corrupt, HostUnavailable, SyncloudError
from . import objects
from .objects import Part
from .response import Response

PARTS_MAX = 10_000
MAX_IN_FLIGHT_BYTES = 64 * 1024 * 1024
"""Bytes of parts that one object may hold in memory; the store's `budget` bounds all objects."""
COMPLETION_TIMEOUT_S = 300.0
"""Seconds. A completion takes "several minutes", during which S3 sends a space now and then."""
_WHOLE = {"x-amz-checksum-type": "FULL_OBJECT"}


class Uploads(Protocol):
    """Durable registry of open uploads, which survives a crash: upload id to path.

    Methods raise HostUnavailable.
    """

    def open_uploads(self) -> dict[str, str]: ...

    def note_upload(self, upload_id: str, path: str) -> None: ...

    def forget_upload(self, upload_id: str) -> None: ...


class Store(Protocol):
    """The part of S3Tree that an upload needs."""

    sends_checksum: bool
    uploads: Uploads | None
    budget: Budget

    async def request(
        self, operation: str, path: str, headers: dict[str, str], **more: Any
    ) -> Response: ...

    def metadata(self, entry: Entry) -> dict[str, str]: ...

    def written(self, entry: Entry, etag: str, version: str) -> Entry: ...


def part_size(size: int) -> int:
    """Bytes per part: 8 MiB, or as many whole MiB as keep a large object within 10,000 parts."""
    needed = -(-size // PARTS_MAX)
    return max(SMALL_BYTES, -(-needed // 2**20) * 2**20)


async def upload(store: Store, entry: Entry, content: Content, condition: dict[str, str]) -> Entry:
    """Upload the `entry.size` bytes of `content`, and commit them only as one proven state.

    A failed upload is aborted, if the store is still reachable. `abort_leftovers` at the next start
    aborts the uploads that a crash or an outage left open. The bucket's lifecycle rule aborts
    uploads that `Store.uploads` does not know.

    Raises Changed, Unsteady, Corrupt, other PathErrors, Unavailable, HostUnavailable.
    """
    upload_id, whole = await _create(store, entry)
    try:
        parts, crc = await _send(store, entry, content, upload_id)
        headers = condition | (_proof(entry.size, crc) if whole else {})
        written = await _complete(store, entry, upload_id, parts, crc, headers)
    except BaseExceptionGroup as group:
        await _abort(store, entry.path, upload_id)
        raise group.exceptions[0] from group  # the first failure cancelled the other parts
    except BaseException:
        await _abort(store, entry.path, upload_id)
        raise
    _forget(store, upload_id)
    return written


async def abort_leftovers(store: Store) -> None:
    """Abort the uploads that a crash left open: their parts cost money and are invisible."""
    left = {} if store.uploads is None else store.uploads.open_uploads()
    for upload_id, path in left.items():
        await _abort(store, path, upload_id)


async def _create(store: Store, entry: Entry) -> tuple[str, bool]:
    """The upload id, and True if the store promised to keep a checksum of the whole object."""
    headers = store.metadata(entry)
    if store.sends_checksum:
        headers |= {"x-amz-checksum-algorithm": "CRC64NVME"} | _WHOLE
    query = [("uploads", "")]
    answer = await store.request(
        "CreateMultipartUpload", entry.path, headers, query=query, body=b""
    )
    promised = all(answer.headers.get(name) == value for name, value in _WHOLE.items())
    return objects.required(answer.body, "UploadId"), store.sends_checksum and promised


async def _send(
    store: Store, entry: Entry, content: Content, upload_id: str
) -> tuple[list[Part], int]:
    """Send all parts, and prove that they are of one state. Returns as `_send_parts`."""
    if store.uploads is not None:
        store.uploads.note_upload(upload_id, entry.path)
    parts, crc = await _send_parts(store, entry, content, upload_id)
    await content.verify(crc)
    if entry.crc is not None and entry.crc != crc:
        raise Corrupt(entry.path, f"{entry.path}: the second read gave other bytes")
    return parts, crc


def _proof(size: int, crc: int) -> dict[str, str]:
    """Headers with the checksum and the size of the whole object.

    The store compares both before the object becomes readable (CompleteMultipartUpload, "Request
    Parameters").
    """
    return {checksum.HEADER: checksum.encode(crc), "x-amz-mp-object-size": str(size)} | _WHOLE


async def _send_parts(
    store: Store, entry: Entry, content: Content, upload_id: str
) -> tuple[list[Part], int]:
    """Read the parts in order and send them concurrently.

    Returns the parts and the checksum of the whole object.
    """
    size, crc = part_size(entry.size), 0
    buffers = _Buffers(store.budget, size, max(1, MAX_IN_FLIGHT_BYTES // size))
    tasks: list[asyncio.Task[Part]] = []

    async def send(number: int, buffer: io.BytesIO, crc: int) -> Part:
        part = await _send_part(store, entry.path, upload_id, number, buffer, crc)
        buffers.keep(buffer)  # after an answer only: awscrt may still read an abandoned buffer
        return part

    async with asyncio.TaskGroup() as group:
        for number, offset in enumerate(range(0, entry.size, size), 1):
            buffer = await buffers.take(entry.size - offset)
            crc, own = await buffers.fill(buffer, content, offset, crc)
            tasks.append(group.create_task(send(number, buffer, own)))
            tasks[-1].add_done_callback(buffers.give)  # runs even if cancelled before the start
            del buffer  # while the loop waits for the next buffer, this reference would hold memory
    return [task.result() for task in tasks], crc


class _Buffers:
    """Bounded buffer pool of one upload: at most `count` buffers of `size` bytes.

    The shared `budget` grants each buffer. A buffer is reused unless an upload waits for memory,
    because fresh memory costs more than reading the file into it.
    """

    def __init__(self, budget: Budget, size: int, count: int) -> None:
        self._budget = budget
        self._size = size
        self._places = asyncio.Semaphore(count)
        self._kept: list[io.BytesIO] = []

    async def take(self, left: int) -> io.BytesIO:
        """Acquire a buffer for the next part of a file that has `left` bytes still to send."""
        await self._places.acquire()
        if self._budget.is_wanted:
            self._kept.clear()
        try:
            await self._budget.take(self._size, left)
        except asyncio.CancelledError:
            self._places.release()
            raise
        if self._kept and left >= self._size:
            return self._kept.pop()
        return io.BytesIO(bytes(min(left, self._size)))

    async def fill(
        self, buffer: io.BytesIO, content: Content, offset: int, crc: int
    ) -> tuple[int, int]:
        """`Content.fill` into `buffer`; a failure releases the buffer."""
        try:
            # A view that outlives the call in a traceback would keep the buffer from its end.
            with buffer.getbuffer() as room:
                return await content.fill(room, offset, crc)
        except BaseException:
            self.give()
            raise

    def keep(self, buffer: io.BytesIO) -> None:
        if not self._budget.is_wanted and buffer.getbuffer().nbytes == self._size:
            self._kept.append(buffer)

    def give(self, _: object = None) -> None:
        """Release the budget and the slot that `take` acquired."""
        if self._budget.is_wanted:
            self._kept.clear()
        self._budget.give(self._size)
        self._places.release()


async def _send_part(
    store: Store, path: str, upload_id: str, number: int, data: io.BytesIO, crc: int
) -> Part:
    encoded = checksum.encode(crc) if store.sends_checksum else ""
    headers = {checksum.HEADER: encoded} if encoded else {}
    query = [("partNumber", str(number)), ("uploadId", upload_id)]
    answer = await store.request("UploadPart", path, headers, query=query, body=data)
    _compare(path, answer.headers.get(checksum.HEADER, ""), crc, f"part {number}")
    return Part(number, answer.headers["etag"].removeprefix("W/"), encoded)


def _compare(path: str, theirs: str, crc: int, what: str) -> None:
    """Raise Corrupt if the store's checksum differs from the checksum of the bytes sent."""
    if checksum.decode(theirs) not in (None, crc):
        text = f"{path}: the store's checksum of {what} differs from that of the bytes sent"
        raise Corrupt(path, text)


async def _complete(
    store: Store, entry: Entry, upload_id: str, parts: list[Part], crc: int, headers: dict[str, str]
) -> Entry:
    # Each part was compared with its own checksum, and the request names each part's checksum. A
    # store that promised no checksum of the whole might take ours for a part's checksum and refuse
    # the request. For such a store, ours is compared with the checksum in the answer, if any.
    answer = await store.request(
        "CompleteMultipartUpload",
        entry.path,
        headers,
        query=[("uploadId", upload_id)],
        body=objects.completion(parts),
        deadline=COMPLETION_TIMEOUT_S,
    )
    _compare(entry.path, objects.text_of(answer.body, "ChecksumCRC64NVME"), crc, "the whole")
    whole = Entry(entry.path, entry.tag, entry.size, entry.mtime_ns, entry.mode, crc)
    return store.written(whole, objects.etag_of(answer.body), answer.version)


async def _abort(store: Store, path: str, upload_id: str) -> None:
    query = [("uploadId", upload_id)]
    try:
        await store.request("AbortMultipartUpload", path, {}, query=query)
    except Changed:
        pass  # the upload no longer exists
    except SyncloudError as error:
        text = "upload %s of %s could not be aborted: %s"
        log.info("upload.abandoned", text, upload_id, path, error, path=path)
        return
    _forget(store, upload_id)


def _forget(store: Store, upload_id: str) -> None:
    if store.uploads is not None:
        with contextlib.suppress(HostUnavailable):  # a second abort does no harm
            store.uploads.forget_upload(upload_id)
