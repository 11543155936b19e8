"""A single pass: everything is carried once, and a signal ends it early."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from syncloud.core import names
from syncloud.service import single_pass
from syncloud.service.signals import Stopped

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.emulator import Bucket
    from tests.support.listener import Listener
    from tests.unit.service.conftest import Configure


def test_a_pass_carries_what_is_there_and_names_what_it_gave_up(
    configure: Configure, out: Path, bucket: Bucket, logged: Listener
) -> None:
    (out / "file").write_bytes(b"1")
    assert asyncio.run(single_pass.run("push", configure("push"))) == 0
    assert bucket.get("file") == b"1"
    assert "path.given_up" not in logged.events


def test_a_signal_ends_a_pass_early_and_is_its_exit_code(
    configure: Configure, out: Path, bucket: Bucket
) -> None:
    for number in range(1_000):
        (out / str(number)).write_bytes(b"1")

    async def end() -> None:
        while not [key for key in await asyncio.to_thread(bucket.keys) if not names.is_hidden(key)]:
            await asyncio.sleep(
                0.01
            )  # what the probe puts is there before anybody listens to signals
        signal.raise_signal(signal.SIGTERM)

    async def scenario() -> None:
        ending = asyncio.create_task(end())
        await single_pass.run("push", configure("push", "--transfers", "1"))
        await ending

    with pytest.raises(Stopped, match="SIGTERM") as caught:
        asyncio.run(scenario())
    assert caught.value.exit_code == 143
    assert 0 < len(bucket.keys()) < 1_000
