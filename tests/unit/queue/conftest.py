"""A bucket whose queue is empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.emulator import Bucket


@pytest.fixture
def bucket(bucket: Bucket) -> Bucket:
    """With an empty queue: S3's test event has been taken out."""
    assert [body.get("Event") for body in bucket.receive_all(quiet=0.1)] == ["s3:TestEvent"]
    return bucket
