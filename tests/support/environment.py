"""An environment in which nothing can reach the real AWS or the user's own configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

REGION = "us-east-1"
ACCESS_KEY = "test"
SECRET_KEY = "test"

_FOREIGN = ("AWS_", "BOTO_", "SYNCLOUD_", "XDG_")
"""Prefixes of variables of the user that would change what the programs under test do."""

_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
_MANAGER = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "JOURNAL_STREAM",
        "STATE_DIRECTORY",
        "INVOCATION_ID",
    }
)
"""Variables by which a program knows that systemd started it."""

REFUSED = "http://127.0.0.1:9"
"""An endpoint where nobody listens: where a client goes that was not told where to go."""


def isolated(environ: Mapping[str, str], *, endpoint: str = REFUSED) -> dict[str, str]:
    """`environ` for a child process, without any settings of the user.

    The result has credentials for the emulator, and `endpoint` for every service.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_FOREIGN) and name.lower() not in _PROXIES and name not in _MANAGER
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
