"""The option table: each option's name, form and help, and the typed values that result.

To add an option, add it to `OPTIONS` and to `Settings` (or `Invocation`, for an act). Help, manual
pages, completions and the sample file follow the table; `parser` reads the options.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..core.filters import Filter
from ..core.model import ConflictPolicy
from ..errors import ConfigurationError

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
            "make bucket, queue and their wiring with CloudFormation",
        ),
        "status": (
            "[INSTANCE] [--json]",
            "show what an instance does and what it cannot do; works while it is down",
        ),
        "resume": (
            "INSTANCE [--allow-deletes]",
            "let an instance go on that holds back a mass deletion",
        ),
        "demo": ("", "watch files travel, through an emulated AWS on this machine"),
    }
)
"""Command: (usage, one line of help)."""

SYNC = ("push", "pull")
AWS = ("push", "pull", "setup")
NAMED = ("push", "pull", "setup", "status", "resume")
SYSTEM_STATES = Path("/var/lib/syncloud")
"""The directory of states for root's instances and for the units' instances."""


class Scope(Enum):
    """The places where an option can be given."""

    SETTING = "argument, environment variable, file"
    LOCATOR = "argument, environment variable"
    ACT = "argument"


def nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


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
            raise ValueError(
                f"{raw!r} is none of {', '.join(self.choices)}{nearest(raw, self.choices)}"
            )
        return self.parse(raw)

    def checked(self, given: str | list[Any]) -> str | list[str]:
        """The validated texts of a file's or a variable's value. Raises ValueError."""
        if not self.many:
            if isinstance(given, list):
                raise ValueError("takes one value, not a list")
            self.value(given)
            return given
        if isinstance(given, str) and "," in given:
            raise ValueError(
                f'write a list as [a, b], and an item with a comma as ["a,b"], not {given}'
            )
        texts = given if isinstance(given, list) else [given]
        if not all(isinstance(text, str) and text[:1] not in ("'", '"') for text in texts):
            raise ValueError("put every item of the list into double quotes, or none")
        for text in texts:
            self.value(text)
        # An empty list must override one of an earlier file, but configargparse would ignore it.
        return texts or [""]


def _boolean(raw: str) -> bool:
    # The words are those of configargparse, so that both parsers agree.
    if raw.lower() not in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        raise ValueError(f"{raw!r} is neither true nor false")
    return raw.lower() in ("true", "yes", "on", "1")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", raw) or not low <= int(raw) <= high:
            raise ValueError(f"{raw!r} is not a whole number from {low} to {high}")
        return int(raw)

    return parse


_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(raw: str) -> float:
    """Seconds of `500ms`, `30s`, `5m`, `12h`, `1d`, `1.5h` or a bare number. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d|)", raw)
    if not match:
        raise ValueError(f"{raw!r} is not a duration such as 500ms, 30s, 5m, 12h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def _duration(low: str, high: str) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        if not seconds(low) <= seconds(raw) <= seconds(high):
            raise ValueError(f"{raw!r} is not from {low} to {high}")
        return seconds(raw)

    return parse


def _like(pattern: str, what: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if not re.fullmatch(pattern, raw):
            raise ValueError(f"{raw!r} is not {what}")
        return raw

    return parse


def _path(raw: str) -> Path:
    try:
        return Path(raw).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{raw!r}: {error}") from error


def folder(raw: str) -> str:
    """A prefix's canonical form: empty, or with one trailing slash. The maximum is 900 bytes,
    because a key has 1,024 and paths need the rest. Raises ValueError.
    """
    if raw.startswith("/"):
        raise ValueError(f"{raw!r} starts with a slash; for the whole bucket leave it out")
    whole = raw if raw.endswith("/") or not raw else raw + "/"
    if any(part in ("", ".", "..") for part in whole.split("/")[:-1]):
        raise ValueError(f"{raw!r} has an empty, '.' or '..' component")
    try:
        size = len(whole.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{raw!r} is not valid UTF-8") from None
    if size > 900:
        raise ValueError(f"has {size} bytes; at most 900 leave room for paths")
    return whole


def instance_name(raw: str) -> str:
    """A systemd instance name (%i): one file name without a colon, because a colon ends a path in
    StateDirectory= (systemd.exec(5)). Raises ValueError.
    """
    if not re.fullmatch(r"(?![-])[A-Za-z0-9_.\\@-]{1,200}", raw) or raw in (".", ".."):
        raise ValueError(
            f"{raw!r} is not an instance name: up to 200 letters, digits and _ . \\ @ -, the first no hyphen"
        )
    if raw == "syncloud":
        raise ValueError("'syncloud' cannot be an instance: syncloud.conf is read for every one")
    return raw


def _pattern(include: bool) -> Callable[[str], tuple[bool, str]]:
    def parse(raw: str) -> tuple[bool, str]:
        try:
            Filter([(include, raw)])
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return include, raw

    return parse


_WHERE, _WHICH, _WHAT = "what goes where", "which configuration", "what is carried"
_PACE, _CLOUD, _MANNERS, _ACTS = "pace", "AWS or another S3", "manners", "once, now"
_BUCKET = _like(
    r"arn:\S+|[A-Za-z0-9][A-Za-z0-9._-]{1,254}",
    "a bucket's name (3 to 63 letters, digits, dots and hyphens; no s3://, no slash)",
)
_STACK = _like(
    r"[A-Za-z][A-Za-z0-9-]{0,127}", "a stack's name (letters, digits, hyphens; the first a letter)"
)
_URL = _like(r"https?://[^\s/]\S*", "a URL that starts with https:// or http://")

# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("directory", _WHERE, SYNC, "the local directory", "DIR", _path, example="/srv/jef",
           details="push waits until it is there. pull makes it on its first run only and waits for it later, because an "
                   "unmounted disk is not an empty mirror."),
    Option("bucket", _WHERE, AWS, "the bucket", "NAME", _BUCKET, example="example-status",
           details="Its name alone, without s3://, or an access point's ARN."),
    Option("prefix", _WHERE, AWS, "the folder in the bucket", "P", folder, default="", unset="the whole bucket", empty=True,
           example="jef/", details="A trailing slash is added where there is none. At most 900 bytes."),
    Option("queue-url", _WHERE, ("pull",), "the SQS queue that gets the bucket's events", "URL", _URL,
           example="https://sqs.eu-central-1.amazonaws.com/111122223333/jef",
           details="Each host that pulls has a queue of its own. pull --once and --dry-run need none."),
    Option("stack-name", _WHERE, ("setup",), "the CloudFormation stack", "S", _STACK, unset="syncloud-BUCKET",
           example="syncloud-example-status", details="In the default, what a stack's name cannot hold becomes a hyphen."),
    Option("write-config", _WHERE, ("setup",), "write the outputs as configuration into a new file", "FILE", _path,
           example="/etc/syncloud/jef.conf", details="The file's mode is 0640. Comments in it offer drop-ins that a unit may "
                   "need. An existing file is never overwritten."),
    Option("instance", _WHICH, NAMED, "read syncloud.conf and NAME.conf in /etc/syncloud", "NAME", instance_name,
           unset="for push and pull a name made from role, directory, bucket and prefix", scope=Scope.LOCATOR,
           details="Either file may be missing. NAME is also the instance in the log, and the name of its state directory."),
    Option("config", _WHICH, NAMED, "read FILE instead (repeatable, the later wins)", "FILE", _path,
           scope=Scope.LOCATOR, many=True,
           details="Neither syncloud.conf nor NAME.conf is read then, and each FILE must exist."),
    Option("state-dir", _WHICH, ("push", "pull", "status", "resume"), "where the state is", "DIR", _path,
           unset="$STATE_DIRECTORY, /var/lib/syncloud/NAME as root, or $XDG_STATE_HOME/syncloud/NAME",
           example="/var/lib/syncloud/jef",
           details="One state belongs to one role, directory, bucket and prefix, and refuses another."),
    Option("delete", _WHAT, SYNC, "carry deletions, too", parse=_boolean, default="false",
           details="What was deleted while this was off stays, even when it is turned on later."),
    Option("max-delete", _WHAT, SYNC, "stop before deleting more than N per cent within an hour", "N", _whole(0, 100),
           default="25",
           details="From 0 to 100, of the files on which both sides agree. Up to 100 files within an hour are always allowed. "
                   "syncloud resume --allow-deletes lets it go on."),
    Option("conflict", _WHAT, SYNC, "what to do when both sides changed", "POLICY", ConflictPolicy, default="keep-both",
           choices=tuple(policy.value for policy in ConflictPolicy),
           details="keep-both sets the target's bytes aside under a conflict name; source-wins overwrites them where the "
                   "bucket keeps the old version, else, and for pull, it does as keep-both; skip only reports."),
    Option("exclude", _WHAT, SYNC, "leave out what matches, as gitignore does (repeatable)", "PATTERN", _pattern(False),
           many=True, empty=True, example="[*.tmp, cache/]",
           details="In a file or a variable several are a list: [*.tmp, cache/]. The last pattern that matches wins, over "
                   "exclude and include in their order; those from files come first, then the environment, then arguments. "
                   "A list replaces that of an earlier file, also an empty one. A pattern with a comma needs quotes: "
                   "[\"a,b\", \"c\"]."),
    Option("include", _WHAT, SYNC, "take back what was excluded; alone: carry nothing else (repeatable)", "PATTERN",
           _pattern(True), many=True, empty=True, example="[*.json]",
           details="Written as exclude is. What is below an excluded directory cannot be taken back. With includes alone the "
                   "last pattern that matches a path, or a directory above it, decides."),
    Option("any-owner", _WHAT, ("push",), "publish what belongs to others, too", parse=_boolean, default="false",
           details="Without it, a service that reads everything (root, CAP_DAC_READ_SEARCH) publishes the files of the "
                   "directory's owner alone, and none that has a second name: others may have put it there."),
    Option("world-writable", _WHAT, ("pull",), "let metadata make files that all may write", parse=_boolean, default="false",
           details="What the umask takes away stays away: files get the mode that the metadata says, less the umask."),
    Option("checksum", _WHAT, SYNC, "the checksum sent with each object", "KIND", default="auto",
           choices=("auto", "crc64nvme", "none"),
           details="auto and crc64nvme send CRC64NVME; none is for a store that refuses it."),
    Option("transfers", _PACE, SYNC, "objects in transfer at a time", "N", _whole(1, 1024), default="256",
           details="From 1 to 1024. The parts of large ones share 256 MiB of memory, in turns."),
    Option("min-interval", _PACE, ("push",), "publish one file at most once in this time", "TIME", _duration("0s", "1h"),
           default="1s", details="From 0s to 1h. The newest content wins."),
    Option("reconcile-interval", _PACE, SYNC, "look at everything again after this time", "TIME",
           _duration("1s", "365d"), default="1h",
           details="From 1s to 365d, each time up to a tenth more or less. push reads the disk, pull lists the prefix."),
    Option("verify-interval", _PACE, ("push",), "compare with a listing of the prefix after this time", "TIME",
           _duration("1s", "365d"), default="24h",
           details="From 1s to 365d. It happens at the first look at everything after that time."),
    Option("visibility-timeout", _PACE, ("pull",), "how long a message in work is hidden from others", "TIME",
           _duration("10s", "12h"), default="120s", details="From 10s to 12h. Extended at half-life while the work lasts."),
    Option("region", _CLOUD, AWS, "the region", "NAME", _like(r"[a-z0-9-]+", "a region's name"), unset="as set for boto3",
           example="eu-central-1"),
    Option("profile", _CLOUD, AWS, "the profile in ~/.aws", "NAME", unset="as set for boto3", example="status"),
    Option("expected-bucket-owner", _CLOUD, SYNC, "the account that the bucket belongs to", "ACCOUNT",
           _like(r"[0-9]{12}", "the number of an AWS account (12 digits)"), unset="any", example="111122223333",
           details="Said with each request: S3 refuses it where the bucket belongs to another account, which may have claimed "
                   "the name since. syncloud setup writes it down. Other stores ignore it."),
    Option("endpoint-url", _CLOUD, AWS, "the address of another store than AWS", "URL", _URL, unset="as set for boto3",
           example="https://s3.example.org"),
    Option("ready", _MANNERS, SYNC, "when systemd is told that the service is up", "WHEN", default="started",
           choices=("started", "synced"),
           details="started: changes are listened for; synced: the first reconcile is done as well."),
    Option("log-format", _MANNERS, tuple(COMMANDS), "how to log", "KIND", default="auto", choices=("auto", "json", "text"),
           details="auto is json under systemd, else text."),
    Option("log-level", _MANNERS, tuple(COMMANDS), "the least level to log", "LEVEL", default="info",
           choices=("debug", "info", "warning", "error")),
    Option("once", _ACTS, ("push", "pull", "demo"), "do it once and exit", scope=Scope.ACT),
    Option("dry-run", _ACTS, AWS, "say what would be done, change nothing", scope=Scope.ACT),
    Option("destroy", _ACTS, ("setup",), "take the stack down; refused while the bucket holds anything", scope=Scope.ACT),
    Option("print-template", _ACTS, ("setup",), "print the CloudFormation template", scope=Scope.ACT),
    Option("allow-deletes", _ACTS, ("resume",), "allow what was stopped: deletions, a mount that has gone", scope=Scope.ACT),
    Option("json", _ACTS, ("status",), "print one JSON object", scope=Scope.ACT),
)
# fmt: on
BY_NAME = {option.name: option for option in OPTIONS}
KEYS = tuple(option.name for option in OPTIONS if option.scope is Scope.SETTING)
VARIABLES = {option.variable: option for option in OPTIONS if option.scope is not Scope.ACT}
ACT_VARIABLES = {option.variable for option in OPTIONS if option.scope is Scope.ACT}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force: intervals and timeouts in seconds, `max_delete` in per cent.

    Settings without use in a command are None or empty. Without an instance, `instance` is empty
    and `state_dir` is the parent of all states. `patterns` is for `filters.Filter`. `sources` names
    each option's origin: "default", "argument", "environment SYNCLOUD_X" or "FILE:LINE".
    """

    instance: str
    state_dir: Path
    directory: Path | None
    bucket: str
    prefix: str
    queue_url: str | None
    stack_name: str
    write_config: Path | None
    delete: bool
    max_delete: int
    conflict: ConflictPolicy
    patterns: tuple[tuple[bool, str], ...]
    any_owner: bool
    world_writable: bool
    checksum: str
    transfers: int
    min_interval: float
    reconcile_interval: float
    verify_interval: float
    visibility_timeout: float
    region: str | None
    profile: str | None
    endpoint_url: str | None
    expected_bucket_owner: str | None
    ready: str
    log_format: str
    log_level: str
    sources: Mapping[str, str] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command with its settings; the other fields are acts, which only arguments can set."""

    command: str
    settings: Settings
    argv: tuple[str, ...] = field(default=(), compare=False, repr=False)
    once: bool = False
    dry_run: bool = False
    destroy: bool = False
    print_template: bool = False
    allow_deletes: bool = False
    json: bool = False


def complete(
    values: dict[str, Any],
    *,
    instance: str,
    sources: Mapping[str, str],
    environ: Mapping[str, str],
    uid: int,
) -> Settings:
    """The settings from typed `values`, after derived values are filled in."""
    stack = (
        re.sub(r"[^A-Za-z0-9-]", "-", f"syncloud-{values['bucket']}")[:128]
        if values["bucket"]
        else "syncloud"
    )
    values["stack_name"] = values["stack_name"] or stack
    values["state_dir"] = values["state_dir"] or _state_dir(instance, environ, uid)
    values["bucket"] = values["bucket"] or ""
    return Settings(
        **values | {"instance": instance, "patterns": tuple(values["patterns"]), "sources": sources}
    )


def pair_name(command: str, values: Mapping[str, Any]) -> str:
    """The default instance name of a pair: short, readable, and equal at every start."""
    if command not in SYNC:
        return ""
    directory: Path = values["directory"]
    pair = "\0".join((command, str(directory), values["bucket"], values["prefix"]))
    digest = hashlib.blake2s(os.fsencode(pair), digest_size=4).hexdigest()
    return f"{command}-{re.sub(r'[^A-Za-z0-9_.-]', '-', directory.name)[:32] or 'root'}-{digest}"


def _state_dir(instance: str, environ: Mapping[str, str], uid: int) -> Path:
    """By systemd.exec(5) (colon list) or XDG base directory specification (absolute paths only)."""
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].partition(":")[0])
    if uid == 0:
        return SYSTEM_STATES / instance
    home = Path(environ.get("XDG_STATE_HOME", ""))
    if not home.is_absolute():
        home = Path(environ.get("HOME") or Path.home(), ".local/state")
    return home / "syncloud" / instance
