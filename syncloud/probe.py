"""Which conditional requests a store really obeys: found out once per endpoint and bucket, by trial, under a hidden name.

AWS obeys all of them and is never probed. Others may accept a condition and ignore it; then the operation is degraded
(a copy becomes an upload, a write looks first, a delete needs a versioned bucket) and that is said.
"""

from __future__ import annotations

from urllib.parse import quote

from . import log, names
from .crt import Crt
from .s3 import Conditions

_ABSENT, _WRONG = ("if-none-match", "*"), ("if-match", '"00000000000000000000000000000000"')


async def probe(crt: Crt, bucket: str, prefix: str) -> Conditions:
    """Four small requests and their clean-up. Raises Unavailable."""
    key = names.key_of(prefix, names.hidden("probe", names.new_nonce()))
    created = await crt.send("PUT", key, operation="PutObject", headers=(_ABSENT,), body=b"")
    # A store that does not know the condition at all says 501.
    put = created.status == 200 and await _refuses(crt, "PUT", key, "PutObject", _ABSENT)
    source = ("x-amz-copy-source", quote(f"{bucket}/{key}", safe="/-_.~"))
    directive = ("x-amz-metadata-directive", "REPLACE")
    copy = put and await _refuses(crt, "PUT", key, "CopyObject", _ABSENT, source, directive)
    delete = put and await _refuses(crt, "DELETE", key, "DeleteObject", _WRONG)
    await crt.send("DELETE", key, operation="DeleteObject")
    conditions = Conditions(put=put, copy=copy, delete=delete)
    ignored = [name for name, obeyed in (("PUT", put), ("COPY", copy), ("DELETE", delete)) if not obeyed]
    if ignored:
        text = "this store ignores conditions on %s: see SEMANTICS.md, \"Stores without conditions\", for what that weakens"
        log.warning("store.conditions", text, " and ".join(ignored), bucket=bucket)
    return conditions


async def _refuses(crt: Crt, method: str, key: str, operation: str, *headers: tuple[str, str]) -> bool:
    body = b"" if operation == "PutObject" else None
    response = await crt.send(method, key, operation=operation, headers=headers, body=body)
    return response.status == 412
