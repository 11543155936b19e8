"""What boto3 is told holds for both stacks: region, address, clients, TLS and proxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import warnings
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from syncloud import __version__
from syncloud.aws.error_mapping import translated
from syncloud.aws.session import Address, Aws
from syncloud.errors import (
    ConfigurationError,
    Unavailable,
)
from syncloud.s3.transport import Transport
from tests.support.server import Server, head, passed_on, splice
from tests.support.transport import get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.emulator import Bucket, Emulator
    from tests.unit.aws.conftest import Make


# --- region and endpoint


@pytest.mark.usefixtures("amazon")
def test_a_region_is_needed_at_aws_and_is_not_guessed(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="no AWS region") as caught:
        make()
    assert "--region" in caught.value.hint


@pytest.mark.usefixtures("amazon")
def test_region_explicit_over_environment_over_profile(
    make: Make, monkeypatch: pytest.MonkeyPatch, profiles: Callable[[str], None]
) -> None:
    profiles("[profile p]\nregion = eu-south-1\n")
    assert make(profile="p").region == "eu-south-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert make(profile="p").region == "eu-west-3"
    assert make(profile="p", region="eu-north-1").region == "eu-north-1"


@pytest.mark.usefixtures("amazon")
def test_an_endpoint_of_ones_own_needs_no_region(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make(endpoint_url="http://127.0.0.1:9").region == "us-east-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert make().region == "us-east-1"


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "s3.example.org", "ftp://x", "http://"])
def test_an_endpoint_that_is_no_url_is_a_configuration_error(
    make: Make, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    with pytest.raises(ConfigurationError):
        make(endpoint_url=url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(ConfigurationError):
        make().s3_address("bucket")


def test_a_profile_that_is_missing_is_a_configuration_error(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="nobody"):
        make(profile="nobody")


@pytest.mark.usefixtures("amazon")
@pytest.mark.parametrize(
    ("bucket", "region", "environment", "expected"),
    [
        ("bucket", "eu-west-1", {}, Address("https", "bucket.s3.eu-west-1.amazonaws.com", "")),
        (
            "my.bucket",
            "eu-west-1",
            {},
            Address("https", "s3.eu-west-1.amazonaws.com", "/my.bucket"),
        ),
        ("bucket", "cn-north-1", {}, Address("https", "bucket.s3.cn-north-1.amazonaws.com.cn", "")),
        (
            "bucket",
            "eu-west-1",
            {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
            Address("https", "bucket.s3.dualstack.eu-west-1.amazonaws.com", ""),
        ),
        (
            "bucket",
            "us-west-2",
            {"AWS_USE_FIPS_ENDPOINT": "true"},
            Address("https", "bucket.s3-fips.us-west-2.amazonaws.com", ""),
        ),
        (
            "bucket",
            "r",
            {"AWS_ENDPOINT_URL": "http://10.0.0.1:9000"},
            Address("http", "10.0.0.1:9000", "/bucket"),
        ),
        (
            "bucket",
            "r",
            {"AWS_ENDPOINT_URL_S3": "https://s3.example.org"},
            Address("https", "s3.example.org", "/bucket"),
        ),
        (
            "bucket",
            "r",
            {"AWS_ENDPOINT_URL_S3": "https://e.org:443/base"},
            Address("https", "e.org", "/base/bucket"),
        ),
        (
            "bucket",
            "eu-west-1",
            {"AWS_ENDPOINT_URL_SQS": "http://x:1"},
            Address("https", "bucket.s3.eu-west-1.amazonaws.com", ""),
        ),
    ],
)
def test_awscrt_sends_where_boto3_would(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    bucket: str,
    region: str,
    environment: dict[str, str],
    expected: Address,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert make(region=region).s3_address(bucket) == expected


ENDPOINTS = (
    "http://127.0.0.1:9000",
    "https://s3.example.org",
    "https://s3.example.org:443/",
    "http://h:80",
    "https://e.org/base",
    "http://[::1]:9",
    "https://s3-accelerate.amazonaws.com",
    "https://s3.eu-west-1.amazonaws.com",
)
BUCKETS = ("bucket", "b1-b", "my.bucket", "a--x-s3", "0a", "abc")
OTHERS: tuple[tuple[str, str, bool], ...] = (
    ("AWS_SESSION_TOKEN", "t", True),
    ("AWS_MAX_ATTEMPTS", "7", True),
    ("AWS_S3_US_EAST_1_REGIONAL_ENDPOINT", "legacy", False),
    ("AWS_USE_DUALSTACK_ENDPOINT", "true", False),
    ("AWS_USE_FIPS_ENDPOINT", "true", False),
    ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true", False),
)


@pytest.mark.usefixtures("amazon")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_address_that_a_url_alone_says_is_botocores(
    make: Make, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    aws = make(region="eu-west-1")
    for bucket in BUCKETS:
        plain = aws._plain_address(bucket)
        with contextlib.suppress(ConfigurationError):
            assert plain in (None, aws._find_address(bucket))
    simple = (
        "amazonaws" not in endpoint
        and endpoint.count("/") == 2 + endpoint.endswith("/")
        and "[" not in endpoint
    )
    assert [aws._plain_address(bucket) is not None for bucket in BUCKETS] == [
        simple,
        simple,
        False,
        False,
        False,
        simple,
    ]


@pytest.mark.usefixtures("amazon")
@pytest.mark.parametrize(
    "region", ["us-east-1", "aws-global", "cn-north-1", "us-gov-west-1", "r", "s3-external-1"]
)
def test_an_address_that_a_url_alone_says_is_that_of_every_region(make: Make, region: str) -> None:
    aws = make(region=region, endpoint_url="http://10.0.0.1:9000")
    assert (
        aws._plain_address("bucket")
        == aws._find_address("bucket")
        == Address("http", "10.0.0.1:9000", "/bucket")
    )


@pytest.mark.usefixtures("amazon")
@pytest.mark.parametrize(("name", "value", "plain"), OTHERS)
def test_other_settings_about_the_endpoint_are_left_to_botocore(
    make: Make, monkeypatch: pytest.MonkeyPatch, name: str, value: str, plain: bool
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://10.0.0.1:9000")
    monkeypatch.setenv(name, value)
    aws = make(region="eu-west-1")
    address = aws._plain_address("bucket")
    assert (address is not None) == plain
    if plain:
        assert address == aws._find_address("bucket")


@pytest.mark.usefixtures("amazon")
def test_the_addressing_style_of_the_profile_holds(
    make: Make, profiles: Callable[[str], None]
) -> None:
    profiles(
        "[profile path]\nregion = eu-west-1\ns3 =\n  addressing_style = path\n"
        "[profile given]\ns3 =\n  addressing_style = virtual\n"
        "[profile virtual]\nendpoint_url = https://s3.example.org:9000\n"
        "s3 =\n  addressing_style = virtual\n"
    )
    assert make(profile="path").s3_address("b1b").url == "https://s3.eu-west-1.amazonaws.com/b1b"
    assert make(profile="virtual").s3_address("b1b").url == "https://b1b.s3.example.org:9000"
    given = make(profile="given", region="eu-west-1", endpoint_url="https://s3.example.org:9000")
    assert given.s3_address("b1b").url == "https://b1b.s3.example.org:9000"


def test_a_bucket_name_that_cannot_be_is_a_configuration_error(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="Bad Bucket"):
        make().s3_address("Bad Bucket")


# --- clients


def test_clients_are_made_once_for_all_threads(make: Make, aws_server: Emulator) -> None:
    aws, seen = make(endpoint_url=aws_server.endpoint), []
    threads = [threading.Thread(target=lambda: seen.append(aws.client("sqs"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len({id(client) for client in seen}) == 1
    config = seen[0].meta.config
    assert f"syncloud/{__version__}" in config.user_agent_extra
    assert config.read_timeout > 25
    assert config.retries["total_max_attempts"] == 3
    seen[0].list_queues()


# --- TLS and proxy


def test_a_ca_bundle_that_cannot_be_read_is_a_configuration_error(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem"):
        make().tls()


def test_the_proxy_is_the_one_for_the_scheme_and_not_for_what_is_excluded(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "10.0.0.1")
    aws = make()
    assert aws.proxy(Address("http", "10.0.0.2", "/b")) == "http://127.0.0.1:9"
    assert aws.proxy(Address("https", "10.0.0.2", "/b")) == "", "HTTP_PROXY is not for https"
    assert aws.proxy(Address("http", "10.0.0.1", "/b")) == ""


@pytest.mark.parametrize(
    "url", ["http://:9", "socks5://127.0.0.1:1080", "http://host:port", "http://h:65536"]
)
def test_a_proxy_that_is_no_url_is_a_configuration_error(
    url: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    with pytest.raises(ConfigurationError, match=r"HTTP_PROXY\) is not the URL of an HTTP proxy"):
        make().proxy(Address("http", "10.0.0.2", "/b"))


def test_the_password_of_a_proxy_is_told_to_nobody(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:sec/ret@10.0.0.9:3128")
    with pytest.raises(ConfigurationError) as caught:
        make().proxy(Address("http", "10.0.0.2", "/b"))
    assert "sec" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "url",
    ["http://user:p%40ss@p.example:3128", "https://p.example/", "http://[::1]:3128", "10.0.0.9"],
)
def test_a_proxy_may_be_named_in_each_of_these_ways(
    url: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    assert make().proxy(Address("http", "10.0.0.2", "/b")).endswith(url)


def both_stacks(endpoint: str, bucket: Bucket, **settings: str) -> None:
    """One request each."""

    async def go() -> None:
        with contextlib.closing(Aws(endpoint_url=endpoint, **settings)) as aws:
            client = Transport(aws, bucket.name, transfers=1)
            try:
                with translated("boto3"):
                    aws.client("s3").head_bucket(Bucket=bucket.name)
                assert (
                    await client.request(
                        "PUT", "a b+c", operation="PutObject", body=b"x", deadline=10
                    )
                ).ok
            finally:
                await client.close()

    asyncio.run(go())
    assert bucket.get("a b+c") == b"x"


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_both_stacks_accept_a_private_ca(
    where: str,
    secure: Server,
    bucket: Bucket,
    private_ca: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if where == "environment":
        monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    else:
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {private_ca}/ca.pem\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    both_stacks(secure.endpoint, bucket)


@pytest.mark.slow
def test_both_stacks_refuse_a_private_ca_they_were_not_told_of(
    secure: Server, bucket: Bucket
) -> None:
    with contextlib.closing(Aws(endpoint_url=secure.endpoint)) as aws:
        with pytest.raises(Unavailable) as caught, translated("boto3"):
            aws.client("s3").head_bucket(Bucket=bucket.name)
        assert "AWS_CA_BUNDLE" in caught.value.hint
    # awscrt's TLS (s2n) reports a failed handshake after 10 to 30 s, and retries.
    # The deadline comes first.
    with pytest.raises(Unavailable) as caught:
        get(secure.endpoint, bucket.name, deadline=3)
    assert "AWS_CA_BUNDLE" in caught.value.hint


@pytest.fixture(params=["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def aged(
    request: pytest.FixtureRequest, private_ca: Path, aws_server: Emulator
) -> Iterator[tuple[str, Server]]:
    """The emulator behind a server that speaks this version alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private_ca / "server.pem", private_ca / "server.key")
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL itself would not speak the old ones
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[request.param]

    with Server(passed_on(aws_server), context=context) as server:
        yield request.param, server


@pytest.mark.slow
def test_neither_stack_speaks_less_than_tls_1_2(
    aged: tuple[str, Server], bucket: Bucket, private_ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, server = aged
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    if version in ("TLSv1_2", "TLSv1_3"):
        both_stacks(server.endpoint, bucket)
        return
    with (
        contextlib.closing(Aws(endpoint_url=server.endpoint)) as aws,
        pytest.raises(Unavailable),
        translated("boto3"),
    ):
        aws.client("s3").head_bucket(Bucket=bucket.name)
    with pytest.raises(Unavailable):
        get(server.endpoint, bucket.name, deadline=3)


@pytest.fixture
def proxy() -> Iterator[tuple[Server, list[str]]]:
    """A forward and CONNECT proxy, and the first lines of what it was asked."""
    lines: list[str] = []

    def handle(sock: socket.socket) -> None:
        request = head(sock)
        if not request:
            return
        line = request.split(b"\r\n")[0].decode()
        lines.append(line)
        method, target, _ = line.split(" ")
        url = urlsplit(target if "//" in target else f"//{target}")
        with socket.create_connection(("127.0.0.1", url.port or 0)) as behind:
            if method == "CONNECT":
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                behind.sendall(request.replace(f"http://{url.netloc}".encode(), b"", 1))
            splice(sock, behind)

    with Server(handle) as server:
        yield server, lines


def test_http_proxy_holds_for_both_stacks(
    proxy: tuple[Server, list[str]], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, lines = proxy
    monkeypatch.setenv("HTTP_PROXY", server.endpoint)
    both_stacks(bucket.server.endpoint, bucket)
    assert [line.split(" ")[0] for line in lines] == ["HEAD", "PUT"]


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        *(
            (host, True)
            for host in ("localhost", "localhost:9000", "127.0.0.1", "127.1.2.3:80", "[::1]:9000")
        ),
        *(
            (host, False)
            for host in (
                "10.0.0.1",
                "127.example.org",
                "s3.example.org",
                "[2001:db8::1]",
                "1127.0.0.1",
            )
        ),
    ],
)
def test_nobody_is_on_the_way_to_this_machine_alone(host: str, alone: bool) -> None:
    assert Address("http", host, "").is_loopback is alone


def test_https_proxy_holds_for_both_stacks(
    proxy: tuple[Server, list[str]],
    secure: Server,
    bucket: Bucket,
    private_ca: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, lines = proxy
    monkeypatch.setenv("https_proxy", server.endpoint)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca / "ca.pem"))
    both_stacks(secure.endpoint, bucket)
    assert [line.split(" ")[:2] for line in lines] == [["CONNECT", f"127.0.0.1:{secure.port}"]] * 2


def test_no_proxy_holds_for_both_stacks(
    proxy: tuple[Server, list[str]], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, lines = proxy
    monkeypatch.setenv("HTTP_PROXY", server.endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    both_stacks(bucket.server.endpoint, bucket)
    assert lines == []
