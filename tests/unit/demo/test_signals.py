"""Signals of the demo: recorded when they come, obeyed where it is asked for."""

from __future__ import annotations

import os
import signal

import pytest

from syncloud.demo.signals import Signals


@pytest.mark.parametrize(
    ("number", "ends"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)],
)
def test_a_signal_interrupts_nothing_and_is_obeyed_where_it_is_asked_for(
    number: signal.Signals, ends: type[BaseException]
) -> None:
    """A handler that raises amid `Popen.poll()` can leave its lock taken: the end never comes."""
    before = signal.getsignal(number)
    with Signals() as signals:
        signals.obey()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(2):
            with pytest.raises(ends):
                signals.obey()
    assert signal.getsignal(number) == before
