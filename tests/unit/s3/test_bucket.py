"""Requests by operation: each has the method of the API, and an unsendable name fails alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import botocore.session
import pytest

from syncloud.errors import PathError
from syncloud.s3.bucket import METHODS
from tests.support.store import awaited, opened
from tests.support.transport import tree_at

if TYPE_CHECKING:
    from tests.support.emulator import Bucket


@pytest.mark.parametrize("operation", METHODS)
def test_an_operation_has_the_method_of_the_api(operation: str) -> None:
    model = botocore.session.get_session().get_service_model("s3").operation_model(operation)
    assert METHODS[operation] == model.http["method"]


@awaited
async def test_a_path_that_no_request_can_name_fails_alone() -> None:
    async with tree_at("http://127.0.0.1:9") as tree:
        with pytest.raises(PathError, match="not valid UTF-8") as caught:
            await tree.bucket.send("HeadObject", "a\udcff", {})
    assert caught.value.path == "a\udcff"


@awaited
async def test_bytes_that_travel_are_counted(bucket: Bucket) -> None:
    bucket.put("p/a", b"x")
    async with opened(bucket) as tree:
        await tree.bucket.send("HeadObject", "a", {})
        await tree.bucket.send("GetObject", "missing", {})
        assert (tree.given, tree.taken) == (0, 0)
        await tree.bucket.send("GetObject", "a", {})
        await tree.bucket.send("PutObject", "b", {}, body=b"y")
        assert (tree.given, tree.taken) == (1, 1)
