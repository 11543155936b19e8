"""What boto3 is told holds for both stacks: region, address, credentials, proxy; and every error has a place in our tree."""

from __future__ import annotations

import contextlib
import datetime
import inspect
import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import botocore.session
import pytest
from awscrt.exceptions import from_code
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import ContainerProvider, EnvProvider
from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError

from syncloud import __version__
from syncloud.aws import environment as variables
from syncloud.aws.credentials import Process
from syncloud.aws.error_mapping import aws_errors, is_of_crt, refused, translate, translated
from syncloud.aws.session import Address, Aws
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
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.emulator import Emulator

    Make = Callable[..., Aws]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Aws] = []

    def aws(**settings: str) -> Aws:
        made.append(Aws(**settings))
        return made[-1]

    yield aws
    for each in made:
        each.close()


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No endpoint but AWS's own; nothing is sent there."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_DEFAULT_REGION")


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Writes the file that AWS_CONFIG_FILE names."""
    file = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))

    def write(text: str) -> None:
        file.write_text(text)

    return write


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
def test_an_endpoint_of_ones_own_needs_no_region(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(endpoint_url="http://127.0.0.1:9").region == "us-east-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert make().region == "us-east-1"


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "s3.example.org", "ftp://x", "http://"])
def test_an_endpoint_that_is_no_url_is_a_configuration_error(make: Make, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
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
        ("my.bucket", "eu-west-1", {}, Address("https", "s3.eu-west-1.amazonaws.com", "/my.bucket")),
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
        ("bucket", "r", {"AWS_ENDPOINT_URL": "http://10.0.0.1:9000"}, Address("http", "10.0.0.1:9000", "/bucket")),
        ("bucket", "r", {"AWS_ENDPOINT_URL_S3": "https://s3.example.org"}, Address("https", "s3.example.org", "/bucket")),
        ("bucket", "r", {"AWS_ENDPOINT_URL_S3": "https://e.org:443/base"}, Address("https", "e.org", "/base/bucket")),
        (
            "bucket",
            "eu-west-1",
            {"AWS_ENDPOINT_URL_SQS": "http://x:1"},
            Address("https", "bucket.s3.eu-west-1.amazonaws.com", ""),
        ),
    ],
)
def test_awscrt_sends_where_boto3_would(
    make: Make, monkeypatch: pytest.MonkeyPatch, bucket: str, region: str, environment: dict[str, str], expected: Address
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
def test_an_address_that_a_url_alone_says_is_botocores(make: Make, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    aws = make(region="eu-west-1")
    for bucket in BUCKETS:
        plain = aws._plain_address(bucket)
        with contextlib.suppress(ConfigurationError):
            assert plain in (None, aws._find_address(bucket))
    simple = "amazonaws" not in endpoint and endpoint.count("/") == 2 + endpoint.endswith("/") and "[" not in endpoint
    assert [aws._plain_address(bucket) is not None for bucket in BUCKETS] == [simple, simple, False, False, False, simple]


@pytest.mark.usefixtures("amazon")
@pytest.mark.parametrize("region", ["us-east-1", "aws-global", "cn-north-1", "us-gov-west-1", "r", "s3-external-1"])
def test_an_address_that_a_url_alone_says_is_that_of_every_region(make: Make, region: str) -> None:
    aws = make(region=region, endpoint_url="http://10.0.0.1:9000")
    assert aws._plain_address("bucket") == aws._find_address("bucket") == Address("http", "10.0.0.1:9000", "/bucket")


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
def test_the_addressing_style_of_the_profile_holds(make: Make, profiles: Callable[[str], None]) -> None:
    profiles(
        "[profile path]\nregion = eu-west-1\ns3 =\n  addressing_style = path\n"
        "[profile given]\ns3 =\n  addressing_style = virtual\n"
        "[profile virtual]\nendpoint_url = https://s3.example.org:9000\ns3 =\n  addressing_style = virtual\n"
    )
    assert make(profile="path").s3_address("b1b").url == "https://s3.eu-west-1.amazonaws.com/b1b"
    assert make(profile="virtual").s3_address("b1b").url == "https://b1b.s3.example.org:9000"
    given = make(profile="given", region="eu-west-1", endpoint_url="https://s3.example.org:9000")
    assert given.s3_address("b1b").url == "https://b1b.s3.example.org:9000"


def test_a_bucket_name_that_cannot_be_is_a_configuration_error(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="Bad Bucket"):
        make().s3_address("Bad Bucket")


# --- where variables say everything

SAID = ("region", "ca_bundle", "s3", "use_fips_endpoint", "use_dualstack_endpoint", "ignore_configured_endpoint_urls")
"""What is asked of a session before a client is made."""


@pytest.mark.parametrize("token", ["", "t", None])
@pytest.mark.parametrize("region", ["eu-west-3", "", None])
def test_what_variables_say_is_what_botocore_says(
    monkeypatch: pytest.MonkeyPatch, region: str | None, token: str | None
) -> None:
    for name, value in (("AWS_DEFAULT_REGION", region), ("AWS_SESSION_TOKEN", token)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    said, session = variables.alone(os.environ), botocore.session.Session()
    found = session.get_credentials()
    assert said is not None
    assert found is not None
    theirs, ours = found.get_frozen_credentials(), said.get_credentials().get_frozen_credentials()
    assert (ours.access_key, ours.secret_key, ours.token or None) == (*theirs[:2], theirs[2] or None)
    for name in SAID:
        assert (said.get_config_variable(name) or None) == (session.get_config_variable(name) or None), name


def _variables_of_botocore() -> set[str]:
    """What it reads, by its own tables, and where its sources of credentials look."""
    named = [names for _, names, *_ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values() if names]
    flat = {name for names in named for name in ([names] if isinstance(names, str) else names)}
    sources = {EnvProvider.EXPIRY_TIME, *EnvProvider.TOKENS, ContainerProvider.ENV_VAR, ContainerProvider.ENV_VAR_FULL}
    return {name for name in flat | sources if name.startswith("AWS_")} | {"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_REGION"}


def test_every_other_variable_of_botocores_is_left_to_it() -> None:
    left = _variables_of_botocore() - variables._READ_HERE
    assert {"AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_USE_FIPS_ENDPOINT", "AWS_CREDENTIAL_EXPIRATION"} < left
    assert variables.alone(os.environ) is not None
    assert [name for name in left if variables.alone({**os.environ, name: ""}) is not None] == []


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_key_is_left_to_botocore(missing: str) -> None:
    assert variables.alone({**os.environ, missing: ""}) is None
    assert variables.alone({name: value for name, value in os.environ.items() if name != missing}) is None


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_a_file_of_botocores_is_left_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    usual = tmp_path / ".aws" / {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials"}[variable]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(variable)
    assert variables.alone(os.environ) is not None
    usual.parent.mkdir()
    usual.touch()
    assert variables.alone(os.environ) is None
    monkeypatch.setenv(variable, "$HOME/elsewhere")
    assert variables.alone(os.environ) is not None
    (tmp_path / "elsewhere").touch()
    assert variables.alone(os.environ) is None


LEAN = """
import sys
from syncloud.cli import main
from syncloud.aws.session import Aws

aws = Aws()
aws.credentials.start()
aws.credentials.check()
assert aws.proxy(aws.s3_address("bucket")) == ""
print(sorted(name for name in sys.modules if name in ("botocore.session", "boto3")))
aws.client("sqs")
print(sorted(name for name in sys.modules if name in ("botocore.session", "boto3")))
"""


def test_a_start_to_which_variables_say_everything_does_not_import_botocore() -> None:
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["[]", "['boto3', 'botocore.session']"]


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


# --- credentials


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


@pytest.mark.usefixtures("nobody")
def test_credentials_that_come_later_are_found(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    aws = make()
    aws.credentials.start()
    with pytest.raises(CredentialsError, match="no AWS credentials"):
        aws.credentials.check()
    with pytest.raises(CredentialsError, match="no AWS credentials"):
        aws.client("s3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    aws.credentials.refresh()
    aws.credentials.check()
    aws.client("s3")


def _ends_in(seconds: float) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).isoformat()


def test_expired_credentials_are_named_and_renewed_ones_are_used(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(3600))
    aws = make()
    look = aws.credentials.refresh
    assert look() == aws.credentials.CHECK_INTERVAL_S
    aws.credentials.check()
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(-60))
    _end_now(aws)
    pauses = [look(), look(), look()]
    assert pauses == [1, 2, 4], "soon after a failure, then less often"
    with pytest.raises(CredentialsError, match="have expired"):
        aws.credentials.check()
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(3600))
    assert look() == aws.credentials.CHECK_INTERVAL_S
    aws.credentials.check()


def test_credentials_about_to_end_are_looked_at_each_second(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lives for less than the time between two looks would otherwise be found out by the store's refusal."""
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(10))
    aws = make()
    assert aws.credentials.refresh() == 1
    aws.credentials.check()


def _end_now(aws: Aws) -> None:
    """botocore reads the end when it renews: let what it holds be over."""
    source: Any = aws.credentials._source
    source._expiry_time = datetime.datetime.now(datetime.UTC)


def test_a_renewal_that_fails_before_the_end_changes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(300))  # within botocore's last ten minutes: renewal must work
    aws = make()
    aws.credentials.refresh()
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", _ends_in(-60))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert aws.credentials.refresh() < aws.credentials.CHECK_INTERVAL_S
    aws.credentials.check()


@pytest.mark.usefixtures("nobody")
def test_a_credentials_file_that_is_written_anew_is_read_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    file.write_text("[p]\naws_access_key_id = OLD\naws_secret_access_key = S\n")
    aws = make(profile="p")
    held = aws.client("s3")._request_signer._credentials
    aws.credentials.refresh()
    assert held.access_key == "OLD"
    file.write_text("")  # whoever writes it anew may have begun only
    aws.credentials.refresh()
    aws.credentials.check()
    assert held.access_key == "OLD"
    file.write_text("[p]\naws_access_key_id = NEW\naws_secret_access_key = S\naws_session_token = T\n")
    aws.credentials.refresh()
    assert (held.access_key, held.token) == ("NEW", "T")


@pytest.mark.usefixtures("nobody")
def test_a_credential_process_is_asked(make: Make, profiles: Callable[[str], None], tmp_path: Path) -> None:
    answer = {"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "S", "SessionToken": "T", "Expiration": _ends_in(3600)}
    (tmp_path / "answer.py").write_text(f"print({json.dumps(answer)!r})")
    profiles(f"[profile p]\ncredential_process = {sys.executable} {tmp_path}/answer.py\n")
    aws = make(profile="p")
    aws.credentials.start()
    held = aws.credentials.provider().get_credentials().result(timeout=5)
    assert (held.access_key_id, held.secret_access_key, held.session_token) == ("A", "S", "T")


HANGING = """
import datetime, json, subprocess, sys, time
from pathlib import Path
asked = Path({place!r}) / "asked"
asked.write_text((asked.read_text() if asked.exists() else "") + ".")
if len(asked.read_text()) in {hangs}:
    if {held}: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6)"], start_new_session=True)
    time.sleep(20)
end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={life})
print(json.dumps(dict(Version=1, AccessKeyId="A", SecretAccessKey="S", SessionToken="T", Expiration=end.isoformat())))
"""


@pytest.mark.parametrize("held", [False, True], ids=["alone", "with a child that holds its pipes"])
@pytest.mark.usefixtures("nobody")
def test_a_credential_process_that_hangs_is_ended_and_nobody_waits_for_it_for_ever(
    make: Make, profiles: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, held: bool
) -> None:
    """botocore asks it under a lock that the queue's client needs, too: it would hang without a word."""
    monkeypatch.setattr(Process, "TIMEOUT_S", 2.0)
    hanging = HANGING.format(place=str(tmp_path), hangs=(2, 3, 4), life=60, held=held)
    (tmp_path / "hanging.py").write_text(hanging)
    profiles(f"[profile p]\ncredential_process = {sys.executable} {tmp_path}/hanging.py\n")
    aws = make(profile="p")
    aws.credentials.refresh()  # the last minute has begun already: each use renews them
    client = aws.client("sqs")
    ended: list[object] = []

    def asks() -> None:
        with pytest.raises(CredentialRetrievalError, match="no answer within 2 s"):
            client.list_queues()
        ended.append(client)

    threads = [threading.Thread(target=asks, daemon=True), threading.Thread(target=aws.credentials.refresh, daemon=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert not [thread for thread in threads if thread.is_alive()]
    assert ended == [client]
    aws.credentials.refresh()
    aws.credentials.refresh()
    aws.credentials.check()


@pytest.mark.usefixtures("nobody")
def test_the_process_of_a_roles_source_is_ended_as_well(
    make: Make, profiles: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process, "TIMEOUT_S", 1.0)
    (tmp_path / "hanging.py").write_text(HANGING.format(place=str(tmp_path), hangs=(1,), life=60, held=False))
    source = f"[profile source]\ncredential_process = {sys.executable} {tmp_path}/hanging.py\n"
    profiles(f"{source}[profile p]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = source\n")
    aws = make(profile="p")
    aws.credentials.refresh()
    with pytest.raises(CredentialsError, match="no answer within 1 s"):
        aws.credentials.check()


def test_the_thread_ends_with_close(make: Make) -> None:
    aws = make()
    aws.credentials.start()
    assert "credentials" in {thread.name for thread in threading.enumerate()}
    aws.close()
    assert "credentials" not in {thread.name for thread in threading.enumerate()}


# --- TLS and proxy: the rest is in test_crt.py, over the wire


def test_a_ca_bundle_that_cannot_be_read_is_a_configuration_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem"):
        make().tls()


def test_the_proxy_is_the_one_for_the_scheme_and_not_for_what_is_excluded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "10.0.0.1")
    aws = make()
    assert aws.proxy(Address("http", "10.0.0.2", "/b")) == "http://127.0.0.1:9"
    assert aws.proxy(Address("https", "10.0.0.2", "/b")) == "", "HTTP_PROXY is not for https"
    assert aws.proxy(Address("http", "10.0.0.1", "/b")) == ""


@pytest.mark.parametrize("url", ["http://:9", "socks5://127.0.0.1:1080", "http://host:port", "http://h:65536"])
def test_a_proxy_that_is_no_url_is_a_configuration_error(url: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    with pytest.raises(ConfigurationError, match=r"HTTP_PROXY\) is not the URL of an HTTP proxy"):
        make().proxy(Address("http", "10.0.0.2", "/b"))


def test_the_password_of_a_proxy_is_told_to_nobody(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:sec/ret@10.0.0.9:3128")
    with pytest.raises(ConfigurationError) as caught:
        make().proxy(Address("http", "10.0.0.2", "/b"))
    assert "sec" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("url", ["http://user:p%40ss@p.example:3128", "https://p.example/", "http://[::1]:3128", "10.0.0.9"])
def test_a_proxy_may_be_named_in_each_of_these_ways(url: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    assert make().proxy(Address("http", "10.0.0.2", "/b")).endswith(url)


# --- errors


def _family(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from _family(child)


OUTSIDE = {"UndefinedModelAttributeError", "MissingServiceIdError"}
"""Of botocore.exceptions: faults in botocore's own description of a service, which no setting and no time mends."""


def test_every_exception_of_botocore_is_one_that_is_translated() -> None:
    kinds = [kind for kind in vars(botocore.exceptions).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
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
        (403, "SignatureDoesNotMatch", "Signature expired: 2020 is now earlier than 2026", CredentialsError, "clock"),
        (403, "RequestTimeTooSkewed", "", CredentialsError, "clock"),
        (403, "InvalidClientTokenId", "", CredentialsError, ""),
        (400, "400", "Bad Request", CredentialsError, "expired"),
        (403, "AccessDenied", "", PermissionRefused, ""),
        (403, "403", "Forbidden", PermissionRefused, ""),
        (400, "KMS.DisabledException", "", PermissionRefused, "KMS"),
        (403, "AccessDenied", "not authorized to perform: kms:GenerateDataKey", PermissionRefused, "KMS"),
        (400, "KMS.ThrottlingException", "", Unavailable, "slowly"),
        (404, "NoSuchBucket", "", Unavailable, "s3://b must exist"),
        (400, "AWS.SimpleQueueService.NonExistentQueue", "", Unavailable, "must exist"),
        (400, "QueueDoesNotExist", "", Unavailable, "must exist"),
        (301, "PermanentRedirect", "", Elsewhere, "region"),
        (301, "301", "Moved Permanently", Unavailable, "portal"),
        (307, "TemporaryRedirect", "", Unavailable, "portal"),
        (400, "AuthorizationHeaderMalformed", "'us-east-1' is wrong; expecting 'eu-west-1'", ConfigurationError, "eu-west-1"),
        (400, "IllegalLocationConstraintException", "The eu-central-1 location constraint", ConfigurationError, "eu-central-1"),
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
def test_answers(status: int, code: str, message: str, expected: type[SyncloudError], hint: str) -> None:
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
    assert "eu-west-2" in refused("x", status=301, code="PermanentRedirect", region="eu-west-2").hint
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
    assert is_of_crt(RuntimeError("2058 (AWS_ERROR_HTTP_CONNECTION_CLOSED): The connection has closed"))
    assert is_of_crt(_crt_errors()["AWS_IO_SOCKET_CONNECTION_REFUSED"])
    assert not [
        error for error in (RecursionError(), NotImplementedError(), ValueError(), Unavailable("x")) if is_of_crt(error)
    ]


def _crt_errors() -> dict[str, Any]:
    """awscrt numbers its errors by library, 1,024 each (aws-c-common, error.h)."""
    errors = [from_code(number) for number in range(1024, 16 * 1024)]
    return {getattr(error, "name", ""): error for error in errors}


def test_an_answer_that_botocore_cannot_read_is_not_repeated() -> None:
    """It makes the body the message. Found by `test_no_secret_is_logged_or_kept`, when SQS had to answer in time for it."""
    answer: Any = {
        "Error": {"Code": "400", "Message": "<Error><Token-0>secret</Token-0></Error>"},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }
    error = translate(ClientError(answer, "ReceiveMessage"), "use the queue")
    assert (str(error), error.code) == ("use the queue: 400: Bad Request", "400")
