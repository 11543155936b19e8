"""Capability probe: which conditional requests an S3-compatible store really obeys.

AWS obeys all conditions and is never probed. Another store may accept a condition and ignore it,
so a probe with hidden trial objects runs once per endpoint and bucket. Ignored conditions are
logged and degrade the operation: a copy becomes an upload, a write looks first, and a delete needs
a versioned bucket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from .. import log
from ..core import names
from ..errors import Scope, SyncloudError, Unavailable
from . import objects
from .bucket import METHODS
from .objects import StoreCapabilities
from .response import EARLY, Response
from .transport import Transport

Header = tuple[str, str]
T = TypeVar("T")
_ABSENT, _WRONG = ("if-none-match", "*"), ("if-match", '"00000000000000000000000000000000"')
_WARNING = '%s: see SEMANTICS.md, "Stores without conditions"'
_NO_STORE = "a portal or a proxy may have answered; check the endpoint and the way to it"


async def probe(transport: Transport, bucket: str, prefix: str) -> StoreCapabilities:
    """Probe the store with a few small requests, and clean up after them.

    The result is kept for the lifetime of the state, so only answers about the condition count. S3
    defines three: 412 (condition obeyed), 501 or NotImplemented (condition unknown), and a success
    (condition ignored). Raises as `_is_done`; nothing is remembered after an error.
    """
    one, other = (_Trial(transport, names.key_of(prefix, _new_name())) for _ in range(2))
    (put, copy, delete), (complete,) = await _side_by_side(
        _refuses_small(one, bucket), _refuses_completion(other)
    )
    conditions = StoreCapabilities(
        bool(put), bool(put and complete), bool(put and copy), bool(delete), untried=delete is None
    )
    if limitations := conditions.limitations:
        log.warning("store.conditions", _WARNING, limitations, bucket=bucket)
    return conditions


def _new_name() -> str:
    return names.hidden("probe", names.new_nonce())


async def _side_by_side(*tries: Awaitable[T]) -> list[T]:
    """Run `tries` concurrently, because a push waits for the probe, and return their results.

    No try is still running when this function returns or raises. Of several errors, the one of the
    earliest argument is raised.
    """
    found: list[T] = []
    for outcome in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        found.append(outcome)
    return found


class _Trial(NamedTuple):
    """A trial object."""

    transport: Transport
    key: str

    async def send(self, operation: str, *headers: Header, **more: Any) -> Response:
        method = METHODS[operation]
        return await self.transport.request(
            method, self.key, operation=operation, headers=headers, **more
        )

    async def refuses(self, operation: str, *headers: Header, **more: Any) -> bool:
        """True if the store obeys the condition in `headers`. Raises as `_is_done`."""
        return _is_refused(await self.send(operation, *headers, **more), operation, self.key)


async def _refuses_small(trial: _Trial, bucket: str) -> tuple[bool, bool, bool | None]:
    """Probe PUT, copy and DELETE, each with a condition that does not hold.

    None for DELETE: this role may not delete.
    """
    created = await trial.send("PutObject", _ABSENT, body=b"")
    # The key is new, so a 412 is the answer to a retry of a PUT that had succeeded.
    if created.status != 412 and not _is_done(created, "PutObject", trial.key):
        return False, False, False
    try:
        put, copy = await _refuses_writes(trial, bucket)
        return put, copy, put and await _refuses_deletion(trial)
    finally:
        await trial.send("DeleteObject")


async def _refuses_writes(trial: _Trial, bucket: str) -> tuple[bool, bool]:
    """True for PUT, and for copy, if the store obeys both conditions.

    Some stores obey only one of the two, so both are tried. Neither the PUTs nor the copies can
    remove the object, so the tries cannot disturb each other.
    """
    source = ("x-amz-copy-source", quote(f"{bucket}/{trial.key}", safe="/-_.~"))
    replacing = ("x-amz-metadata-directive", "REPLACE")
    both, copied = (_ABSENT, _WRONG), (source, replacing)
    refused = await _side_by_side(
        *(trial.refuses("PutObject", condition, body=b"") for condition in both),
        *(trial.refuses("CopyObject", condition, *copied) for condition in both),
    )
    return all(refused[:2]), all(refused[2:])


async def _refuses_deletion(trial: _Trial) -> bool | None:
    """None if this role may not delete: a push that never deletes needs no such permission."""
    response = await trial.send("DeleteObject", _WRONG)
    return None if response.status == 403 else _is_refused(response, "DeleteObject", trial.key)


async def _refuses_completion(trial: _Trial) -> tuple[bool]:
    """Probe both conditions with a single multipart upload.

    One upload serves both because SeaweedFS takes a second to abort an upload while its key has
    another one.
    """
    created = await trial.send("CreateMultipartUpload", query=(("uploads", ""),), body=b"")
    if not _is_done(created, "CreateMultipartUpload", trial.key):
        return (False,)
    upload = ("uploadId", objects.required(created.body, "UploadId"))
    try:
        body = await _prepared(trial, upload)
        return (body is not None and await _refuses_both(trial, upload, body),)
    finally:
        await _side_by_side(
            trial.send("AbortMultipartUpload", query=(upload,)), trial.send("DeleteObject")
        )


async def _prepared(trial: _Trial, upload: Header) -> bytes | None:
    """The body of a completion, after an object and a part are there; None without them."""
    there, part = await _side_by_side(
        trial.send("PutObject", body=b""),
        trial.send("UploadPart", query=(("partNumber", "1"), upload), body=b"1"),
    )
    if not (_is_done(there, "PutObject", trial.key) and _is_done(part, "UploadPart", trial.key)):
        return None
    return objects.completion([objects.Part(1, part.headers["etag"])])


async def _refuses_both(trial: _Trial, upload: Header, body: bytes) -> bool:
    operation = "CompleteMultipartUpload"
    return await trial.refuses(
        operation, _ABSENT, query=(upload,), body=body
    ) and await trial.refuses(operation, _WRONG, query=(upload,), body=body)


def _is_refused(response: Response, operation: str, key: str) -> bool:
    """True if the store obeyed the condition. Raises as `_is_done`."""
    if response.status == 412:
        return True
    _is_done(response, operation, key)
    return False


def _is_done(response: Response, operation: str, key: str) -> bool:
    """True if the store executed the request, False if the store does not know such requests.

    Any other answer proves nothing about the store, so a later probe must decide. Raises
    Unavailable or a subclass, or ConfigurationError.
    """
    what = f"try conditional requests on {key}"
    if response.ok:
        if not _is_of_a_store(response, operation):
            raise Unavailable(f"{what}: no store answers {operation} like that", hint=_NO_STORE)
        return True
    if response.status == 501 or response.code == "NotImplemented":
        return False
    raise _unproven(response.refusal(what))


def _unproven(error: SyncloudError) -> SyncloudError:
    if error.scope is Scope.REQUEST:
        return Unavailable(str(error), code=error.code, hint=error.hint)
    return error


def _is_of_a_store(response: Response, operation: str) -> bool:
    """True if a success carries S3's own data: a captive portal answers any request with a page."""
    if operation in ("PutObject", "UploadPart"):
        return bool(response.headers.get("etag"))
    return operation not in EARLY or bool(objects.text_of(response.body, "ETag"))
