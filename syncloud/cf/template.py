"""The CloudFormation template: its text, its parameters, and what a stack of it has made."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from urllib.parse import quote_plus

from ..errors import ConfigurationError

# Characters that S3 takes literally in a notification filter besides letters, digits and "_.-~" ("Naming Amazon S3 objects",
# safe characters), and the slash.
_LITERAL_IN_A_FILTER = "/!*'()"


def template_text() -> str:
    """The CloudFormation template, as `syncloud setup --print-template` prints it."""
    return resources.files(__package__).joinpath("bucket_template.yaml").read_text("utf-8")


def parameters(*, bucket: str, prefix: str) -> dict[str, str]:
    """The template's parameters for a bucket and a prefix in folder form (`status/`, or empty for the whole bucket).

    ConfigurationError for a prefix that an IAM policy cannot name.
    """
    if any(character in "*?$" or not " " <= character <= "\xff" for character in prefix):
        raise ConfigurationError(
            f"an IAM policy cannot name the prefix {prefix!r}: *, ? and $ are patterns there, and only Latin-1 is allowed",
            hint="choose another prefix, or bring your own bucket, queue and policies (docs/SETUP.md)",
        )
    encoded = quote_plus(prefix, safe=_LITERAL_IN_A_FILTER)
    return {"BucketName": bucket, "Prefix": prefix, "FilterPrefix": encoded if encoded != prefix else ""}


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the stack made; the policies are to be attached to the roles of the hosts that push or pull."""

    bucket: str
    prefix: str
    queue_url: str
    dead_letter_queue_url: str
    region: str
    push_policy_arn: str
    pull_policy_arn: str
    account: str = ""
