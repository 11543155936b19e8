"""Session factory: one configuration for boto3 and awscrt, and the clients made from it.

Configuration covers credentials, endpoint, TLS and proxy. Every user setting for boto3 (profile,
`AWS_ENDPOINT_URL_S3`, `AWS_CA_BUNDLE`, `HTTPS_PROXY`, addressing style) applies to both stacks:

- Addresses: awscrt sends to the address that botocore would use. botocore prepares a request, and
  its URL is read; where a configured URL alone decides, botocore is not asked. Where environment
  variables suffice (environment.py), most of botocore is imported only for the first client,
  because that import takes a third of a start.
- Credentials: awscrt signs with the credentials that botocore holds (credentials.py).
- Proxies: botocore reads `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (and their lower-case forms).
- TLS: without a CA bundle each stack keeps its own trust store (awscrt: the system's).

Only this module imports boto3 (tests/repository/test_layers.py).
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from awscrt.auth import (
    AwsCredentialsProvider,
    AwsSignedBodyHeaderType,
    AwsSigningConfig,
    aws_sign_request,
)
from awscrt.exceptions import AwsCrtError
from awscrt.http import HttpRequest
from awscrt.io import ClientTlsContext, TlsContextOptions, TlsVersion

from ..errors import ConfigurationError, CredentialsError
from . import environment
from .credentials import Credentials, looked_for
from .error_mapping import translated

UNSIGNED = "UNSIGNED-PAYLOAD"
"""Placeholder for a body's SHA-256, where TLS protects the body or no network is involved."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address for a bucket's requests.

    `host` includes a port that is not the scheme's default. `prefix` has no final slash.
    """

    scheme: str
    host: str
    prefix: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"

    @property
    def is_loopback(self) -> bool:
        """True if requests do not leave this machine."""
        name = urlsplit(self.url).hostname or ""
        return name in ("localhost", "::1") or (
            name.startswith("127.") and name.replace(".", "").isdecimal()
        )


class Aws:
    """One account, region and endpoint. Raises ConfigurationError if the settings are invalid.

    `region`, `profile` and `endpoint_url` default to boto3's own settings. With a custom endpoint
    the region has no meaning and defaults to us-east-1.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
    ) -> None:
        if endpoint_url:
            _require_url(endpoint_url)
        environment.admit(os.environ)
        self._lock = threading.RLock()
        self._endpoint_url = endpoint_url or None
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._addresses: dict[str, Address] = {}
        self._profile = profile or None
        self._core: Any = (None if profile else environment.alone(os.environ)) or self._botocore()
        configured = region or self._core.get_config_variable("region")
        self.region = configured or self._region_of_endpoint()
        afresh = functools.partial(_credentials_afresh, self._profile)
        self.credentials = Credentials(self._find_credentials, afresh=afresh)

    def client(self, service: str) -> Any:
        """boto3's client for `service`, shared by all callers and threads; sessions are not shared.

        Raises CredentialsError if there are no credentials: a client made without any would never
        find new ones.
        """
        with self._lock:
            if service not in self._clients:
                self.require_credentials()
                self._clients[service] = self._make(service, self.region)
            return self._clients[service]

    def require_credentials(self) -> None:
        """Raise CredentialsError if there are no credentials; their validity is not checked."""
        if self._find_credentials() is None:
            raise CredentialsError("no AWS credentials were found")

    def s3_address(self, bucket: str) -> Address:
        """The address that botocore, with all its settings, would use for this bucket. Cached."""
        with self._lock:
            if bucket not in self._addresses:
                self._addresses[bucket] = self._plain_address(bucket) or self._find_address(bucket)
            return self._addresses[bucket]

    def _plain_address(self, bucket: str) -> Address | None:
        """The path-style address, if one URL alone decides; None if botocore must be asked.

        Asking botocore is slow, because making a client reads 2.5 MB of JSON.
        """
        url = self._plain_url()
        if url is None or not _PLAIN_BUCKET.fullmatch(bucket):
            return None
        if not _PLAIN_REGION.fullmatch(self.region):
            return None
        return _address(f"{url.removesuffix('/')}/{bucket}")

    def _plain_url(self) -> str | None:
        """The endpoint's URL, given or from the environment, if no other setting applies to it."""
        given = self._endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3")
        url = given or os.environ.get("AWS_ENDPOINT_URL") or ""
        if not _PLAIN_URL.fullmatch(url) or "amazonaws" in url or "AWS_DATA_PATH" in os.environ:
            return None
        with translated("reading the AWS configuration"):
            return None if any(map(self._core.get_config_variable, _CONCERN_THE_ENDPOINT)) else url

    def _find_address(self, bucket: str) -> Address:
        seen: list[str] = []

        def look(params: dict[str, Any], **_: Any) -> tuple[Any, dict[str, Any]]:
            seen.append(params["url"])
            # botocore takes this for the answer, so nothing is signed or sent.
            return SimpleNamespace(status_code=200), {}

        with translated(f"finding the address of bucket {bucket}"):
            client = self._make("s3", self.region)
            client.meta.events.register("before-call.s3.HeadObject", look)
            client.head_object(Bucket=bucket, Key="probe")
            client.close()
        return _address(seen[0].removesuffix("/probe"))

    def sign(self, request: HttpRequest, payload: str = UNSIGNED) -> HttpRequest:
        """The request with an AWS signature of the current time.

        `payload` is the SHA-256 of the body, or `UNSIGNED`. Raises AwsCrtError, CredentialsError.
        Source: "Authenticating Requests (AWS Signature Version 4)" of the Amazon S3 API reference.
        """
        config = _signing(self.credentials.provider(), self.region, int(time.time()), payload)
        # The result is immediate, because the provider holds static credentials.
        signed: HttpRequest = aws_sign_request(request, config).result()
        return signed

    def proxy(self, address: Address) -> str:
        """URL of the proxy for `address`, by botocore's reading of the environment; else empty.

        Raises ConfigurationError for a value that is no URL of an HTTP proxy.
        """
        if not any(name.lower().endswith("_proxy") for name in os.environ):
            return ""
        from botocore.utils import get_environ_proxies  # here, because this loads all of botocore

        url = get_environ_proxies(address.url).get(address.scheme, "")
        url = url if not url or "//" in url else f"http://{url}"
        if url and not _is_proxy(url):
            raise _no_proxy(f"{address.scheme}_proxy")
        return url

    def tls(self) -> ClientTlsContext:
        """awscrt's trust store and TLS version. Raises ConfigurationError for an unusable bundle.

        The CA bundle is found in botocore's order: AWS_CA_BUNDLE, ca_bundle of the profile,
        REQUESTS_CA_BUNDLE. The minimum is TLS 1.2, as in Python: awscrt's default allows 1.0, which
        RFC 8996 forbids together with 1.1.
        """
        options = TlsContextOptions()
        options.min_tls_ver = TlsVersion.TLSv1_2
        bundle = self._core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
        try:
            if bundle:
                options.override_default_trust_store_from_path(ca_filepath=bundle)
            return ClientTlsContext(options)
        except (OSError, AwsCrtError) as error:
            text = f"the CA bundle {bundle} cannot be used: {error}"
            raise ConfigurationError(text, hint="AWS_CA_BUNDLE names a PEM file") from error

    def close(self) -> None:
        """Stop the credentials thread, and close boto3's clients."""
        self.credentials.close()
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()

    def _find_credentials(self) -> Any:
        with self._lock:
            return looked_for(self._core.get_credentials)

    def _botocore(self) -> Any:
        """A botocore session with its configuration read."""
        from . import bounds  # here, because this loads botocore

        with translated("reading the AWS configuration"):
            session = bounds.session(profile=self._profile)
            session.get_scoped_config()
        return session

    def _make(self, service: str, region: str) -> Any:
        import boto3  # here, because one pass over small files needs no client

        from . import bounds

        with self._lock, translated(f"making the {service} client"):
            if isinstance(self._core, environment.Variables):
                self._core = self._botocore()
            self._session = self._session or boto3.Session(botocore_session=self._core)
            url, hint = self._endpoint_url, "check AWS_ENDPOINT_URL and endpoint_url in the profile"
            try:
                client = self._session.client(service, region_name=region, endpoint_url=url)
            except ValueError as error:  # botocore's error for an endpoint that is no URL
                raise ConfigurationError(str(error), hint=hint) from error
            client.meta.events.register("before-call.s3", bounds.stay)
            return client

    def _region_of_endpoint(self) -> str:
        if self._plain_url():
            return "us-east-1"
        probe = self._make("s3", "us-east-1")
        host = urlsplit(probe.meta.endpoint_url).hostname or ""
        probe.close()
        if host.endswith(".amazonaws.com"):
            raise ConfigurationError("no AWS region is configured", hint=_REGION_HINT)
        return "us-east-1"


@functools.lru_cache(maxsize=1)
def _signing(
    provider: AwsCredentialsProvider, region: str, second: int, payload: str
) -> AwsSigningConfig:
    """Signing configuration, shared by all unsigned bodies of one second since the epoch."""
    return AwsSigningConfig(
        credentials_provider=provider,
        region=region,
        service="s3",
        date=datetime.fromtimestamp(second, UTC),
        use_double_uri_encode=False,
        should_normalize_uri_path=False,
        signed_body_value=payload,
        signed_body_header_type=AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
    )


def _credentials_afresh(profile: str | None) -> Any:
    """The credentials that a new process would find.

    A session without handlers, which only clients need, is made in half the time.
    """
    from . import bounds

    return bounds.session(profile=profile, include_builtin_handlers=False).get_credentials()


_PROXY = re.compile(r"https?://([^/@]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:@\s]+)(:[0-9]+)?/?", re.I)
_PLAIN_URL = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?/?")
_PLAIN_BUCKET = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_PLAIN_REGION = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CONCERN_THE_ENDPOINT = (
    "s3",
    "use_fips_endpoint",
    "use_dualstack_endpoint",
    "ignore_configured_endpoint_urls",
)
_REGION_HINT = (
    "give --region, set AWS_DEFAULT_REGION, or set region in the profile;"
    " bucket and queue are in one region"
)


def _require_url(endpoint_url: str) -> None:
    parts = urlsplit(endpoint_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        text = f"endpoint-url {endpoint_url!r} is not a URL"
        raise ConfigurationError(text, hint="as in https://s3.example.org:9000")


def _no_proxy(name: str) -> ConfigurationError:
    """The error has the name alone, because the value may hold a password."""
    text = f"{name} (or {name.upper()}) is not the URL of an HTTP proxy"
    return ConfigurationError(text, hint="as in http://10.0.0.1:3128")


def _is_proxy(url: str) -> bool:
    with contextlib.suppress(ValueError):  # an invalid port
        return _PROXY.fullmatch(url) is not None and urlsplit(url).port != 0
    return False


def _address(url: str) -> Address:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}[parts.scheme]
    name = parts.hostname or ""
    host = name if parts.port in (None, default) else f"{name}:{parts.port}"
    return Address(parts.scheme, host, parts.path)
