"""The answer to an S3 request, and its translation into an error where no caller expected it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..aws import markup
from ..aws.error_mapping import refused
from ..errors import Changed, PathError, PermissionRefused, Scope, SyncloudError

EARLY = frozenset({"CopyObject", "CompleteMultipartUpload"})
"""Operations that S3 answers with 200 before the outcome is known.

An error comes in the body (API reference of both operations).
"""
EXPECTED_OWNER = "x-amz-expected-bucket-owner"
"""Header that makes S3 refuse a bucket of another account.

Source: "Verifying bucket ownership with bucket owner condition".
"""
_LATE = {
    "PreconditionFailed": 412,
    "ConditionalRequestConflict": 409,
    "NoSuchUpload": 404,
    "NoSuchKey": 404,
    "AccessDenied": 403,
}


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Header names are lower case; the body of an error status is S3's XML, if any."""

    status: int
    headers: dict[str, str]
    pieces: Sequence[bytes]
    """The body in the pieces received: joining megabytes costs as much as receiving them."""
    owner: str = ""
    """The expected account of a refused request: S3 does not name a wrong owner as the reason."""
    asked: str = ""
    """The region that the request was signed for."""

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        """S3's error code; empty if there is none (every HEAD)."""
        return self._field("Code")

    @property
    def is_archived(self) -> bool:
        """True if the object is in cold storage, so the read was refused."""
        return self.status == 403 and self.code == "InvalidObjectState"

    @property
    def version(self) -> str:
        """The version id of the object; empty in a bucket without versions."""
        return self.headers.get("x-amz-version-id", "")

    def refusal(self, what: str) -> SyncloudError:
        """The SyncloudError for an answer with an unexpected status."""
        error = refused(
            what,
            status=self.status,
            code=self.code,
            message=self._field("Message"),
            request_id=self.headers.get("x-amz-request-id", ""),
            region=self._region(),
            asked=self.asked,
        )
        return or_of_another(error, self.owner)

    def _region(self) -> str:
        """The region that the answer names, or an empty text.

        A page without an S3 error comes from a proxy, so its headers prove nothing.
        """
        by_header = self.headers.get("x-amz-bucket-region", "")
        return self._field("Region") or (by_header if self.code or not self.body else "")

    def failure(self, path: str, what: str) -> SyncloudError:
        """The error about `path` for a status that is no success.

        The error is Changed, another PathError, or the error of `refusal`.
        """
        if self.status in (404, 409, 412) and self.code != "NoSuchBucket":
            return Changed(path, f"{path}: the object changed meanwhile", code=self.code)
        error = self.refusal(what)
        if error.scope is not Scope.REQUEST:
            return error
        # A refusal without a wider cause concerns this path alone.
        about = {"code": error.code, "hint": error.hint, "request_id": error.request_id}
        return PathError(path, str(error), **about)

    def _field(self, name: str) -> str:
        if self.ok or not self.body:
            return ""
        try:
            return markup.read(self.body).findtext(name, "")
        except markup.UNREADABLE:  # a proxy's page, in any encoding
            return ""


def or_of_another(error: SyncloudError, owner: str) -> SyncloudError:
    """Add the other possible reason to a refusal: `owner`, if given, may not own the bucket."""
    if owner and isinstance(error, PermissionRefused):
        error.hint += (
            f"; or the bucket belongs to another account than {owner} (expected-bucket-owner)"
        )
    return error


def outcome(answer: Response) -> Response:
    """Convert the answer to an `EARLY` operation: an error in the body gets its proper status."""
    body = answer.body.strip()  # S3 sends spaces while the operation runs
    code = Response(500, {}, [body]).code if answer.ok else ""
    return replace(answer, status=_LATE.get(code, 500), pieces=[body]) if code else answer
