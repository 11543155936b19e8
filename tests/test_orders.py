"""What signals ask is followed at once, and waiting for it ends in time."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from syncloud.service.signals import SignalHandler


async def waited(signal_handler: SignalHandler, seconds: float) -> float:
    started = time.monotonic()
    await signal_handler.wait(seconds)
    return time.monotonic() - started


def test_without_an_order_the_time_passes_again_and_again() -> None:
    async def scenario() -> None:
        signal_handler = SignalHandler()
        signal_handler.listen()
        for _ in range(3):
            assert 0.05 <= await waited(signal_handler, 0.05) < 5
            assert not signal_handler.consume_reload()
            assert not signal_handler.ended

    asyncio.run(scenario())


@pytest.mark.parametrize("early", [True, False], ids=["before", "meanwhile"])
def test_an_order_ends_the_wait_at_once(early: bool) -> None:
    async def scenario() -> None:
        signal_handler = SignalHandler()
        signal_handler.listen()
        if early:
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(0)
        else:
            asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGHUP)
        assert await waited(signal_handler, 30) < 5
        assert signal_handler.consume_reload()
        assert not signal_handler.consume_reload()
        assert await waited(signal_handler, 0.05) >= 0.05, "it is followed once"
        signal.raise_signal(signal.SIGTERM)
        for _ in range(2):
            assert await waited(signal_handler, 30) < 5
            assert not signal_handler.consume_reload()
        assert signal_handler.ended == signal.SIGTERM, "the end stays one"

    asyncio.run(scenario())


def test_a_reload_that_nobody_has_taken_is_not_forgotten() -> None:
    async def scenario() -> None:
        signal_handler = SignalHandler()
        signal_handler.listen()
        signal.raise_signal(signal.SIGHUP)
        for _ in range(2):
            assert await waited(signal_handler, 30) < 5
        assert signal_handler.consume_reload()

    asyncio.run(scenario())
