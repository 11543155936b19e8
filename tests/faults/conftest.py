"""`make test-faults`: every fault of docs/RELIABILITY.md.

The faults are injected into real processes, a real kernel and real HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.rig import Rig
from tests.support.meddler import Meddler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.emulator import Bucket, Emulator
    from tests.support.processes import Process


@pytest.fixture
def meddler(aws_server: Emulator) -> Iterator[Meddler]:
    """A server before the emulator that passes everything on, until `meddler.meddle` is set."""
    with Meddler(aws_server.endpoint, lambda asked, forward: forward(asked)) as made:
        yield made


@pytest.fixture
def rig(bucket: Bucket, meddler: Meddler, syncloud: Callable[..., Process], tmp_path: Path) -> Rig:
    """A bucket, a directory `out`, and a push and a pull that can be started."""
    made = Rig(syncloud, bucket, meddler, tmp_path)
    made.out.mkdir()
    return made
