"""What signals ask is followed at once, and waiting for it ends in time."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from syncloud.service.signals import SignalHandler, Stopped


def listening() -> SignalHandler:
    made = SignalHandler(upon_end=lambda: None)
    made.listen()
    made.accept_reloads()
    return made


async def waited(signal_handler: SignalHandler, seconds: float) -> float:
    started = time.monotonic()
    await signal_handler.wait(seconds)
    return time.monotonic() - started


def test_without_an_order_the_time_passes_again_and_again() -> None:
    async def scenario() -> None:
        signal_handler = listening()
        for _ in range(3):
            assert 0.05 <= await waited(signal_handler, 0.05) < 5
            assert not signal_handler.consume_reload()
            assert not signal_handler.ended

    asyncio.run(scenario())


@pytest.mark.parametrize("early", [True, False], ids=["before", "meanwhile"])
def test_an_order_ends_the_wait_at_once(early: bool) -> None:
    async def scenario() -> None:
        signal_handler = listening()
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
        signal_handler = listening()
        signal.raise_signal(signal.SIGHUP)
        for _ in range(2):
            assert await waited(signal_handler, 30) < 5
        assert signal_handler.consume_reload()

    asyncio.run(scenario())


def test_the_words_of_a_signal_are_its_name() -> None:
    assert (str(Stopped(signal.SIGINT)), Stopped(signal.SIGINT).exit_code) == (
        "ended by SIGINT",
        130,
    )
