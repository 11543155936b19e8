"""Requests about the keys below one prefix of a bucket, by S3's names of the operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core import names
from ..errors import Malformed, PathError

if TYPE_CHECKING:
    from .response import Response
    from .transport import Transport

METHODS = {
    "AbortMultipartUpload": "DELETE",
    "CompleteMultipartUpload": "POST",
    "CopyObject": "PUT",
    "CreateMultipartUpload": "POST",
    "DeleteObject": "DELETE",
    "GetObject": "GET",
    "HeadObject": "HEAD",
    "PutObject": "PUT",
    "UploadPart": "PUT",
}
"""The HTTP method of each operation. Source: the Amazon S3 API reference."""
_TAKEN = ("PutObject", "UploadPart")


class Bucket:
    """The bucket `name`, limited to the keys below `prefix`. A path is the rest of a key.

    `given` and `taken` count the successful reads and writes of object bytes, for `Tree`.
    """

    given = taken = 0

    def __init__(self, transport: Transport, name: str, prefix: str) -> None:
        self._transport = transport
        self.name = name
        self.prefix = prefix

    def url(self, path: str) -> str:
        """The object at `path`, for messages."""
        return f"s3://{self.name}/{names.key_of(self.prefix, path)}"

    async def send(
        self, operation: str, path: str, headers: dict[str, str], **more: Any
    ) -> Response:
        """As `Transport.request`, which gets `more`. Raises PathError instead of Malformed."""
        method, key, named = METHODS[operation], names.key_of(self.prefix, path), headers.items()
        send = self._transport.request
        try:
            response = await send(method, key, operation=operation, headers=named, **more)
        except Malformed as error:
            raise PathError(path, str(error), code=error.code, hint=error.hint) from error
        if response.ok:
            self.given += operation == "GetObject"
            self.taken += operation in _TAKEN
        return response

    def require(self, response: Response, path: str, verb: str) -> None:
        """Raise the error of `Response.failure` for an answer that is no success."""
        if not response.ok:
            raise response.failure(path, f"{verb} {self.url(path)}")
