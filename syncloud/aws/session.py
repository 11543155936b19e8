"""Sessions, credentials, endpoint, TLS and proxy: one setting for boto3 and awscrt. Makes their clients.

With error_mapping.py the owner of boto3 and botocore. Everything a user can set for boto3 (profile, `AWS_ENDPOINT_URL_S3`,
`AWS_CA_BUNDLE`, `HTTPS_PROXY`, addressing style) holds for both stacks:

- Where awscrt sends is what botocore would send to, asked by preparing a request and looking at its URL; where a URL
  alone says it, that URL is read. Where environment variables say everything (environment.py), botocore is not even
  imported, which is a third of a start, until somebody wants a client.
- What awscrt signs with is what botocore's credentials hold (credentials.py).
- `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (and their lower-case forms) are read by botocore, for both. Without a CA
  bundle each stack keeps its own store (awscrt: the system's).
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

from awscrt.auth import AwsCredentialsProvider, AwsSignedBodyHeaderType, AwsSigningConfig, aws_sign_request
from awscrt.exceptions import AwsCrtError
from awscrt.http import HttpRequest
from awscrt.io import ClientTlsContext, TlsContextOptions, TlsVersion

from ..errors import ConfigurationError, CredentialsError
from . import bounds, environment
from .credentials import Credentials, looked_for
from .error_mapping import translated

UNSIGNED = "UNSIGNED-PAYLOAD"
"""Instead of a body's SHA-256: TLS guards the bytes, or nobody is on the way."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a bucket's requests go: `host` with its port unless it is the scheme's own, `prefix` without a final slash."""

    scheme: str
    host: str
    prefix: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine is on the way."""
        name = urlsplit(self.url).hostname or ""
        return name in ("localhost", "::1") or (name.startswith("127.") and name.replace(".", "").isdecimal())


class Aws:
    """One account, region and endpoint. Raises ConfigurationError where the settings make no sense.

    `region`, `profile` and `endpoint_url` default to what boto3 finds; with an endpoint of one's own the region, which
    means nothing there, defaults to us-east-1.
    """

    def __init__(self, *, region: str | None = None, profile: str | None = None, endpoint_url: str | None = None) -> None:
        if endpoint_url and (urlsplit(endpoint_url).scheme not in ("http", "https") or not urlsplit(endpoint_url).hostname):
            raise ConfigurationError(f"endpoint-url {endpoint_url!r} is not a URL", hint="as in https://s3.example.org:9000")
        environment.admit(os.environ)
        self._lock = threading.RLock()
        self._endpoint_url = endpoint_url or None
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._addresses: dict[str, Address] = {}
        self._profile = profile or None
        self._core: Any = (None if profile else environment.alone(os.environ)) or self._botocore()
        self.region = region or self._core.get_config_variable("region") or self._region_of_endpoint()
        self.credentials = Credentials(self._find_credentials, afresh=functools.partial(_credentials_afresh, self._profile))

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

    def sign(self, request: HttpRequest, payload: str = UNSIGNED) -> HttpRequest:
        """The request with AWS's signature of this moment. `payload` is the SHA-256 of its body, which is signed then, too.

        Raises AwsCrtError, CredentialsError. Source: "Authenticating Requests (AWS Signature Version 4)" of the Amazon S3 API
        reference.
        """
        config = _signing(self.credentials.provider(), self.region, int(time.time()), payload)
        signed: HttpRequest = aws_sign_request(request, config).result()  # at once: what it signs with is at hand
        return signed

    def proxy(self, address: Address) -> str:
        """The URL of the proxy for `address`, in botocore's view of the environment; empty where there is none."""
        if not any(name.lower().endswith("_proxy") for name in os.environ):
            return ""
        from botocore.utils import get_environ_proxies  # here: it brings all of botocore with it

        url = get_environ_proxies(address.url).get(address.scheme, "")
        url = url if not url or "//" in url else f"http://{url}"
        if url and not _is_proxy(url):
            name = f"{address.scheme}_proxy"  # its value may hold a password
            raise ConfigurationError(
                f"{name} (or {name.upper()}) is not the URL of an HTTP proxy", hint="as in http://10.0.0.1:3128"
            )
        return url

    def tls(self) -> ClientTlsContext:
        """What awscrt trusts, by the order of botocore: AWS_CA_BUNDLE, ca_bundle of the profile, REQUESTS_CA_BUNDLE.

        And no less than TLS 1.2, as Python's own: awscrt by itself speaks 1.0 (RFC 8996 forbids that and 1.1).
        """
        options = TlsContextOptions()
        options.min_tls_ver = TlsVersion.TLSv1_2
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
            return looked_for(self._core.get_credentials)

    def _botocore(self) -> Any:
        """A session of botocore's, with its configuration read."""
        with translated("reading the AWS configuration"):
            session = bounds.session(profile=self._profile)
            session.get_scoped_config()
        return session

    def _make(self, service: str, region: str) -> Any:
        import boto3  # here: a single pass over small files needs no client

        with self._lock, translated(f"making the {service} client"):
            if isinstance(self._core, environment.Variables):
                self._core = self._botocore()
            self._session = self._session or boto3.Session(botocore_session=self._core)
            try:
                client = self._session.client(service, region_name=region, endpoint_url=self._endpoint_url)
            except ValueError as error:  # botocore's word for an endpoint that is no URL
                raise ConfigurationError(str(error), hint="check AWS_ENDPOINT_URL and endpoint_url in the profile") from error
            client.meta.events.register("before-call.s3", bounds.stay)
            return client

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


@functools.lru_cache(maxsize=1)
def _signing(provider: AwsCredentialsProvider, region: str, second: int, payload: str) -> AwsSigningConfig:
    """All unsigned bodies of one second since the epoch have the same date, and share this."""
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
    """As a new process would find them. Handlers are for clients; without them a session is made in half the time."""
    return bounds.session(profile=profile, include_builtin_handlers=False).get_credentials()


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
