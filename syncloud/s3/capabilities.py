"""Which conditional requests a store really obeys: found out once per endpoint and bucket, by trial, under hidden names.

AWS obeys all of them and is never probed. Others may accept a condition and ignore it; then the operation is degraded
(a copy becomes an upload, a write looks first, a delete needs a versioned bucket) and that is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import quote

from .. import log
from ..core import names
from ..errors import SyncloudError, Unavailable
from . import objects
from .objects import StoreCapabilities
from .response import EARLY, Response
from .transport import Transport

Header = tuple[str, str]
T = TypeVar("T")
_ABSENT, _WRONG = ("if-none-match", "*"), ("if-match", '"00000000000000000000000000000000"')


async def probe(crt: Transport, bucket: str, prefix: str) -> StoreCapabilities:
    """A few small requests and their clean-up. Raises Unavailable and its kind: what could not be tried is not remembered.

    What is found out is believed for as long as the state lasts, so only three answers count, each of which S3 defines for a
    condition: 412 obeys it, 501 (NotImplemented) does not know it, and what succeeds all the same ignores it.
    """
    one, other = (names.key_of(prefix, names.hidden("probe", names.new_nonce())) for _ in range(2))
    (put, copy, delete), (complete,) = await _side_by_side(_refuses_small(crt, bucket, one), _refuses_completion(crt, other))
    conditions = StoreCapabilities(bool(put), bool(put and complete), bool(put and copy), bool(delete), untried=delete is None)
    if conditions.limitations:
        log.warning(
            "store.conditions", '%s: see SEMANTICS.md, "Stores without conditions"', conditions.limitations, bucket=bucket
        )
    return conditions


async def _side_by_side(*tries: Awaitable[T]) -> list[T]:
    """What each finds, at once, since a push waits for it. Nothing is under way any more when this returns or raises."""
    found: list[T] = []
    for outcome in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        found.append(outcome)
    return found


async def _refuses_small(crt: Transport, bucket: str, key: str) -> tuple[bool, bool, bool | None]:
    """PUT, copy and DELETE, each under a condition that does not hold. None: DELETE may not be tried."""
    created = await crt.request("PUT", key, operation="PutObject", headers=(_ABSENT,), body=b"")
    if created.status != 412 and not _is_done(created, "PutObject", key):  # 412: awscrt has met its own first try
        return False, False, False
    try:
        source = ("x-amz-copy-source", quote(f"{bucket}/{key}", safe="/-_.~"))
        replacing = ("x-amz-metadata-directive", "REPLACE")
        # Some stores obey only one of the two conditions. Whatever they do to the object, it is there afterwards.
        both = await _side_by_side(
            *(_refuses(crt, "PUT", key, "PutObject", condition) for condition in (_ABSENT, _WRONG)),
            *(_refuses(crt, "PUT", key, "CopyObject", condition, source, replacing) for condition in (_ABSENT, _WRONG)),
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
    """None where no deletion is allowed: a push that never deletes needs no permission for it."""
    response = await crt.request("DELETE", key, operation="DeleteObject", headers=(_WRONG,))
    return None if response.status == 403 else _is_refused(response, "DeleteObject", key)


async def _refuses_completion(crt: Transport, key: str) -> tuple[bool]:
    """Of both conditions, and of one upload: SeaweedFS takes a second for one that is aborted beside another of its key."""
    created = await crt.request("POST", key, operation="CreateMultipartUpload", query=(("uploads", ""),), body=b"")
    if not _is_done(created, "CreateMultipartUpload", key):
        return (False,)
    upload = ("uploadId", objects.required(created.body, "UploadId"))
    try:
        there, part = await _side_by_side(
            crt.request("PUT", key, operation="PutObject", body=b""),
            crt.request("PUT", key, operation="UploadPart", query=(("partNumber", "1"), upload), body=b"1"),
        )
        if not (_is_done(there, "PutObject", key) and _is_done(part, "UploadPart", key)):
            return (False,)
        body = objects.completion([objects.Part(1, part.headers["etag"])])
        for condition in (_ABSENT, _WRONG):
            done = await crt.request(
                "POST", key, operation="CompleteMultipartUpload", query=(upload,), headers=(condition,), body=body
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
    """Whether the condition was obeyed. Raises as `_is_done`."""
    if response.status == 412:
        return True
    _is_done(response, operation, key)
    return False


def _is_done(response: Response, operation: str, key: str) -> bool:
    """Whether it was done; False where the store does not know such a request. Every other answer says nothing about the store:
    another time tells. Raises Unavailable and its kind, ConfigurationError.
    """
    if response.ok:
        if not _is_of_a_store(response, operation):
            raise Unavailable(f"try conditional requests on {key}: the answer to {operation} is no store's", hint=_NO_STORE)
        return True
    if response.status == 501 or response.code == "NotImplemented":
        return False
    error = response.refusal(f"try conditional requests on {key}")
    raise Unavailable(str(error), code=error.code, hint=error.hint) if type(error) is SyncloudError else error


def _is_of_a_store(response: Response, operation: str) -> bool:
    """Whether a success has what S3 gives with it; a portal answers anything with a page."""
    if operation in ("PutObject", "UploadPart"):
        return bool(response.headers.get("etag"))
    return operation not in EARLY or bool(objects.text_of(response.body, "ETag"))


_NO_STORE = "is it a portal's, or a proxy's? check the endpoint and what is on the way to it"
