"""One object is asked for, or put, for no other reason than to see whether any is given, or taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from ..errors import Overlong, SyncloudError
from .response import Response

Send = Callable[..., Awaitable[Response]]
"""S3Tree's: method, path, operation, headers and `body`."""


async def gives(send: Send, paths: Iterable[str]) -> bool:
    """Whether the first byte of any of these objects comes."""
    for path in paths:
        try:
            answer = await send("GET", path, "GetObject", {"range": "bytes=0-0"}, most=1)
        except Overlong:  # it does not know ranges, but gives
            return True
        except SyncloudError:
            continue
        if answer.ok or answer.status == 416:  # an empty object has no first byte
            return True
    return False


async def takes(send: Send, path: str) -> bool:
    """Whether an object can be put, which goes again, where that is allowed. Raises Unavailable and its kind."""
    taken = (await send("PUT", path, "PutObject", {}, body=b"1")).ok
    if taken:
        await send("DELETE", path, "DeleteObject", {})
    return taken
