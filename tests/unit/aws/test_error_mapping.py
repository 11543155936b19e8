"""Exceptions of boto3, botocore and awscrt as our errors, and a bound for foreign texts."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import botocore.session
import pytest
from awscrt.exceptions import from_code
from botocore.exceptions import BotoCoreError, ClientError

from syncloud.aws.error_mapping import aws_errors, is_of_crt, refused, translate, translated
from syncloud.errors import (
    ConfigurationError,
    CredentialsError,
    Elsewhere,
    Malformed,
    PermissionRefused,
    SyncloudError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def _family(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from _family(child)


OUTSIDE = {"UndefinedModelAttributeError", "MissingServiceIdError"}
"""Of botocore.exceptions: faults in a service description, which no setting and no time mends."""


def test_every_exception_of_botocore_is_one_that_is_translated() -> None:
    kinds = [
        kind
        for kind in vars(botocore.exceptions).values()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    ]
    foreign = {kind.__name__ for kind in kinds if not issubclass(kind, (*aws_errors(), Warning))}
    assert foreign == OUTSIDE


@pytest.mark.parametrize("kind", [*_family(BotoCoreError)], ids=lambda kind: kind.__name__)
def test_every_exception_has_a_place_in_our_tree(kind: type[Exception]) -> None:
    error = kind.__new__(kind, "its words")
    error.args = ("its words",)
    with pytest.raises(SyncloudError) as caught, translated("list s3://b"):
        raise error
    assert caught.value.exit_code in (69, 77, 78)
    assert str(caught.value) == "list s3://b: its words"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NoCredentialsError", CredentialsError),
        ("UnauthorizedSSOTokenError", CredentialsError),
        ("MetadataRetrievalError", CredentialsError),
        ("ConnectTimeoutError", Unavailable),
        ("ReadTimeoutError", Unavailable),
        ("EndpointConnectionError", Unavailable),
        ("ProxyConnectionError", Unavailable),
        ("SSLError", Unavailable),
        ("FlexibleChecksumError", Unavailable),
        ("ProfileNotFound", ConfigurationError),
        ("NoRegionError", ConfigurationError),
        ("ParamValidationError", ConfigurationError),
    ],
)
def test_families_of_exceptions(name: str, expected: type[SyncloudError]) -> None:
    kind = getattr(botocore.exceptions, name)
    assert type(translate(kind.__new__(kind), "x")) is expected


@pytest.mark.parametrize(
    ("status", "code", "message", "expected", "hint"),
    [
        (400, "ExpiredToken", "", CredentialsError, "expired"),
        (403, "ExpiredTokenException", "", CredentialsError, "expired"),
        (400, "TokenRefreshRequired", "", CredentialsError, "expired"),
        (403, "InvalidAccessKeyId", "", CredentialsError, ""),
        (403, "SignatureDoesNotMatch", "", CredentialsError, ""),
        (
            403,
            "SignatureDoesNotMatch",
            "Signature expired: 2020 is now earlier than 2026",
            CredentialsError,
            "clock",
        ),
        (403, "RequestTimeTooSkewed", "", CredentialsError, "clock"),
        (403, "InvalidClientTokenId", "", CredentialsError, ""),
        (400, "400", "Bad Request", CredentialsError, "expired"),
        (403, "AccessDenied", "", PermissionRefused, ""),
        (403, "403", "Forbidden", PermissionRefused, ""),
        (400, "KMS.DisabledException", "", PermissionRefused, "KMS"),
        (
            403,
            "AccessDenied",
            "not authorized to perform: kms:GenerateDataKey",
            PermissionRefused,
            "KMS",
        ),
        (400, "KMS.ThrottlingException", "", Unavailable, "slowly"),
        (404, "NoSuchBucket", "", Unavailable, "s3://b must exist"),
        (400, "AWS.SimpleQueueService.NonExistentQueue", "", Unavailable, "must exist"),
        (400, "QueueDoesNotExist", "", Unavailable, "must exist"),
        (301, "PermanentRedirect", "", Elsewhere, "region"),
        (301, "301", "Moved Permanently", Unavailable, "portal"),
        (307, "TemporaryRedirect", "", Unavailable, "portal"),
        (
            400,
            "AuthorizationHeaderMalformed",
            "'us-east-1' is wrong; expecting 'eu-west-1'",
            ConfigurationError,
            "eu-west-1",
        ),
        (
            400,
            "IllegalLocationConstraintException",
            "The eu-central-1 location constraint",
            ConfigurationError,
            "eu-central-1",
        ),
        (503, "SlowDown", "", Unavailable, "slowly"),
        (400, "Throttling", "", Unavailable, "slowly"),
        (403, "RequestThrottled", "", Unavailable, "slowly"),
        (429, "Other", "", Unavailable, ""),
        (500, "InternalError", "", Unavailable, ""),
        (502, "502", "", Unavailable, ""),
        (409, "BucketAlreadyExists", "", SyncloudError, ""),
        (404, "NoSuchKey", "", SyncloudError, ""),
    ],
)
def test_answers(
    status: int, code: str, message: str, expected: type[SyncloudError], hint: str
) -> None:
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "R1", "HTTPHeaders": {}},
    }
    error = translate(ClientError(answer, "ListObjectsV2"), "list s3://b/prefix")
    assert type(error) is expected
    assert hint in error.hint
    assert (error.code, error.request_id) == (code, "R1")
    assert str(error).startswith(f"list s3://b/prefix: {code}")
    assert message in str(error)


def test_an_answer_says_no_more_than_a_log_and_a_state_may_hold() -> None:
    long = "x" * 1_000_000
    error = refused("x", status=400, code=long, message=long, request_id=long, region=long)
    assert max(map(len, (str(error), error.code, error.request_id, error.hint))) < 5_000


def test_the_answer_may_name_the_region() -> None:
    assert (
        "eu-west-2" in refused("x", status=301, code="PermanentRedirect", region="eu-west-2").hint
    )
    assert "eu-west-2" in refused("x", status=400, region="eu-west-2").hint, "a HEAD has no body"


@pytest.mark.parametrize(
    ("status", "code", "named", "expected"),
    [
        (301, "PermanentRedirect", "eu-west-2", ConfigurationError),
        (400, "AuthorizationHeaderMalformed", "eu-west-2", ConfigurationError),
        (301, "", "eu-west-2", ConfigurationError),
        (400, "", "eu-west-2", ConfigurationError),
        (301, "PermanentRedirect", "us-east-1", Elsewhere),
        (301, "PermanentRedirect", "", Elsewhere),
        (301, "PermanentRedirect", "http://elsewhere/", Elsewhere),
        (301, "PermanentRedirect", "e" * 64, Elsewhere),
        (400, "AuthorizationHeaderMalformed", "us-east-1", Elsewhere),
        (301, "", "us-east-1", Unavailable),
        (301, "", "eu west", Unavailable),
        (301, "", "", Unavailable),
        (307, "TemporaryRedirect", "eu-west-2", Unavailable),
        (307, "Redirect", "eu-west-2", Unavailable),
        (302, "", "eu-west-2", Unavailable),
        (307, "", "eu-west-2", Unavailable),
        (308, "", "eu-west-2", Unavailable),
        (400, "", "us-east-1", CredentialsError),
    ],
)
def test_only_another_region_that_s3_names_is_a_wrong_setting(
    status: int, code: str, named: str, expected: type[SyncloudError]
) -> None:
    error = refused("x", status=status, code=code, region=named, asked="us-east-1")
    assert type(error) is expected
    assert (error.hint == "set --region eu-west-2") == (expected is ConfigurationError)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AWS_AUTH_CREDENTIALS_PROVIDER_DELEGATE_FAILURE", CredentialsError),
        ("AWS_ERROR_S3_SLOW_DOWN", Unavailable),
        ("AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE", Unavailable),
        ("AWS_IO_DNS_INVALID_NAME", Unavailable),
        ("AWS_IO_SOCKET_CONNECTION_REFUSED", Unavailable),
        ("AWS_ERROR_HTTP_CONNECTION_CLOSED", Unavailable),
        ("AWS_ERROR_HTTP_INVALID_HEADER_NAME", Malformed),
        ("AWS_ERROR_HTTP_INVALID_HEADER_VALUE", Malformed),
        ("AWS_ERROR_HTTP_INVALID_PATH", Malformed),
        ("AWS_AUTH_SIGNING_ILLEGAL_REQUEST_HEADER", Malformed),
    ],
)
def test_errors_of_awscrt(name: str, expected: type[SyncloudError]) -> None:
    error = translate(_crt_errors()[name], "PutObject s3://b/k")
    assert type(error) is expected
    assert ("AWS_CA_BUNDLE" in error.hint) == ("TLS" in name)
    assert str(error).startswith("PutObject s3://b/k: ")


def test_what_python_itself_raises_is_not_taken_for_an_error_of_awscrt() -> None:
    assert is_of_crt(
        RuntimeError("2058 (AWS_ERROR_HTTP_CONNECTION_CLOSED): The connection has closed")
    )
    assert is_of_crt(_crt_errors()["AWS_IO_SOCKET_CONNECTION_REFUSED"])
    assert not [
        error
        for error in (RecursionError(), NotImplementedError(), ValueError(), Unavailable("x"))
        if is_of_crt(error)
    ]


def _crt_errors() -> dict[str, Any]:
    """awscrt numbers its errors by library, 1,024 each (aws-c-common, error.h)."""
    errors = [from_code(number) for number in range(1024, 16 * 1024)]
    return {getattr(error, "name", ""): error for error in errors}


def test_an_answer_that_botocore_cannot_read_is_not_repeated() -> None:
    """botocore makes the body the message.

    `test_no_secret_is_logged_or_kept` found this fault once SQS had to answer in time.
    """
    answer: Any = {
        "Error": {"Code": "400", "Message": "<Error><Token-0>secret</Token-0></Error>"},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }
    error = translate(ClientError(answer, "ReceiveMessage"), "use the queue")
    assert (str(error), error.code) == ("use the queue: 400: Bad Request", "400")
