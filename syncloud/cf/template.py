"""The CloudFormation template: text, parameters and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from urllib.parse import quote_plus

from ..errors import ConfigurationError

_LITERAL_IN_A_FILTER = "/!*'()"
"""Literal characters in an S3 notification filter, in addition to letters, digits and "_.-~".

The set is the safe characters of "Naming Amazon S3 objects", and the slash.
"""


def template_text() -> str:
    """The CloudFormation template, as printed by `syncloud setup --print-template`."""
    return resources.files(__package__).joinpath("bucket_template.yaml").read_text("utf-8")


def parameters(*, bucket: str, prefix: str) -> dict[str, str]:
    """The template's parameters for a bucket and a prefix.

    The prefix is in folder form: `status/`, or empty for the whole bucket. Raises
    ConfigurationError for a prefix that no IAM policy can name.
    """
    if any(character in "*?$" or not " " <= character <= "\xff" for character in prefix):
        text = f"an IAM policy cannot name the prefix {prefix!r}"
        reason = "*, ? and $ are patterns in a policy, and only Latin-1 is allowed"
        hint = "choose another prefix, or bring your own bucket, queue and policies (docs/SETUP.md)"
        raise ConfigurationError(f"{text}: {reason}", hint=hint)
    encoded = quote_plus(prefix, safe=_LITERAL_IN_A_FILTER)
    escaped = encoded if encoded != prefix else ""
    return {"BucketName": bucket, "Prefix": prefix, "FilterPrefix": escaped}


@dataclass(frozen=True, slots=True)
class Outputs:
    """The stack's outputs. The policies belong to the roles of the hosts that push or pull."""

    bucket: str
    prefix: str
    queue_url: str
    dead_letter_queue_url: str
    region: str
    push_policy_arn: str
    pull_policy_arn: str
    account: str = ""
