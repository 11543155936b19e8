"""Fixtures of this package: stacks that are taken down after their test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.stacks import Cloud, Stubbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.emulator import Emulator


@pytest.fixture
def cloud(aws_server: Emulator) -> Iterator[Cloud]:
    made = Cloud(aws_server)
    yield made
    made.clear()


@pytest.fixture
def stubbed() -> Iterator[Stubbed]:
    made = Stubbed()
    with made.cloudformation, made.s3:
        yield made
        made.cloudformation.assert_no_pending_responses()
        made.s3.assert_no_pending_responses()
