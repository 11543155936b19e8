"""A session: the first listing, and the notes that outlive it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.support.sessions import opened

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.service.conftest import Configure


def test_push_lists_the_bucket_where_its_memory_is_not_enough(
    configure: Configure, out: Path
) -> None:
    assert opened("push", configure("push")).check_target, "a new state knows nothing of it"
    assert opened("push", configure("push"), verified=True).check_target
    assert not opened("push", configure("push")).check_target
    time.sleep(1.1)
    assert opened("push", configure("push", "--verify-interval", "1s")).check_target
    assert not opened("push", configure("push", "--verify-interval", "1h")).check_target


def test_pull_lists_the_bucket_with_each_start(configure: Configure) -> None:
    for verified in (True, False):
        assert opened("pull", configure("pull"), verified=verified).check_target
