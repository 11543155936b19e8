"""Each test of the log leaves it closed, and the root logger as before."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from syncloud import log

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    log.close()
    logging.getLogger().setLevel(level)
