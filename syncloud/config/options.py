"""The option table: the name, the form and the help of each option.

To add an option, add a row to `OPTIONS` and a field to `settings.Settings` (or
`settings.Invocation`, for an act). Help, manual pages, completions and the sample file follow the
table; `parser` reads the options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

from ..core.model import ConflictPolicy
from .values import boolean, duration, folder, instance_name, like, nearest, path, pattern, whole

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "push": (
            "--directory DIR --bucket NAME [--prefix P]",
            "watch a directory and publish it under a bucket's prefix",
        ),
        "pull": (
            "--directory DIR --bucket NAME [--prefix P] --queue-url URL",
            "keep a directory equal to a bucket's prefix",
        ),
        "setup": (
            "--bucket NAME [--prefix P] [--stack-name S]",
            "create bucket, queue and their wiring with CloudFormation",
        ),
        "status": (
            "[INSTANCE] [--json]",
            "show the activity and the problems of an instance; works while it is down",
        ),
        "resume": (
            "INSTANCE [--allow-deletes]",
            "resume an instance that holds back a mass deletion",
        ),
        "demo": ("", "watch files travel, through an emulated AWS on this machine"),
    }
)
"""Command: (usage, one line of help)."""

SYNC = ("push", "pull")
AWS = ("push", "pull", "setup")
NAMED = ("push", "pull", "setup", "status", "resume")
_STATES = ("push", "pull", "status", "resume")


class Scope(Enum):
    """The places where an option can be given."""

    SETTING = "argument, environment variable, file"
    LOCATOR = "argument, environment variable"
    ACT = "argument"


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table.

    `default` is in a user's notation; without one, `unset` describes the effect. A flag has no
    `metavar`. `details` are sentences for manual pages and the sample file; `example` is that
    file's value without a default. `parse` raises ValueError. `empty`: empty text is a value.
    """

    name: str
    group: str
    commands: tuple[str, ...]
    help: str
    metavar: str = ""
    parse: Callable[[str], Any] = str
    default: str | None = None
    unset: str = ""
    choices: tuple[str, ...] = ()
    scope: Scope = Scope.SETTING
    many: bool = False
    empty: bool = False
    details: str = ""
    example: str = ""

    @property
    def dest(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return "SYNCLOUD_" + self.dest.upper()

    def value(self, raw: str) -> Any:
        """The typed value of one text. Raises ValueError, whose text completes "NAME: ..."."""
        if not raw and not self.empty:
            raise ValueError("is empty")
        if re.search(r"[\x00-\x1f\x7f]", raw):
            raise ValueError("has a control character")
        if raw == "--":
            raise ValueError("'--' cannot be a value")  # Python 3.11's argparse drops it
        if self.choices and raw not in self.choices:
            known = ", ".join(self.choices)
            raise ValueError(f"{raw!r} is none of {known}{nearest(raw, self.choices)}")
        return self.parse(raw)

    def checked(self, given: str | list[Any]) -> str | list[str]:
        """The validated texts of a file's or a variable's value. Raises ValueError."""
        if self.many:
            return self._checked_list(given)
        if isinstance(given, list):
            raise ValueError("takes one value, not a list")
        self.value(given)
        return given

    def _checked_list(self, given: str | list[Any]) -> list[str]:
        if isinstance(given, str) and "," in given:
            form = 'write a list as [a, b], and an item with a comma as ["a,b"]'
            raise ValueError(f"{form}, not {given}")
        texts = given if isinstance(given, list) else [given]
        if not all(isinstance(text, str) and text[:1] not in ("'", '"') for text in texts):
            raise ValueError("put every item of the list into double quotes, or none")
        for text in texts:
            self.value(text)
        # An empty list must override one of an earlier file, but configargparse would ignore it.
        return texts or [""]


_WHERE, _WHICH, _FILES = "source and target", "configuration", "synced files"
_PACE, _CLOUD, _SERVICE, _ACTS = "pace", "AWS or another S3", "service and log", "this run alone"
_AS_BOTO = "as set for boto3"
_ACCOUNT = like(r"[0-9]{12}", "the number of an AWS account (12 digits)")
_BUCKET = like(
    r"arn:\S+|[A-Za-z0-9][A-Za-z0-9._-]{1,254}",
    "a bucket's name (3 to 63 letters, digits, dots and hyphens; no s3://, no slash)",
)
_REGION = like(r"[a-z0-9-]+", "a region's name")
_STACK = like(
    r"[A-Za-z][A-Za-z0-9-]{0,127}", "a stack's name (letters, digits, hyphens; the first a letter)"
)
_URL = like(r"https?://[^\s/]\S*", "a URL that starts with https:// or http://")

# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("directory", _WHERE, SYNC, "the local directory", "DIR", path, example="/srv/jef",
           details="push waits until the directory exists. pull creates the directory on its first "
                   "run only and later waits for it, because an unmounted disk is not an empty "
                   "mirror."),
    Option("bucket", _WHERE, AWS, "the bucket", "NAME", _BUCKET, example="example-status",
           details="The name alone, without s3://, or the ARN of an access point."),
    Option("prefix", _WHERE, AWS, "the folder in the bucket", "P", folder, default="",
           unset="the whole bucket", empty=True, example="jef/",
           details="A missing slash at the end is added. At most 900 bytes."),
    Option("queue-url", _WHERE, ("pull",), "the SQS queue that gets the bucket's events", "URL",
           _URL, example="https://sqs.eu-central-1.amazonaws.com/111122223333/jef",
           details="Each host that pulls has a queue of its own. pull --once and --dry-run need "
                   "none."),
    Option("stack-name", _WHERE, ("setup",), "the CloudFormation stack", "S", _STACK,
           unset="syncloud-BUCKET", example="syncloud-example-status",
           details="The default has a hyphen for each character that no stack's name may have."),
    Option("write-config", _WHERE, ("setup",), "write the outputs as configuration into a new file",
           "FILE", path, example="/etc/syncloud/jef.conf",
           details="The file has the mode 0640, and comments with drop-ins that a unit may need. "
                   "An existing file is never overwritten."),
    Option("instance", _WHICH, NAMED, "read syncloud.conf and NAME.conf in /etc/syncloud", "NAME",
           instance_name, scope=Scope.LOCATOR,
           unset="for push and pull a name made from role, directory, bucket and prefix",
           details="Either file may be missing. NAME is also the instance in the log, and the name "
                   "of the state directory."),
    Option("config", _WHICH, NAMED, "read FILE instead (repeatable, the later wins)", "FILE", path,
           scope=Scope.LOCATOR, many=True,
           details="Neither syncloud.conf nor NAME.conf is read then, and each FILE must exist."),
    Option("state-dir", _WHICH, _STATES, "the directory of the state", "DIR", path,
           unset="$STATE_DIRECTORY, /var/lib/syncloud/NAME as root, or "
                 "$XDG_STATE_HOME/syncloud/NAME",
           example="/var/lib/syncloud/jef",
           details="A state belongs to one role, directory, bucket and prefix, and refuses any "
                   "other."),
    Option("delete", _FILES, SYNC, "carry deletions", parse=boolean, default="false",
           details="A file whose source was deleted while this option was off stays, even if the "
                   "option is on later."),
    Option("max-delete", _FILES, SYNC, "stop before deleting more than N per cent within an hour",
           "N", whole(0, 100), default="25",
           details="From 0 to 100, of the files on which both sides agree. Up to 100 files within "
                   "an hour are always allowed. syncloud resume --allow-deletes releases held "
                   "deletions."),
    Option("conflict", _FILES, SYNC, "the policy for a file that both sides have changed", "POLICY",
           ConflictPolicy, default="keep-both",
           choices=tuple(policy.value for policy in ConflictPolicy),
           details="keep-both keeps the target's bytes under a conflict name. source-wins "
                   "overwrites these bytes if the bucket keeps the old version; otherwise, and for "
                   "pull, source-wins acts as keep-both. skip only reports."),
    Option("exclude", _FILES, SYNC, "skip paths that match, as gitignore does (repeatable)",
           "PATTERN", pattern(False), many=True, empty=True, example="[*.tmp, cache/]",
           details="In a file or a variable, several patterns are a list: [*.tmp, cache/]. The "
                   "last pattern that matches wins, over exclude and include in their order; "
                   "patterns from files come first, then the environment, then arguments. A list, "
                   "even an empty one, replaces the list of an earlier file. A pattern with a "
                   "comma needs quotes: [\"a,b\", \"c\"]."),
    Option("include", _FILES, SYNC,
           "carry excluded paths that match; alone: carry nothing else (repeatable)", "PATTERN",
           pattern(True), many=True, empty=True, example="[*.json]",
           details="The form is that of exclude. A path below an excluded directory stays "
                   "excluded. With includes alone, the last pattern that matches a path, or a "
                   "directory above that path, decides."),
    Option("any-owner", _FILES, ("push",), "publish files of other owners", parse=boolean,
           default="false",
           details="Without this option, a service that reads everything (root, "
                   "CAP_DAC_READ_SEARCH) publishes the files of the directory's owner alone. A "
                   "file with a second name is skipped, because another user may have linked that "
                   "file there."),
    Option("world-writable", _FILES, ("pull",), "let metadata make files that everyone may write",
           parse=boolean, default="false",
           details="The umask still applies: a file gets the mode in its metadata, less the "
                   "umask."),
    Option("checksum", _FILES, SYNC, "the checksum sent with each object", "KIND", default="auto",
           choices=("auto", "crc64nvme", "none"),
           details="auto and crc64nvme send CRC64NVME; none is for a store that refuses this "
                   "checksum."),
    Option("transfers", _PACE, SYNC, "objects in transfer at a time", "N", whole(1, 1024),
           default="256",
           details="From 1 to 1024. The parts of large objects share 256 MiB of memory, in turns."),
    Option("min-interval", _PACE, ("push",), "publish one file at most once in this time", "TIME",
           duration("0s", "1h"), default="1s", details="From 0s to 1h. The newest content wins."),
    Option("reconcile-interval", _PACE, SYNC, "list everything again after this time", "TIME",
           duration("1s", "365d"), default="1h",
           details="From 1s to 365d, each time up to a tenth more or less. push reads the disk, "
                   "pull lists the prefix."),
    Option("verify-interval", _PACE, ("push",),
           "compare with a listing of the prefix after this time", "TIME", duration("1s", "365d"),
           default="24h",
           details="From 1s to 365d. The first listing of the disk after that time includes the "
                   "comparison."),
    Option("visibility-timeout", _PACE, ("pull",),
           "the time for which a message in work is hidden from others", "TIME",
           duration("10s", "12h"), default="120s",
           details="From 10s to 12h. Extended at half-life while the work lasts."),
    Option("region", _CLOUD, AWS, "the region", "NAME", _REGION, unset=_AS_BOTO,
           example="eu-central-1"),
    Option("profile", _CLOUD, AWS, "the profile in ~/.aws", "NAME", unset=_AS_BOTO,
           example="status"),
    Option("expected-bucket-owner", _CLOUD, SYNC, "the account that owns the bucket", "ACCOUNT",
           _ACCOUNT, unset="any", example="111122223333",
           details="Each request names the account. S3 then refuses a bucket of another account, "
                   "which may have claimed the name since. syncloud setup writes this setting. "
                   "Other stores ignore the account."),
    Option("endpoint-url", _CLOUD, AWS, "the address of another store than AWS", "URL", _URL,
           unset=_AS_BOTO, example="https://s3.example.org"),
    Option("ready", _SERVICE, SYNC, "the step after which systemd counts the service as up", "WHEN",
           default="started", choices=("started", "synced"),
           details="started: the service listens for changes; synced: the first reconcile is done "
                   "as well."),
    Option("log-format", _SERVICE, tuple(COMMANDS), "the form of the log", "KIND", default="auto",
           choices=("auto", "json", "text"), details="auto is json under systemd, else text."),
    Option("log-level", _SERVICE, tuple(COMMANDS), "the lowest level to log", "LEVEL",
           default="info", choices=("debug", "info", "warning", "error")),
    Option("once", _ACTS, ("push", "pull", "demo"), "run once and exit", scope=Scope.ACT),
    Option("dry-run", _ACTS, AWS, "report the changes without making any", scope=Scope.ACT),
    Option("destroy", _ACTS, ("setup",),
           "delete the stack; refused while the bucket holds anything", scope=Scope.ACT),
    Option("print-template", _ACTS, ("setup",), "print the CloudFormation template",
           scope=Scope.ACT),
    Option("allow-deletes", _ACTS, ("resume",), "allow held deletions and the loss of a mount",
           scope=Scope.ACT),
    Option("json", _ACTS, ("status",), "print one JSON object", scope=Scope.ACT),
)
# fmt: on
BY_NAME = {option.name: option for option in OPTIONS}
KEYS = tuple(option.name for option in OPTIONS if option.scope is Scope.SETTING)
VARIABLES = {option.variable: option for option in OPTIONS if option.scope is not Scope.ACT}
ACT_VARIABLES = {option.variable for option in OPTIONS if option.scope is Scope.ACT}


def options_of(command: str) -> tuple[Option, ...]:
    return tuple(option for option in OPTIONS if command in option.commands)
