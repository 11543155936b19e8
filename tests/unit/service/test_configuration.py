"""The configuration in force: a reload changes anything but the pair and its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syncloud.errors import ConfigurationError
from syncloud.service import configuration
from syncloud.service.configuration import FIXED

if TYPE_CHECKING:
    from tests.unit.service.conftest import Configure

CHANGES = {
    "instance": ("--instance", "other"),
    "directory": ("--directory", "/elsewhere"),
    "bucket": ("--bucket", "elsewhere"),
    "prefix": ("--prefix", "elsewhere"),
    "state-dir": ("--state-dir", "/elsewhere"),
    "endpoint-url": ("--endpoint-url", "http://127.0.0.1:9"),
    "delete": ("--delete",),
    "transfers": ("--transfers", "3"),
    "exclude": ("--exclude", "*.tmp"),
    "log-level": ("--log-level", "debug"),
    "profile": ("--profile", "p"),
    "ready": ("--ready", "synced"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_reload_may_change_anything_but_the_pair_and_its_memory(
    configure: Configure, name: str
) -> None:
    before, after = configure("push"), configure("push", *CHANGES[name])
    assert configuration._differences(before, before) == []
    assert ("patterns" if name == "exclude" else name) in configuration._differences(before, after)
    if name in FIXED:
        with pytest.raises(ConfigurationError, match=f"{name} cannot change from") as caught:
            configuration._refuse(before, after)
        assert "restart" in caught.value.hint
    else:
        configuration._refuse(before, after)
