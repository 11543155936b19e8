"""The answer to an S3 request: what it says, and the error that it is for whoever did not expect it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..aws import markup
from ..aws.error_mapping import refused
from ..errors import PermissionRefused, SyncloudError

EARLY = frozenset({"CopyObject", "CompleteMultipartUpload"})
"""Operations that S3 answers with 200 before it knows the outcome; an error comes in the body (their API reference)."""
EXPECTED_OWNER = "x-amz-expected-bucket-owner"
"""The header by which S3 refuses a bucket of another account ("Verifying bucket ownership with bucket owner condition")."""
_LATE = {
    "PreconditionFailed": 412,
    "ConditionalRequestConflict": 409,
    "NoSuchUpload": 404,
    "NoSuchKey": 404,
    "AccessDenied": 403,
}


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Names of headers are lower case; the body of an error status is S3's XML, if it sent one."""

    status: int
    headers: dict[str, str]
    pieces: Sequence[bytes]
    """The body as it came: joining megabytes costs as much as receiving them."""
    owner: str = ""
    """The account that was expected, of a request that is refused: S3 does not say whether that was why."""
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
        """S3's word for what went wrong; empty where there is none (every HEAD)."""
        return self._said("Code")

    def refusal(self, what: str) -> SyncloudError:
        """The SyncloudError for this answer, for whoever did not expect it."""
        code, request_id = self.code, self.headers.get("x-amz-request-id", "")
        # A page without S3's words is not S3's, whatever is in its headers.
        region = self._said("Region") or (self.headers.get("x-amz-bucket-region", "") if code or not self.body else "")
        error = refused(
            what,
            status=self.status,
            code=code,
            message=self._said("Message"),
            request_id=request_id,
            region=region,
            asked=self.asked,
        )
        return or_of_another(error, self.owner)

    def _said(self, name: str) -> str:
        if self.ok or not self.body:
            return ""
        try:
            return markup.read(self.body).findtext(name, "")
        except markup.UNREADABLE:  # a proxy's page, in whatever encoding
            return ""


def or_of_another(error: SyncloudError, owner: str) -> SyncloudError:
    """The refusal of a request that expected `owner`, if it expected one, with that other reason for it."""
    if owner and isinstance(error, PermissionRefused):
        error.hint += f"; or the bucket belongs to another account than {owner} (expected-bucket-owner)"
    return error


def outcome(answer: Response) -> Response:
    """What the answer to one of `EARLY` comes to: with the status that its error would have had at once."""
    body = answer.body.strip()  # S3 sends spaces while it works
    code = Response(500, {}, [body]).code if answer.ok else ""
    return replace(answer, status=_LATE.get(code, 500), pieces=[body]) if code else answer
