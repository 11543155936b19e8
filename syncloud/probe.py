"""Which conditional requests a store really obeys: found out once per endpoint and bucket, by trial, under hidden names.

AWS obeys all of them and is never probed. Others may accept a condition and ignore it; then the operation is degraded
(a copy becomes an upload, a write looks first, a delete needs a versioned bucket) and that is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import quote

from . import log, names, objects
from .crt import Crt
from .errors import SyncloudError, Unavailable
from .objects import Conditions
from .response import Response

Header = tuple[str, str]
T = TypeVar("T")
_ABSENT, _WRONG = ("if-none-match", "*"), ("if-match", '"00000000000000000000000000000000"')

_NOT_KNOWN = (400, 501)
"""What a store says that does not know the condition at all."""


async def probe(crt: Crt, bucket: str, prefix: str) -> Conditions:
    """A few small requests and their clean-up. Raises Unavailable and its kind: what could not be tried is not remembered."""
    one, other = (names.key_of(prefix, names.hidden("probe", names.new_nonce())) for _ in range(2))
    (put, copy, delete), (complete,) = await _side_by_side(_refuses_small(crt, bucket, one), _refuses_completion(crt, other))
    conditions = Conditions(put=put, complete=put and complete, copy=put and copy, delete=delete)
    if conditions.weaker:
        log.warning("store.conditions", '%s: see SEMANTICS.md, "Stores without conditions"', conditions.weaker, bucket=bucket)
    return conditions


async def _side_by_side(*tries: Awaitable[T]) -> list[T]:
    """What each finds, at once, since a push waits for it. Nothing is under way any more when this returns or raises."""
    found: list[T] = []
    for outcome in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        found.append(outcome)
    return found


async def _refuses_small(crt: Crt, bucket: str, key: str) -> tuple[bool, ...]:
    """PUT, copy and DELETE, each under a condition that does not hold."""
    created = await crt.send("PUT", key, operation="PutObject", headers=(_ABSENT,), body=b"")
    if not created.ok and created.status != 412:  # 412: awscrt has met its own first try, whose answer was lost
        _require_unknown(created, key)
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
        return put, copy, put and await _refuses(crt, "DELETE", key, "DeleteObject", _WRONG)
    finally:
        await crt.send("DELETE", key, operation="DeleteObject")


async def _refuses(crt: Crt, method: str, key: str, operation: str, *headers: Header) -> bool:
    body = b"" if operation == "PutObject" else None
    response = await crt.send(method, key, operation=operation, headers=headers, body=body)
    if response.status == 412:
        return True
    # A push that never deletes needs no permission for it.
    if not response.ok and not (operation == "DeleteObject" and response.status == 403):
        _require_unknown(response, key)
    return False


async def _refuses_completion(crt: Crt, key: str) -> tuple[bool]:
    """Of both conditions, and of one upload: SeaweedFS takes a second for one that is aborted beside another of its key."""
    created = await crt.send("POST", key, operation="CreateMultipartUpload", query=(("uploads", ""),), body=b"")
    if not created.ok:
        _require_unknown(created, key)
        return (False,)
    upload = ("uploadId", objects.required(created.body, "UploadId"))
    try:
        there, part = await _side_by_side(
            crt.send("PUT", key, operation="PutObject", body=b""),
            crt.send("PUT", key, operation="UploadPart", query=(("partNumber", "1"), upload), body=b"1"),
        )
        if not there.ok:
            _require_unknown(there, key)
            return (False,)
        body = objects.completion([objects.Part(1, part.headers.get("etag", ""))])
        for condition in (_ABSENT, _WRONG):
            done = await crt.send(
                "POST", key, operation="CompleteMultipartUpload", query=(upload,), headers=(condition,), body=body
            )
            if done.status != 412:
                break
    finally:
        await _side_by_side(
            crt.send("DELETE", key, operation="AbortMultipartUpload", query=(upload,)),
            crt.send("DELETE", key, operation="DeleteObject"),
        )
    if not done.ok and done.status != 412:
        _require_unknown(done, key)
    return (done.status == 412,)


def _require_unknown(response: Response, key: str) -> None:
    if response.status not in _NOT_KNOWN:
        error = response.refusal(f"try conditional requests on {key}")
        # What fits none of these requests (a race, 409) is no reason to end: another time tells.
        raise Unavailable(str(error), code=error.code, hint=error.hint) if type(error) is SyncloudError else error
