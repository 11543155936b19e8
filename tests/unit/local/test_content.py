"""A big file that is read in parts: all parts belong to one state of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from syncloud.core import checksum
from syncloud.core.model import SMALL_BYTES
from syncloud.errors import Changed, Unsteady
from syncloud.local.tree import LocalTree
from tests.support.directory import BIG, age, big, do, entry, send

if TYPE_CHECKING:
    from pathlib import Path


def test_a_big_file_travels_in_parts(tree: LocalTree, root: Path) -> None:
    file = big(root)
    side = entry(tree, "big")
    assert (side.body, side.crc) == (None, None)
    assert do(send(tree, side)) == file.read_bytes()
    assert do(tree.with_checksum(side)).crc == checksum.update(file.read_bytes())


def test_a_big_file_that_grows_is_sent_up_to_its_size_at_open_at_its_deadline(
    tree: LocalTree, root: Path
) -> None:
    """And not before: see the next test."""
    file = big(root)
    before = file.read_bytes()
    side = entry(tree, "big")

    def grow() -> None:
        with open(file, "ab") as writer:
            writer.write(b"more")

    with pytest.raises(Unsteady):
        do(send(tree, side, grow))
    side = entry(tree, "big")
    assert do(send(tree, side, grow, deadline_passed=True)) == before + b"more"


@pytest.mark.parametrize("more", [0, 1, SMALL_BYTES])
def test_the_beginning_of_a_larger_new_content_is_not_sent(
    tree: LocalTree, root: Path, more: int
) -> None:
    """The file is rewritten between open and the first read.

    The bytes read are of one state and stable, but they are cut off.
    """
    big(root)
    side = entry(tree, "big")

    async def sent() -> None:
        content = await tree.open(side)
        try:
            with open(root / "big", "r+b") as writer:
                writer.write(b"n" * (BIG + more))
            crc = checksum.of(
                [
                    *await content.part(0, SMALL_BYTES),
                    *await content.part(SMALL_BYTES, BIG - SMALL_BYTES),
                ]
            )
            await content.verify(crc)
        finally:
            content.close()

    with pytest.raises(Unsteady):
        do(sent())


def test_a_big_file_rewritten_meanwhile_is_not_believed(tree: LocalTree, root: Path) -> None:
    file = big(root)

    def rewrite() -> None:
        with open(file, "r+b") as writer:
            writer.write(os.urandom(40))  # at the place that has been read
            writer.seek(0, 2)
            writer.write(b"and more")

    for deadline_passed in (False, True):
        with pytest.raises(Unsteady):
            do(send(tree, entry(tree, "big"), rewrite, deadline_passed=deadline_passed))
        age(file)
    with pytest.raises(Unsteady):
        do(send(tree, entry(tree, "big"), lambda: os.truncate(file, 5000)))


def test_a_big_file_is_opened_only_as_it_was_seen(tree: LocalTree, root: Path) -> None:
    file = big(root)
    side = entry(tree, "big")
    with open(file, "ab"), pytest.raises(Unsteady):
        do(tree.open(side))
    file.chmod(0o600 if side.mode != 0o600 else 0o644)
    with pytest.raises(Changed):
        do(tree.open(side))
    file.unlink()
    with pytest.raises(Changed):
        do(tree.open(side))
    with pytest.raises(Changed):
        do(tree.with_checksum(side))
