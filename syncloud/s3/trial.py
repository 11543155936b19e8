"""Active health probes: a trial GET and a trial PUT, to see if the store still serves objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from ..errors import Overlong, SyncloudError
from .response import Response

Send = Callable[..., Awaitable[Response]]
"""Type of `Bucket.send`: operation, path, headers, `body` and `most`."""


async def gives(send: Send, paths: Iterable[str]) -> bool:
    """True if the first byte of any of these objects can be read; errors count as no."""
    for path in paths:
        try:
            answer = await send("GetObject", path, {"range": "bytes=0-0"}, most=1)
        except Overlong:  # the store ignores ranges, but serves the object
            return True
        except SyncloudError:
            continue
        if answer.ok or answer.status == 416:  # an empty object has no first byte
            return True
    return False


async def takes(send: Send, path: str) -> bool:
    """True if an object can be put at `path`. The trial object is deleted, if the role may delete.

    Raises Unavailable or a subclass, or PathError.
    """
    taken = (await send("PutObject", path, {}, body=b"1")).ok
    if taken:
        await send("DeleteObject", path, {})
    return taken
