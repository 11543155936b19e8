"""The environment alone, where it suffices; botocore in every other case."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import botocore.exceptions
import botocore.session
import pytest
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import ContainerProvider, EnvProvider

from syncloud.aws import environment as variables
from syncloud.aws.session import Aws
from syncloud.errors import ConfigurationError
from tests.support.secrets import BAD, PROBE, VARIABLES

if TYPE_CHECKING:
    from pathlib import Path


SAID = (
    "region",
    "ca_bundle",
    "s3",
    "use_fips_endpoint",
    "use_dualstack_endpoint",
    "ignore_configured_endpoint_urls",
)
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
    assert (ours.access_key, ours.secret_key, ours.token or None) == (
        *theirs[:2],
        theirs[2] or None,
    )
    for name in SAID:
        assert (said.get_config_variable(name) or None) == (
            session.get_config_variable(name) or None
        ), name


def _variables_of_botocore() -> set[str]:
    """What it reads, by its own tables, and where its sources of credentials look."""
    named = [names for _, names, *_ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values() if names]
    flat = {name for names in named for name in ([names] if isinstance(names, str) else names)}
    sources = {
        EnvProvider.EXPIRY_TIME,
        *EnvProvider.TOKENS,
        ContainerProvider.ENV_VAR,
        ContainerProvider.ENV_VAR_FULL,
    }
    return {name for name in flat | sources if name.startswith("AWS_")} | {
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_REGION",
    }


def test_every_other_variable_of_botocores_is_left_to_it() -> None:
    left = _variables_of_botocore() - variables._READ_HERE
    assert {
        "AWS_PROFILE",
        "AWS_CA_BUNDLE",
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_CREDENTIAL_EXPIRATION",
    } < left
    assert variables.alone(os.environ) is not None
    assert [name for name in left if variables.alone({**os.environ, name: ""}) is not None] == []


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_key_is_left_to_botocore(missing: str) -> None:
    assert variables.alone({**os.environ, missing: ""}) is None
    assert (
        variables.alone({name: value for name, value in os.environ.items() if name != missing})
        is None
    )


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_a_file_of_botocores_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    usual = (
        tmp_path
        / ".aws"
        / {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials"}[variable]
    )
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
print(sorted(name for name in sys.modules if name in ("botocore.session", "boto3", "http.client")))
aws.client("sqs")
print(sorted(name for name in sys.modules if name in ("botocore.session", "boto3", "http.client")))
"""


def test_a_start_to_which_variables_say_everything_does_not_import_botocore() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAN], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["[]", "['boto3', 'botocore.session', 'http.client']"]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "name", [*VARIABLES, "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_CA_BUNDLE"]
)
def test_a_variable_that_no_request_can_hold_is_named(
    name: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, BAD[bad])
    with pytest.raises(ConfigurationError, match=name) as caught:
        Aws()
    assert PROBE not in f"{caught.value} {caught.value.hint}"
