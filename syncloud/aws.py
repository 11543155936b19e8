"""Sessions, credentials, endpoint, TLS and proxy: one setting for boto3 and awscrt. Makes their clients.

Owner of boto3 and botocore. Everything a user can set for boto3 (profile, `AWS_ENDPOINT_URL_S3`,
`AWS_CA_BUNDLE`, `HTTPS_PROXY`, addressing style) holds for both stacks:

- Where awscrt sends is what botocore would send to, asked by preparing a request and looking at its URL; where a URL
  alone says it, that URL is read.
- What awscrt signs with is what botocore's credentials hold (credentials.py).
- `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (and their lower-case forms) are read by botocore, for both. Without a CA
  bundle each stack keeps its own store (awscrt: the system's).

Other modules need no botocore to handle its errors: `translated()` turns all of them into those of `errors.py`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import responses
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import botocore.config
import botocore.session
from awscrt.auth import AwsSignedBodyHeaderType, AwsSigningConfig, aws_sign_request
from awscrt.exceptions import AwsCrtError
from awscrt.http import HttpRequest
from awscrt.io import ClientTlsContext, TlsContextOptions
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies

from syncloud import __version__
from syncloud.credentials import Credentials
from syncloud.errors import ConfigurationError, CredentialsError, PermissionRefused, SyncloudError, Unavailable

AWS_ERRORS = (BotoCoreError, ClientError, ResponseParserError, AwsCrtError)
"""Everything the two stacks raise of themselves; `translate` maps each."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a bucket's requests go: `host` with its port unless it is the scheme's own, `prefix` without a final slash."""

    scheme: str
    host: str
    prefix: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


class Aws:
    """One account, region and endpoint. Raises ConfigurationError where the settings make no sense.

    `region`, `profile` and `endpoint_url` default to what boto3 finds; with an endpoint of one's own the region, which
    means nothing there, defaults to us-east-1.
    """

    def __init__(self, *, region: str | None = None, profile: str | None = None, endpoint_url: str | None = None) -> None:
        if endpoint_url and (urlsplit(endpoint_url).scheme not in ("http", "https") or not urlsplit(endpoint_url).hostname):
            raise ConfigurationError(f"endpoint-url {endpoint_url!r} is not a URL", hint="as in https://s3.example.org:9000")
        self._lock = threading.RLock()
        self._endpoint_url = endpoint_url or None
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._addresses: dict[str, Address] = {}
        with translated("reading the AWS configuration"):
            self._core = botocore.session.Session(profile=profile or None)
            self._core.get_scoped_config()
        self.region = region or self._core.get_config_variable("region") or self._region_of_endpoint()
        self.credentials = Credentials(self._find_credentials, afresh=functools.partial(_credentials_afresh, profile))

    def client(self, service: str) -> Any:
        """boto3's client, the same for every caller; clients may be shared by threads, sessions may not.

        Raises CredentialsError when there are none, because a client made without them would never find any.
        """
        with self._lock:
            if service not in self._clients:
                self.require_credentials()
                self._clients[service] = self._make(service, self.region)
            return self._clients[service]

    def require_credentials(self) -> None:
        """Raise CredentialsError when there are none, without asking whether they are still good."""
        if self._find_credentials() is None:
            raise CredentialsError("no AWS credentials were found")

    def s3_address(self, bucket: str) -> Address:
        """Where botocore would send a request about this bucket, with every setting that it knows. Found out once."""
        with self._lock:
            if bucket not in self._addresses:
                self._addresses[bucket] = self._plain_address(bucket) or self._find_address(bucket)
            return self._addresses[bucket]

    def _plain_address(self, bucket: str) -> Address | None:
        """The address where nothing but a URL has a say in it, in botocore's words "path style". None: botocore must be asked,
        which reads 2.5 MB of JSON to make a client.
        """
        url = self._plain_url()
        if url is None or not _PLAIN_BUCKET.fullmatch(bucket) or not _PLAIN_REGION.fullmatch(self.region):
            return None
        return _address(f"{url.removesuffix('/')}/{bucket}")

    def _plain_url(self) -> str | None:
        """The endpoint's URL, given or from the environment, where no other setting concerns the endpoint."""
        url = self._endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        if not _PLAIN_URL.fullmatch(url) or "amazonaws" in url or "AWS_DATA_PATH" in os.environ:
            return None
        with translated("reading the AWS configuration"):
            return None if any(map(self._core.get_config_variable, _CONCERN_THE_ENDPOINT)) else url

    def _find_address(self, bucket: str) -> Address:
        seen: list[str] = []

        def look(params: dict[str, Any], **_: Any) -> tuple[Any, dict[str, Any]]:
            seen.append(params["url"])
            return SimpleNamespace(status_code=200), {}  # taken for the answer: nothing is signed or sent

        with translated(f"finding the address of bucket {bucket}"):
            client = self._make("s3", self.region)
            client.meta.events.register("before-call.s3.HeadObject", look)
            client.head_object(Bucket=bucket, Key="probe")
            client.close()
        return _address(seen[0].removesuffix("/probe"))

    def sign(self, request: HttpRequest) -> HttpRequest:
        """The request with AWS's signature of this moment; its bytes stay unsigned. Raises AwsCrtError, CredentialsError.

        Source: "Authenticating Requests (AWS Signature Version 4)" of the Amazon S3 API reference.
        """
        config = AwsSigningConfig(
            credentials_provider=self.credentials.provider(),
            region=self.region,
            service="s3",
            use_double_uri_encode=False,
            should_normalize_uri_path=False,
            signed_body_value="UNSIGNED-PAYLOAD",
            signed_body_header_type=AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )
        signed: HttpRequest = aws_sign_request(request, config).result()  # at once: what it signs with is at hand
        return signed

    def proxy(self, address: Address) -> str:
        """The URL of the proxy for `address`, in botocore's view of the environment; empty where there is none."""
        url = get_environ_proxies(address.url).get(address.scheme, "")
        url = url if not url or "//" in url else f"http://{url}"
        if url and not _is_proxy(url):
            name = f"{address.scheme}_proxy"  # its value may hold a password
            raise ConfigurationError(
                f"{name} (or {name.upper()}) is not the URL of an HTTP proxy", hint="as in http://10.0.0.1:3128"
            )
        return url

    def tls(self) -> ClientTlsContext:
        """What awscrt trusts, by the order of botocore: AWS_CA_BUNDLE, ca_bundle of the profile, REQUESTS_CA_BUNDLE."""
        options = TlsContextOptions()
        bundle = self._core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
        try:
            if bundle:
                options.override_default_trust_store_from_path(ca_filepath=bundle)
            return ClientTlsContext(options)
        except (OSError, AwsCrtError) as error:
            raise ConfigurationError(
                f"the CA bundle {bundle} cannot be used: {error}", hint="AWS_CA_BUNDLE names a PEM file"
            ) from error

    def close(self) -> None:
        """End the thread and the connections."""
        self.credentials.close()
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()

    def _find_credentials(self) -> Any:
        with self._lock:
            return self._core.get_credentials()

    def _make(self, service: str, region: str) -> Any:
        config = botocore.config.Config(
            # Two places retry: this one for a request, the engine for a path (DESIGN 5).
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=10,
            read_timeout=60,  # a long poll is silent for 20 s
            max_pool_connections=32,
            # Older S3-compatible stores refuse the checksums that are on by default (FACTS 3).
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra=f"syncloud/{__version__}",
        )
        import boto3  # here: a single pass over small files needs no client

        with self._lock, translated(f"making the {service} client"):
            self._session = self._session or boto3.Session(botocore_session=self._core)
            try:
                return self._session.client(service, region_name=region, endpoint_url=self._endpoint_url, config=config)
            except ValueError as error:  # botocore's word for an endpoint that is no URL
                raise ConfigurationError(str(error), hint="check AWS_ENDPOINT_URL and endpoint_url in the profile") from error

    def _region_of_endpoint(self) -> str:
        if self._plain_url():
            return "us-east-1"
        probe = self._make("s3", "us-east-1")
        host = urlsplit(probe.meta.endpoint_url).hostname or ""
        probe.close()
        if host.endswith(".amazonaws.com"):
            raise ConfigurationError(
                "no AWS region is configured",
                hint="give --region, set AWS_DEFAULT_REGION, or set region in the profile; it is the bucket's and the queue's",
            )
        return "us-east-1"


def _credentials_afresh(profile: str | None) -> Any:
    """As a new process would find them. Handlers are for clients; without them a session is made in half the time."""
    return botocore.session.Session(profile=profile or None, include_builtin_handlers=False).get_credentials()


_PROXY = re.compile(r"https?://([^/@]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:@\s]+)(:[0-9]+)?/?", re.I)
_PLAIN_URL = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?/?")
_PLAIN_BUCKET = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_PLAIN_REGION = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CONCERN_THE_ENDPOINT = ("s3", "use_fips_endpoint", "use_dualstack_endpoint", "ignore_configured_endpoint_urls")


def _is_proxy(url: str) -> bool:
    with contextlib.suppress(ValueError):  # a port that is none
        return _PROXY.fullmatch(url) is not None and urlsplit(url).port != 0
    return False


def _address(url: str) -> Address:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}[parts.scheme]
    host = (parts.hostname or "") if parts.port in (None, default) else f"{parts.hostname}:{parts.port}"
    return Address(parts.scheme, host, parts.path)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Within it, whatever boto3 and awscrt raise comes out as a SyncloudError about `what`."""
    try:
        yield
    except AWS_ERRORS as error:
        raise translate(error, what) from error


def translate(error: Exception, what: str) -> SyncloudError:
    """The SyncloudError for one of `AWS_ERRORS`: what was done, and the other side's words.

    Also for what awscrt's C code refuses at once, a RuntimeError, and for an error that is one of ours already.
    """
    if isinstance(error, SyncloudError):
        return error
    if isinstance(error, RuntimeError):
        return _crt_error(_named(error), what)
    if isinstance(error, ClientError):
        said, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        headers, status = meta.get("HTTPHeaders", {}), int(meta.get("HTTPStatusCode", 0))
        code, message = str(said.get("Code", "")), str(said.get("Message", ""))
        if code.isdigit():
            # A body that botocore cannot read becomes the message, under the status as its code: a proxy's page, or what was
            # sent, which may be a token.
            message = responses.get(status, "")
        return refused(
            what,
            status=status,
            code=code,
            message=message,
            request_id=str(meta.get("RequestId", "")),
            region=str(said.get("Region", "") or headers.get("x-amz-bucket-region", "")),
        )
    if isinstance(error, AwsCrtError):
        return _crt_error(error, what)
    family = {kind.__name__ for kind in type(error).__mro__}
    code = type(error).__name__
    if family & _CREDENTIALS:
        return CredentialsError(f"{what}: {error}", code=code)
    if "SSLError" in family:
        return Unavailable(f"{what}: {error}", code=code, hint=TLS_HINT)
    if family & _PASSING:
        return Unavailable(f"{what}: {error}", code=code)
    return ConfigurationError(f"{what}: {error}", code=code)


def _crt_error(error: AwsCrtError, what: str) -> SyncloudError:
    kind = CredentialsError if error.name.startswith("AWS_AUTH_") else Unavailable
    hint = TLS_HINT if "_TLS_" in error.name else ""
    return kind(f"{what}: {error.name}: {error.message}", code=error.name, hint=hint)


def _named(error: RuntimeError) -> AwsCrtError:
    """Its text is "2058 (AWS_ERROR_HTTP_CONNECTION_CLOSED): The connection ..."."""
    found = re.fullmatch(r"(\d+) \((\w+)\): (.*)", str(error), re.S)
    return AwsCrtError(int(found[1]), found[2], found[3]) if found else AwsCrtError(0, "AWS_ERROR_UNKNOWN", str(error))


def refused(
    what: str, *, status: int, code: str = "", message: str = "", request_id: str = "", region: str = ""
) -> SyncloudError:
    """The SyncloudError for an answer that is no success. `region` is the one the answer names, if any."""
    kind, hint = _judge(what, status, code, message, region)
    said = ": ".join(part for part in (what, code or f"HTTP status {status}", message) if part)
    return kind(said, hint=hint, code=code or str(status), request_id=request_id)


def _judge(what: str, status: int, code: str, message: str, region: str) -> tuple[type[SyncloudError], str]:
    if code in _CLOCK or "Signature expired" in message or "Signature not yet current" in message:
        return CredentialsError, _CLOCK_HINT
    if code in _EXPIRED:
        return (
            CredentialsError,
            "the session token has expired: renew it; a credentials file is read again by itself, variables need a restart",
        )
    if code in _UNKNOWN_SIGNER:
        return CredentialsError, ""
    if code in _MISSING:
        name = re.search(r"s3://[^/\s]+|https?://\S+", what)
        return Unavailable, f"{name[0] if name else 'it'} must exist: check its name and region, or make it with syncloud setup"
    if code in _WRONG_REGION or status in (301, 307, 308) or (status == 400 and region and code in ("", "400")):
        right = region or next(iter(re.findall(r"\b[a-z]{2}(?:-[a-z]+)+-\d\b", message)[-1:]), "")
        return ConfigurationError, f"set --region {right}" if right else "set --region to the bucket's region"
    if code in _THROTTLED or status in (408, 429) or status >= 500:
        return Unavailable, "it is retried more slowly" if code in _THROTTLED else ""
    if code.startswith("KMS.") or "kms:" in message:
        return PermissionRefused, "the bucket or queue is encrypted with a KMS key that this role may not use"
    if code in _DENIED or status in (401, 403):
        return PermissionRefused, ""
    if status == 400 and code in ("", "400"):
        # The answer to a HEAD has no body, hence no reason; S3 says 400 for an expired token.
        return CredentialsError, "the usual reason is an expired session token; aws sts get-caller-identity tells"
    return SyncloudError, ""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TLS_HINT = "if the endpoint's certificate is signed by a private CA, AWS_CA_BUNDLE must name its PEM file"
_CLOCK_HINT = "AWS refuses a clock that is more than 15 minutes off: check this host's (timedatectl)"

# Families of botocore's exceptions, by name because not every version has all of them. What is in neither is about a
# setting: a profile, a region, an endpoint, a name that is not allowed.
_CREDENTIALS = _words("""NoCredentialsError PartialCredentialsError CredentialRetrievalError MetadataRetrievalError
    NoAuthTokenError RefreshWithMFAUnsupportedError TokenRetrievalError SSOError LoginError""")
_PASSING = _words("""HTTPClientError ConnectionError ChecksumError FlexibleChecksumError IncompleteReadError WaiterError
    CapacityNotAvailableError ResponseParserError AwsChunkedWrapperError UnseekableStreamError""")

# Codes of S3, SQS, STS, SNS and CloudFormation.
_CLOCK = _words("RequestTimeTooSkewed RequestExpired RequestInTheFuture")
_EXPIRED = _words("ExpiredToken ExpiredTokenException TokenRefreshRequired")
_UNKNOWN_SIGNER = _words("""InvalidAccessKeyId SignatureDoesNotMatch InvalidSignatureException IncompleteSignature
    IncompleteSignatureException InvalidClientTokenId UnrecognizedClientException InvalidToken AuthFailure
    MissingAuthenticationToken MissingAuthenticationTokenException""")
_MISSING = _words("""NoSuchBucket QueueDoesNotExist QueueDeletedRecently AWS.SimpleQueueService.NonExistentQueue
    AWS.SimpleQueueService.QueueDeletedRecently""")
_WRONG_REGION = _words("""PermanentRedirect TemporaryRedirect Redirect AuthorizationHeaderMalformed
    IllegalLocationConstraintException IllegalLocationConstraint InvalidLocationConstraint""")
_THROTTLED = _words("""SlowDown Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException
    TooManyRequestsException RequestLimitExceeded BandwidthLimitExceeded OverLimit PriorRequestNotComplete
    KMS.ThrottlingException KmsThrottled RequestTimeout RequestTimeoutException ServiceUnavailable InternalError""")
_DENIED = _words("""AccessDenied AccessDeniedException AuthorizationError AuthorizationErrorException UnauthorizedOperation
    AllAccessDisabled AccountProblem NotSignedUp InvalidPayer InvalidSecurity OptInRequired""")
