"""Error mapping: exceptions of boto3 and awscrt, and refusals of stores, become `SyncloudError`s.

Each message names the operation and quotes the other side; most errors carry a hint. With
`translated()`, other modules handle botocore's errors without an import of botocore.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from http import HTTPStatus

from awscrt.exceptions import AwsCrtError
from botocore.exceptions import BotoCoreError, ClientError

from ..errors import (
    ConfigurationError,
    CredentialsError,
    Elsewhere,
    Malformed,
    PermissionRefused,
    SyncloudError,
    Unavailable,
    cut,
)


@functools.cache
def aws_errors() -> tuple[type[Exception], ...]:
    """All exceptions that the two stacks raise themselves; `translate` maps each of them."""
    from botocore.parsers import ResponseParserError  # here: this import loads all of botocore

    return BotoCoreError, ClientError, ResponseParserError, AwsCrtError, RecursionError


@contextlib.contextmanager
def translated(what: str, *, asked: str = "") -> Iterator[None]:
    """Context manager: exceptions of boto3 and awscrt become a SyncloudError about `what`.

    `asked` is the region that the request was sent to.
    """
    try:
        yield
    except aws_errors() as error:
        raise translate(error, what, asked=asked) from error


def translate(error: Exception, what: str, *, asked: str = "") -> SyncloudError:
    """The SyncloudError for one of `aws_errors()`: the operation `what`, and the original message.

    A plain RuntimeError counts, because awscrt's C code raises it for immediate refusals. A
    SyncloudError is returned unchanged.
    """
    if isinstance(error, SyncloudError):
        return error
    if isinstance(error, RecursionError):  # from botocore's parser, for a million nested brackets
        return Unavailable(f"{what}: the answer is nested without end", code="RecursionError")
    if isinstance(error, ClientError):
        return _refusal(error, what, asked)
    if isinstance(error, RuntimeError):
        error = _named(error)
    if isinstance(error, AwsCrtError):
        return _crt_error(error, what)
    return _botocore_error(error, what)


def _refusal(error: ClientError, what: str, asked: str) -> SyncloudError:
    named, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    headers, status = meta.get("HTTPHeaders", {}), int(meta.get("HTTPStatusCode", 0))
    code, message = str(named.get("Code", "")), str(named.get("Message", ""))
    if code.isdigit():
        # botocore puts an unreadable body into the message, with the status as its code. The body
        # may be a proxy's page, or an echo of the request, which may hold a token.
        message = _PHRASES.get(status, "")
    return refused(
        what,
        status=status,
        code=code,
        message=message,
        request_id=str(meta.get("RequestId", "")),
        region=str(named.get("Region", "") or headers.get("x-amz-bucket-region", "")),
        asked=asked,
    )


def _botocore_error(error: Exception, what: str) -> SyncloudError:
    """The error for any other exception of botocore, by the names of its class and their bases."""
    family = {kind.__name__ for kind in type(error).__mro__}
    text, code = f"{what}: {error}", type(error).__name__
    if family & _CREDENTIALS:
        return CredentialsError(text, code=code)
    if "SSLError" in family:
        return Unavailable(text, code=code, hint=TLS_HINT)
    if family & _PASSING:
        return Unavailable(text, code=code)
    return ConfigurationError(text, code=code)


def is_of_crt(error: BaseException) -> bool:
    """True if awscrt may have raised the error: its C code raises plain RuntimeErrors as well."""
    return isinstance(error, AwsCrtError) or type(error) is RuntimeError


def _crt_error(error: AwsCrtError, what: str) -> SyncloudError:
    if error.name in _MALFORMED:
        return Malformed(f"{what}: {error.name}: {error.message}", code=error.name)
    kind = CredentialsError if error.name.startswith("AWS_AUTH_") else Unavailable
    hint = TLS_HINT if "_TLS_" in error.name else ""
    return kind(f"{what}: {error.name}: {error.message}", code=error.name, hint=hint)


def _named(error: RuntimeError) -> AwsCrtError:
    """Parse a text such as "2058 (AWS_ERROR_HTTP_CONNECTION_CLOSED): The connection ..."."""
    found = re.fullmatch(r"(\d+) \((\w+)\): (.*)", str(error), re.S)
    if found is None:
        return AwsCrtError(0, "AWS_ERROR_UNKNOWN", str(error))
    return AwsCrtError(int(found[1]), found[2], found[3])


def refused(
    what: str,
    *,
    status: int,
    code: str = "",
    message: str = "",
    request_id: str = "",
    region: str = "",
    asked: str = "",
) -> SyncloudError:
    """The SyncloudError for an answer that is no success.

    `region` is the region that the answer names, if any. `asked` is the region of the request.
    """
    code, message, request_id, region = (
        cut(text, _SENTENCE) for text in (code, message, request_id, region)
    )
    elsewhere = _elsewhere(status, code, message, region, asked)
    kind, hint = elsewhere or _judge(what, status, code, message)
    text = ": ".join(part for part in (what, code or f"HTTP status {status}", message) if part)
    return kind(text, hint=hint, code=code or str(status), request_id=request_id)


def _elsewhere(
    status: int, code: str, message: str, named: str, asked: str
) -> tuple[type[SyncloudError], str] | None:
    """Judge an answer that redirects to another region; None for any other answer.

    Only S3 itself can prove a wrong setting, by naming another region than the one asked. S3's
    XML names the region; an answer to a HEAD has no body, so a header names the region. Any other
    redirect may be from a captive portal or a proxy. S3 itself answers 307 until a new bucket is
    known everywhere.

    Source: "Request routing", "Error responses" of the Amazon S3 documentation.
    """
    right = named or _region_in(message)
    by_header = code in ("", str(status)) and status in (301, 400)
    is_other = right != asked and _NAME_OF_A_REGION.fullmatch(right) is not None
    if (code in _WRONG_REGION or by_header) and is_other:
        return ConfigurationError, f"set --region {right}"
    if code in _WRONG_REGION:
        return Elsewhere, ""
    return (Unavailable, _PORTAL_HINT) if 300 <= status < 400 else None


def _judge(what: str, status: int, code: str, message: str) -> tuple[type[SyncloudError], str]:
    if code in _CLOCK or "Signature expired" in message or "Signature not yet current" in message:
        return CredentialsError, _CLOCK_HINT
    if code in _EXPIRED:
        return CredentialsError, _EXPIRED_HINT
    if code in _UNKNOWN_SIGNER:
        return CredentialsError, ""
    if code in _MISSING:
        return Unavailable, _missing_hint(what)
    if code in _THROTTLED or status in (408, 429) or status >= 500:
        return Unavailable, "the request is retried more slowly" if code in _THROTTLED else ""
    if code.startswith("KMS.") or "kms:" in message:
        return PermissionRefused, _KMS_HINT
    if code in _DENIED or status in (401, 403):
        return PermissionRefused, ""
    if status == 400 and code in ("", "400"):
        # An answer to a HEAD has no body and no reason. S3 gives 400 for an expired token.
        return CredentialsError, _NO_REASON_HINT
    return SyncloudError, ""


def _missing_hint(what: str) -> str:
    name = re.search(r"s3://[^/\s]+|https?://\S+", what)
    remedy = "check its name and region, or make it with syncloud setup"
    return f"{name[0] if name else 'the bucket or queue'} must exist: {remedy}"


def _region_in(message: str) -> str:
    """The last region in a store's message, which is the right one; empty if there is none."""
    return next(iter(_REGION.findall(message)[-1:]), "")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Repetitions are bounded, because a hostile message could make a search take very long.
_REGION = re.compile(r"\b[a-z]{2,4}(?:-[a-z]{1,16}){1,3}-\d\b")
_NAME_OF_A_REGION = re.compile(r"[a-z0-9-]{1,63}")
_SENTENCE = 2_000
"""Characters kept of each text of an answer, for the log and the state; AWS writes about 200."""

TLS_HINT = (
    "if the endpoint's certificate is signed by a private CA, AWS_CA_BUNDLE must name its PEM file"
)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_CLOCK_HINT = (
    "AWS refuses a clock that is more than 15 minutes off: check this host's clock (timedatectl)"
)
_EXPIRED_HINT = (
    "renew the session token, which has expired; a new credentials file is read automatically,"
    " new variables need a restart"
)
_KMS_HINT = "the bucket or queue is encrypted with a KMS key that this role may not use"
_NO_REASON_HINT = (
    "the usual reason is an expired session token; aws sts get-caller-identity shows it"
)
_PORTAL_HINT = "a portal or a proxy may have answered; the request is retried"

# Families of botocore's exceptions, by name, because not every version defines all of them. Any
# other exception is about a setting: a profile, a region, an endpoint, an invalid name.
_CREDENTIALS = _words("""
    NoCredentialsError PartialCredentialsError CredentialRetrievalError MetadataRetrievalError
    NoAuthTokenError RefreshWithMFAUnsupportedError TokenRetrievalError SSOError LoginError
""")
_PASSING = _words("""
    HTTPClientError ConnectionError ChecksumError FlexibleChecksumError IncompleteReadError
    WaiterError CapacityNotAvailableError ResponseParserError AwsChunkedWrapperError
    UnseekableStreamError
""")

# awscrt's errors about the request itself.
_MALFORMED = _words("""
    AWS_ERROR_HTTP_INVALID_HEADER_NAME AWS_ERROR_HTTP_INVALID_HEADER_VALUE
    AWS_ERROR_HTTP_INVALID_HEADER_FIELD AWS_ERROR_HTTP_INVALID_METHOD AWS_ERROR_HTTP_INVALID_PATH
    AWS_AUTH_SIGNING_ILLEGAL_REQUEST_HEADER AWS_AUTH_SIGNING_ILLEGAL_REQUEST_QUERY_PARAM
""")

# Error codes of S3, SQS, STS, SNS and CloudFormation.
_CLOCK = _words("RequestTimeTooSkewed RequestExpired RequestInTheFuture")
_EXPIRED = _words("ExpiredToken ExpiredTokenException TokenRefreshRequired")
_UNKNOWN_SIGNER = _words("""
    InvalidAccessKeyId SignatureDoesNotMatch InvalidSignatureException IncompleteSignature
    IncompleteSignatureException InvalidClientTokenId UnrecognizedClientException InvalidToken
    AuthFailure MissingAuthenticationToken MissingAuthenticationTokenException
""")
_MISSING = _words("""
    NoSuchBucket QueueDoesNotExist QueueDeletedRecently AWS.SimpleQueueService.NonExistentQueue
    AWS.SimpleQueueService.QueueDeletedRecently
""")
_WRONG_REGION = _words("""
    PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException
    IllegalLocationConstraint InvalidLocationConstraint
""")
_THROTTLED = _words("""
    SlowDown Throttling ThrottlingException ThrottledException RequestThrottled
    RequestThrottledException TooManyRequestsException RequestLimitExceeded BandwidthLimitExceeded
    OverLimit PriorRequestNotComplete KMS.ThrottlingException KmsThrottled RequestTimeout
    RequestTimeoutException ServiceUnavailable InternalError
""")
_DENIED = _words("""
    AccessDenied AccessDeniedException AuthorizationError AuthorizationErrorException
    UnauthorizedOperation AllAccessDisabled AccountProblem NotSignedUp InvalidPayer InvalidSecurity
    OptInRequired
""")
