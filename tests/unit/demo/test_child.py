"""The environment of the demo's processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from syncloud.demo.child import environment

if TYPE_CHECKING:
    from pathlib import Path


def test_children_get_nothing_of_the_users_own(tmp_path: Path) -> None:
    mine = {
        "PATH": "/bin",
        "LANG": "C",
        "AWS_PROFILE": "me",
        "SYNCLOUD_BUCKET": "mine",
        "https_proxy": "x",
        "NOTIFY_SOCKET": "s",
    }
    given = environment(mine, home=tmp_path)
    assert given.keys() & mine.keys() == {"PATH", "LANG"}
    assert (
        given["AWS_CONFIG_FILE"],
        given["AWS_SHARED_CREDENTIALS_FILE"],
        given["AWS_ACCESS_KEY_ID"],
    ) == (
        os.devnull,
        os.devnull,
        "test",
    )
