"""Capability probe: which conditional requests an S3-compatible store really obeys.

AWS obeys all conditions and is never probed. Another store may accept a condition and ignore it,
so a probe with hidden trial objects runs once per endpoint and bucket. Ignored conditions are
logged and degrade the operation: a copy becomes an upload, a write looks first, and a delete needs
a versioned bucket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import quote

from .. import log
from ..core import names
from ..errors import Scope, Unavailable
from . import objects
from .objects import StoreCapabilities
from .response import EARLY, Response
from .transport import Transport

Header = tuple[str, str]
T = TypeVar("T")
_ABSENT, _WRONG = ("if-none-match", "*"), ("if-match", '"00000000000000000000000000000000"')


async def probe(crt: Transport, bucket: str, prefix: str) -> StoreCapabilities:
    """Probe the store with a few small requests, and clean up after them.

    The result is kept for the lifetime of the state, so only answers about the condition count. S3
    defines three: 412 (condition obeyed), 501 or NotImplemented (condition unknown), and a success
    (condition ignored). Raises as `_is_done`; nothing is remembered after an error.
    """
    one, other = (names.key_of(prefix, names.hidden("probe", names.new_nonce())) for _ in range(2))
    (put, copy, delete), (complete,) = await _side_by_side(
        _refuses_small(crt, bucket, one), _refuses_completion(crt, other)
    )
    conditions = StoreCapabilities(
        bool(put), bool(put and complete), bool(put and copy), bool(delete), untried=delete is None
    )
    if conditions.limitations:
        log.warning(
            "store.conditions",
            '%s: see SEMANTICS.md, "Stores without conditions"',
            conditions.limitations,
            bucket=bucket,
        )
    return conditions


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


async def _refuses_small(crt: Transport, bucket: str, key: str) -> tuple[bool, bool, bool | None]:
    """Probe PUT, copy and DELETE, each with a condition that does not hold.

    None for DELETE: this role may not delete.
    """
    created = await crt.request("PUT", key, operation="PutObject", headers=(_ABSENT,), body=b"")
    # The key is new, so a 412 is the answer to a retry of a PUT that had succeeded.
    if created.status != 412 and not _is_done(created, "PutObject", key):
        return False, False, False
    try:
        source = ("x-amz-copy-source", quote(f"{bucket}/{key}", safe="/-_.~"))
        replacing = ("x-amz-metadata-directive", "REPLACE")
        # Some stores obey only one of the two conditions, so both are tried. Neither the PUTs nor
        # the copies can remove the object, so the tries cannot disturb each other.
        both = await _side_by_side(
            *(_refuses(crt, "PUT", key, "PutObject", condition) for condition in (_ABSENT, _WRONG)),
            *(
                _refuses(crt, "PUT", key, "CopyObject", condition, source, replacing)
                for condition in (_ABSENT, _WRONG)
            ),
        )
        put, copy = all(both[:2]), all(both[2:])
        return put, copy, put and await _refuses_deletion(crt, key)
    finally:
        await crt.request("DELETE", key, operation="DeleteObject")


async def _refuses(crt: Transport, method: str, key: str, operation: str, *headers: Header) -> bool:
    body = b"" if operation == "PutObject" else None
    response = await crt.request(method, key, operation=operation, headers=headers, body=body)
    return _is_refused(response, operation, key)


async def _refuses_deletion(crt: Transport, key: str) -> bool | None:
    """None if this role may not delete: a push that never deletes needs no such permission."""
    response = await crt.request("DELETE", key, operation="DeleteObject", headers=(_WRONG,))
    return None if response.status == 403 else _is_refused(response, "DeleteObject", key)


async def _refuses_completion(crt: Transport, key: str) -> tuple[bool]:
    """Probe both conditions with a single multipart upload.

    One upload serves both because SeaweedFS takes a second to abort an upload while its key has
    another one.
    """
    created = await crt.request(
        "POST", key, operation="CreateMultipartUpload", query=(("uploads", ""),), body=b""
    )
    if not _is_done(created, "CreateMultipartUpload", key):
        return (False,)
    upload = ("uploadId", objects.required(created.body, "UploadId"))
    try:
        there, part = await _side_by_side(
            crt.request("PUT", key, operation="PutObject", body=b""),
            crt.request(
                "PUT", key, operation="UploadPart", query=(("partNumber", "1"), upload), body=b"1"
            ),
        )
        if not (_is_done(there, "PutObject", key) and _is_done(part, "UploadPart", key)):
            return (False,)
        body = objects.completion([objects.Part(1, part.headers["etag"])])
        for condition in (_ABSENT, _WRONG):
            done = await crt.request(
                "POST",
                key,
                operation="CompleteMultipartUpload",
                query=(upload,),
                headers=(condition,),
                body=body,
            )
            if done.status != 412:
                break
    finally:
        await _side_by_side(
            crt.request("DELETE", key, operation="AbortMultipartUpload", query=(upload,)),
            crt.request("DELETE", key, operation="DeleteObject"),
        )
    return (_is_refused(done, "CompleteMultipartUpload", key),)


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
    if response.ok:
        if not _is_of_a_store(response, operation):
            raise Unavailable(
                f"try conditional requests on {key}: the answer to {operation} is no store's",
                hint=_NO_STORE,
            )
        return True
    if response.status == 501 or response.code == "NotImplemented":
        return False
    error = response.refusal(f"try conditional requests on {key}")
    raise (
        Unavailable(str(error), code=error.code, hint=error.hint)
        if error.scope is Scope.REQUEST
        else error
    )


def _is_of_a_store(response: Response, operation: str) -> bool:
    """True if a success carries S3's own data: a captive portal answers any request with a page."""
    if operation in ("PutObject", "UploadPart"):
        return bool(response.headers.get("etag"))
    return operation not in EARLY or bool(objects.text_of(response.body, "ETag"))


_NO_STORE = "is it a portal's, or a proxy's? check the endpoint and what is on the way to it"
