"""Fast path for AWS's environment variables: keys, and optionally a region and an endpoint.

botocore reads a dozen sources, and its import takes a third of an idle pass. If none of botocore's
files exists and no other AWS variable is set, those sources are empty, and botocore is not
asked. In every other case botocore decides.

Source: "Configuration" and "Credentials" of the boto3 documentation (the sources and their order).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigurationError, learn

_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
)
_READ_HERE = frozenset(
    {*_KEYS, *_FILES, "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"}
    | {"AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_DISABLED"}
)
"""Variables that `Variables` and `Aws` read, and one that only disables another source of keys."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Static keys, with the interface of botocore's credentials."""

    access_key: str
    secret_key: str
    token: str | None
    method: str = "env"

    def get_frozen_credentials(self) -> Keys:
        return self


@dataclass(frozen=True, slots=True)
class Variables:
    """The part of a botocore session that is needed before a client, with the same results."""

    region: str | None
    keys: Keys

    def get_config_variable(self, name: str) -> str | None:
        return self.region if name == "region" else None

    def get_credentials(self) -> Keys:
        return self.keys


def admit(environ: Mapping[str, str]) -> None:
    """Register the secrets in the environment for redaction, and validate AWS's variables.

    Raises ConfigurationError with the name of a variable that no request and no path can hold, such
    as a token with a line break. Otherwise the library would quote the secret in its own error.
    """
    learn(*(environ.get(name) for name in _SECRETS))
    for name in sorted(environ):
        value = environ[name]
        if name.startswith("AWS_") and not (value.isprintable() and value == value.strip()):
            raise ConfigurationError(
                f"{name} in the environment has a line break or another control character,"
                " or a blank at its end",
                hint=f"set {name} again, and restart",
            )


def alone(environ: Mapping[str, str]) -> Variables | None:
    """The variables, or None if another source could contribute or a key is missing."""
    access_key, secret_key = (environ.get(name, "") for name in _KEYS)
    if not (access_key and secret_key):
        return None
    if any(name.startswith("AWS_") and name not in _READ_HERE for name in environ):
        return None
    if any(_is_there(file(name, environ)) for name in _FILES):
        return None
    keys = Keys(access_key, secret_key, environ.get("AWS_SESSION_TOKEN"))
    return Variables(environ.get("AWS_DEFAULT_REGION"), keys)


def file(name: str, environ: Mapping[str, str]) -> str:
    """Path at which botocore looks for the file of the variable `name`; the file may not exist."""
    return os.path.expanduser(os.path.expandvars(environ.get(name, _FILES[name])))


def _is_there(file: str) -> bool:
    return file != os.devnull and os.path.lexists(file)
