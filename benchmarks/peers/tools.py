"""syncloud and its peers as command lines.

Up is a directory to a prefix, down is a prefix to a directory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = "syncloud"
BUCKET = "bench"
KEY = "benchmark-key-0123456789"
"""mc wants eight characters at least."""
_BIN = Path(sys.executable).parent


def environment(endpoint: str, home: Path) -> dict[str, str]:
    """Nothing of the user's own; each tool finds the store in its own way."""
    url = urlsplit(endpoint)
    return {
        "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
        # The syncloud of this checkout, whatever else is installed.
        "PYTHONPATH": str(CHECKOUT),
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "S3_ENDPOINT_URL": endpoint,
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_X_TYPE": "s3",
        "RCLONE_CONFIG_X_PROVIDER": "Other",
        "RCLONE_CONFIG_X_ENDPOINT": endpoint,
        "RCLONE_CONFIG_X_ACCESS_KEY_ID": KEY,
        "RCLONE_CONFIG_X_SECRET_ACCESS_KEY": KEY,
        "MC_HOST_x": f"{url.scheme}://{KEY}:{KEY}@{url.netloc}",
        "MC_CONFIG_DIR": str(home / "mc"),
    }


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as two command lines: `up(directory, prefix)` and `down(prefix, directory)`.

    `prefix` ends in a slash.
    """

    name: str
    up: Callable[[Path, str], list[str]]
    down: Callable[[str, Path], list[str]]
    again: Callable[[Path, str], list[str]] = field(default=lambda directory, prefix: [])
    """As `up`, where nothing is to be done."""
    watch: Callable[[Path, str], list[str]] = field(default=lambda directory, prefix: [])
    """As a daemon, from its start on."""


def state_of(directory: Path) -> Path:
    """Beside the directory, and known by its name: the memory of a pair."""
    return directory.parent / f"{directory.name}.state"


def _push(directory: Path, prefix: str) -> list[str]:
    pair = [
        "--directory",
        str(directory),
        "--bucket",
        BUCKET,
        "--prefix",
        prefix,
        "--state-dir",
        str(state_of(directory)),
    ]
    return [str(_BIN / "syncloud"), "push", *pair, "--log-format", "json", "--log-level", "warning"]


def _pull(prefix: str, directory: Path) -> list[str]:
    pair = [
        "--directory",
        str(directory),
        "--bucket",
        BUCKET,
        "--prefix",
        prefix,
        "--state-dir",
        str(state_of(directory)),
    ]
    return [str(_BIN / "syncloud"), "pull", *pair, "--log-format", "json", "--log-level", "warning"]


SYNCLOUD = Tool(
    OURS,
    lambda directory, prefix: [*_push(directory, prefix), "--once"],
    lambda prefix, directory: [*_pull(prefix, directory), "--once"],
    lambda directory, prefix: [*_push(directory, prefix), "--once"],
    lambda directory, prefix: [*_push(directory, prefix), "--log-level", "info"],
)
S5CMD = Tool(
    "s5cmd",
    lambda directory, prefix: [
        "s5cmd",
        "--log",
        "error",
        "cp",
        f"{directory}/",
        f"s3://{BUCKET}/{prefix}",
    ],
    lambda prefix, directory: [
        "s5cmd",
        "--log",
        "error",
        "cp",
        f"s3://{BUCKET}/{prefix}*",
        f"{directory}/",
    ],
    lambda directory, prefix: [
        "s5cmd",
        "--log",
        "error",
        "sync",
        f"{directory}/",
        f"s3://{BUCKET}/{prefix}",
    ],
)
_RCLONE = ["rclone", "--quiet", "--transfers", "64", "--checkers", "64"]
RCLONE = Tool(
    "rclone",
    lambda directory, prefix: [*_RCLONE, "copy", str(directory), f"x:{BUCKET}/{prefix}"],
    lambda prefix, directory: [*_RCLONE, "copy", f"x:{BUCKET}/{prefix}", str(directory)],
    lambda directory, prefix: [*_RCLONE, "copy", str(directory), f"x:{BUCKET}/{prefix}"],
)
_AWS = ["aws", "s3", "sync", "--only-show-errors"]
AWS = Tool(
    "aws s3 sync",
    lambda directory, prefix: [*_AWS, str(directory), f"s3://{BUCKET}/{prefix}"],
    lambda prefix, directory: [*_AWS, f"s3://{BUCKET}/{prefix}", str(directory)],
    lambda directory, prefix: [*_AWS, str(directory), f"s3://{BUCKET}/{prefix}"],
)


_FIELDS = r"%P %i %s %T@ %C@ %m\n"
"""What syncloud compares of each file."""
FIND = Tool(
    "find -printf",
    lambda directory, prefix: [],
    lambda prefix, directory: [],
    lambda directory, prefix: [
        "sh",
        "-c",
        f"exec find \"$0\" -type f -printf '{_FIELDS}' >/dev/null",
        str(directory),
    ],
)


def _mirror(directory: Path, prefix: str) -> list[str]:
    return [_mc() or "mc", "--quiet", "mirror", str(directory), f"x/{BUCKET}/{prefix}"]


MC = Tool(
    "mc mirror",
    _mirror,
    lambda prefix, directory: [
        _mc() or "mc",
        "--quiet",
        "mirror",
        f"x/{BUCKET}/{prefix}",
        str(directory),
    ],
    _mirror,
    lambda directory, prefix: [*_mirror(directory, prefix), "--watch"],
)


def following(prefix: str, directory: Path, queue_url: str) -> list[str]:
    """syncloud that pulls as a daemon, and says what it does."""
    return [*_pull(prefix, directory), "--queue-url", queue_url, "--log-level", "info"]


def here(argv: list[str], bucket: str) -> list[str]:
    """The same command for another bucket."""
    return [*argv, "--bucket", bucket]


def _mc() -> str | None:
    """MinIO's client under any of its names, or the path in the variable MC.

    The command mc may be Midnight Commander.
    """
    named = (
        shutil.which(name, path=f"{_BIN}{os.pathsep}{os.environ['PATH']}")
        for name in ("mcli", "minio-client")
    )
    return os.environ.get("MC") or next(filter(None, named), None)


def available(*wanted: Tool) -> list[Tool]:
    """Those that are installed here; syncloud always is."""
    return [tool for tool in wanted if tool is not MC or _mc()]


_VERSIONS = {
    "s5cmd": ["s5cmd", "version"],
    "rclone": ["rclone", "version"],
    "AWS CLI": ["aws", "--version"],
    "SeaweedFS": ["weed", "version"],
}


def versions() -> list[str]:
    """The peers and the store with the versions that they report.

    Packages may have other version numbers.
    """
    told = [f"{name} {_version(argv)}" for name, argv in _VERSIONS.items()]
    if mc := _mc():
        noted = Path(mc).with_suffix(".version")  # by `benchmarks.peers`, of what it has installed
        told.append(
            f"mc {noted.read_text()} of Debian 13" if noted.exists() else "mc of an unknown version"
        )
    return told


def _version(argv: list[str]) -> str:
    """No run is lost because a tool does not tell."""
    try:
        told = subprocess.run(
            [_BIN / argv[0], *argv[1:]], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        told = ""
    found = re.search(r"\d+\.\d+(\.\d+)*", told)
    return found[0] if found else "of an unknown version"
