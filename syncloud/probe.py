"""Which conditional requests a store really obeys: found out once per endpoint and bucket, by trial, under a hidden name.

AWS obeys all of them and is never probed. Others may accept a condition and ignore it; then the operation is degraded
(a copy becomes an upload, a write looks first, a delete needs a versioned bucket) and that is said.
"""

from __future__ import annotations

from urllib.parse import quote

from . import log, names
from .crt import Crt, Response
from .errors import SyncloudError, Unavailable
from .objects import Conditions

_ABSENT, _WRONG = ("if-none-match", "*"), ("if-match", '"00000000000000000000000000000000"')


_NOT_KNOWN = (400, 501)
"""What a store says that does not know the condition at all."""


async def probe(crt: Crt, bucket: str, prefix: str) -> Conditions:
    """Four small requests and their clean-up. Raises Unavailable and its kind: what could not be tried is not remembered."""
    key = names.key_of(prefix, names.hidden("probe", names.new_nonce()))
    conditions = await _try(crt, bucket, key)
    obeyed = (("PUT", conditions.put), ("COPY", conditions.copy), ("DELETE", conditions.delete))
    ignored = [name for name, obeys in obeyed if not obeys]
    if ignored:
        text = 'this store ignores conditions on %s: see SEMANTICS.md, "Stores without conditions", for what that weakens'
        log.warning("store.conditions", text, " and ".join(ignored), bucket=bucket)
    return conditions


async def _try(crt: Crt, bucket: str, key: str) -> Conditions:
    created = await crt.send("PUT", key, operation="PutObject", headers=(_ABSENT,), body=b"")
    if not created.ok and created.status != 412:  # 412: awscrt has met its own first try, whose answer was lost
        _require_unknown(created, key)
        return Conditions(put=False, copy=False, delete=False)
    try:
        put = await _refuses(crt, "PUT", key, "PutObject", _ABSENT)
        source = ("x-amz-copy-source", quote(f"{bucket}/{key}", safe="/-_.~"))
        copy = put and await _refuses(crt, "PUT", key, "CopyObject", _ABSENT, source, ("x-amz-metadata-directive", "REPLACE"))
        return Conditions(put=put, copy=copy, delete=put and await _refuses(crt, "DELETE", key, "DeleteObject", _WRONG))
    finally:
        await crt.send("DELETE", key, operation="DeleteObject")


async def _refuses(crt: Crt, method: str, key: str, operation: str, *headers: tuple[str, str]) -> bool:
    body = b"" if operation == "PutObject" else None
    response = await crt.send(method, key, operation=operation, headers=headers, body=body)
    if response.status == 412:
        return True
    # A push that never deletes needs no permission for it.
    if not response.ok and not (operation == "DeleteObject" and response.status == 403):
        _require_unknown(response, key)
    return False


def _require_unknown(response: Response, key: str) -> None:
    if response.status not in _NOT_KNOWN:
        error = response.refusal(f"try conditional requests on {key}")
        # What fits none of these requests (a race, 409) is no reason to end: another time tells.
        raise Unavailable(str(error), code=error.code, hint=error.hint) if type(error) is SyncloudError else error
