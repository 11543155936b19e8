"""The duties of every Tree in one suite.

The trees are the one in memory, a directory on disk, and a bucket over real HTTP.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from syncloud.aws.session import Aws
from syncloud.core import checksum, names
from syncloud.core.diff import flat
from syncloud.core.interfaces import Content, Tree
from syncloud.core.model import SMALL_BYTES, Absent, Base, Entry, Side
from syncloud.errors import Changed
from syncloud.local.tree import LocalTree
from syncloud.s3.capabilities import probe
from syncloud.s3.transport import Transport
from syncloud.s3.tree import S3Tree
from tests.support.emulator import Bucket
from tests.support.memory import MemoryTree

T = TypeVar("T")
PREFIX = "pre/fix/"
MTIME = 1_700_000_000_123_456_789
BIG = bytes(range(256)) * (SMALL_BYTES // 256) + b"and a bit more"
ODD = ("a b", "a+b", "é/ü", "a%2Fb", "a'\"<&>", "a\nb", "\U0001f600", ".hidden", "d/e/f/g", "#?;=")


class User(Protocol):
    """Somebody else on this side, who knows nothing of syncloud."""

    def put(self, path: str, body: bytes) -> None: ...

    def get(self, path: str) -> bytes | None: ...

    def remove(self, path: str) -> None: ...


class MemoryUser:
    def __init__(self, tree: MemoryTree) -> None:
        self._tree = tree

    def put(self, path: str, body: bytes) -> None:
        self._tree.put(path, body)

    def get(self, path: str) -> bytes | None:
        file = self._tree.files.get(path)
        return None if file is None else file.body

    def remove(self, path: str) -> None:
        self._tree.remove(path)


class LocalUser:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: str, body: bytes) -> None:
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)

    def get(self, path: str) -> bytes | None:
        file = self._root / path
        return file.read_bytes() if file.is_file() else None

    def remove(self, path: str) -> None:
        (self._root / path).unlink()


class BucketUser:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def put(self, path: str, body: bytes) -> None:
        self._bucket.put(PREFIX + path, body)

    def get(self, path: str) -> bytes | None:
        return (
            self._bucket.get(PREFIX + path)
            if PREFIX + path in self._bucket.keys(PREFIX + path)
            else None
        )

    def remove(self, path: str) -> None:
        self._bucket.delete(PREFIX + path)


class Bench:
    """A tree, another user of the same side, and a loop to run the tree in."""

    def __init__(self, runner: asyncio.Runner, tree: Tree, user: User) -> None:
        self._runner = runner
        self.tree = tree
        self.user = user

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def look(
        self, path: str, base: Base | None = None, known: tuple[str, ...] | None = None
    ) -> Side:
        return self.run(self.tree.observe(path, base, known, deadline_passed=True))

    def see(self, path: str) -> Entry:
        side = self.look(path)
        assert isinstance(side, Entry), side
        return side

    def write(self, entry: Entry, expected: Entry | None) -> Entry:
        return self.run(self.tree.write(entry, None, expected))

    def listed(self, under: str = "") -> list[Entry]:
        sides = list(flat(self.tree.scan(under)))
        return [side for side in sides if isinstance(side, Entry)]

    def paths(self, under: str = "") -> list[str]:
        return [entry.path for entry in self.listed(under)]

    def keep_only(self, *paths: str) -> None:
        assert self.paths() == sorted(paths)


@pytest.fixture(params=["memory", "local", pytest.param("s3", marks=pytest.mark.integration)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        if request.param == "memory":
            memory = MemoryTree("push")
            yield Bench(runner, memory, MemoryUser(memory))
        elif request.param == "local":
            local = LocalTree(tmp_path, nonce=names.new_nonce())
            yield Bench(runner, local, LocalUser(tmp_path))
            local.close()
        else:
            yield from _on_s3(runner, request.getfixturevalue("bucket"))


def _on_s3(runner: asyncio.Runner, bucket: Bucket) -> Iterator[Bench]:
    aws = Aws(region="us-east-1", endpoint_url=bucket.server.endpoint)

    async def make() -> tuple[Transport, S3Tree]:
        crt = Transport(aws, bucket.name, transfers=4)
        tree = S3Tree(
            crt, lambda: aws.client("s3"), bucket=bucket.name, prefix=PREFIX, nonce="0" * 16
        )
        tree.conditions = await probe(crt, bucket.name, PREFIX)
        return crt, tree

    crt, tree = runner.run(make())
    yield Bench(runner, tree, BucketUser(bucket))
    runner.run(crt.close())
    aws.close()


def small(path: str, body: bytes = b"ours", *, mtime_ns: int = MTIME, mode: int = 0o640) -> Entry:
    """As it comes from the other side."""
    return Entry(path, ("theirs",), len(body), mtime_ns, mode, checksum.update(body), body)


def base_of(entry: Entry) -> Base:
    return Base(entry.path, entry.tag, entry.tag, entry.size, entry.mtime_ns, entry.mode, entry.crc)


def test_what_is_not_there_is_proven_absent(bench: Bench) -> None:
    assert bench.look("a") == Absent("a")
    assert bench.look("d/e/f") == Absent("d/e/f")


def test_a_file_of_somebody_else_is_seen(bench: Bench) -> None:
    bench.user.put("d/a", b"content")
    seen = bench.see("d/a")
    assert (seen.path, seen.size) == ("d/a", 7)
    assert seen.crc in (None, checksum.update(b"content"))
    assert seen.body in (None, b"content")


def test_a_nominated_small_file_comes_with_body_and_checksum(bench: Bench) -> None:
    bench.user.put("a", b"content")
    (reported,) = bench.listed()
    side = bench.run(bench.tree.observe("a", None, None, reported=reported, deadline_passed=True))
    assert isinstance(side, Entry)
    assert (side.body, side.crc, side.size) == (b"content", checksum.update(b"content"), 7)


def test_a_file_as_known_has_its_tag_and_the_bases_checksum(bench: Bench) -> None:
    written = bench.write(small("a"), None)
    side = bench.look("a", base_of(written), written.tag)
    assert isinstance(side, Entry)
    assert side.crc == checksum.update(b"ours")
    assert all(x == y or not x or not y for x, y in zip(side.tag, written.tag, strict=True))


def test_the_tag_changes_with_the_file(bench: Bench) -> None:
    bench.user.put("a", b"one")
    before = bench.see("a")
    bench.user.put("a", b"two, longer")
    assert bench.see("a").tag != before.tag


@pytest.mark.parametrize("body", [b"", b"ours", b"\0" * 100_000])
def test_a_new_file_is_written_with_its_mtime_and_mode(bench: Bench, body: bytes) -> None:
    written = bench.write(small("d/e/a", body), None)
    assert bench.user.get("d/e/a") == body
    seen = bench.see("d/e/a")
    for entry in (written, seen):
        assert (entry.path, entry.size, entry.mtime_ns, entry.mode) == (
            "d/e/a",
            len(body),
            MTIME,
            0o640,
        )
    assert written.crc == checksum.update(body)
    bench.keep_only("d/e/a")


def test_a_file_is_replaced(bench: Bench) -> None:
    first = bench.write(small("a", b"first"), None)
    second = bench.write(small("a", b"second"), first)
    assert bench.user.get("a") == b"second"
    third = bench.write(small("a", b"third"), second)
    assert third.tag != second.tag
    bench.keep_only("a")


def test_a_write_over_a_file_that_appeared_is_refused(bench: Bench) -> None:
    bench.user.put("a", b"theirs")
    with pytest.raises(Changed):
        bench.write(small("a"), None)
    assert bench.user.get("a") == b"theirs"
    bench.keep_only("a")


def test_a_write_over_a_file_that_changed_is_refused(bench: Bench) -> None:
    first = bench.write(small("a"), None)
    bench.user.put("a", b"theirs")
    with pytest.raises(Changed):
        bench.write(small("a", b"new"), first)
    assert bench.user.get("a") == b"theirs"
    bench.keep_only("a")


def test_a_write_over_a_file_that_disappeared_is_refused(bench: Bench) -> None:
    first = bench.write(small("a"), None)
    bench.user.remove("a")
    with pytest.raises(Changed):
        bench.write(small("a", b"new"), first)
    bench.keep_only()


def test_a_touch_moves_the_mtime_and_mode_alone(bench: Bench) -> None:
    first = bench.write(small("a"), None)
    touched = bench.run(bench.tree.touch(first, small("a", mtime_ns=MTIME + 5, mode=0o600)))
    assert touched is not None
    assert bench.user.get("a") == b"ours"
    for entry in (touched, bench.see("a")):
        assert (entry.mtime_ns, entry.mode) == (MTIME + 5, 0o600)
    bench.write(small("a", b"again"), touched)


def test_a_touch_of_a_file_that_changed_is_refused(bench: Bench) -> None:
    first = bench.write(small("a"), None)
    bench.user.put("a", b"theirs")
    with pytest.raises(Changed):
        bench.run(bench.tree.touch(first, small("a", mtime_ns=MTIME + 5)))
    assert bench.user.get("a") == b"theirs"


def test_a_delete_removes_the_file(bench: Bench) -> None:
    bench.write(small("d/b"), None)
    written = bench.write(small("d/a"), None)
    bench.run(bench.tree.delete(written))
    assert bench.look("d/a") == Absent("d/a")
    bench.keep_only("d/b")


def test_a_delete_of_what_an_observation_saw(bench: Bench) -> None:
    bench.user.put("a", b"theirs")
    bench.run(bench.tree.delete(bench.see("a")))
    bench.keep_only()


def test_a_delete_of_a_file_that_changed_is_refused(bench: Bench) -> None:
    written = bench.write(small("a"), None)
    bench.user.put("a", b"theirs")
    with pytest.raises(Changed):
        bench.run(bench.tree.delete(written))
    assert bench.user.get("a") == b"theirs"
    bench.keep_only("a")


def test_set_aside_keeps_the_bytes_under_another_name_too(bench: Bench) -> None:
    bench.user.put("d/a.xml", b"theirs")
    aside, now = bench.run(bench.tree.keep_conflict_copy(bench.see("d/a.xml")))
    assert ".conflict-" in aside
    assert aside.startswith("d/a")
    assert bench.user.get(aside) == bench.user.get("d/a.xml") == b"theirs"
    bench.write(small("d/a.xml"), now)
    assert bench.user.get(aside) == b"theirs"
    again, _ = bench.run(bench.tree.keep_conflict_copy(bench.see("d/a.xml")))
    assert bench.user.get(again) == b"ours"
    assert bench.user.get(aside) == b"theirs"


def test_set_aside_of_a_file_that_changed_is_refused(bench: Bench) -> None:
    written = bench.write(small("a"), None)
    bench.user.put("a", b"theirs")
    with pytest.raises(Changed):
        bench.run(bench.tree.keep_conflict_copy(written))
    bench.keep_only("a")


def test_a_scan_lists_everything_in_the_order_of_utf8(bench: Bench) -> None:
    paths = ["a", "a-b", "b/c", "b-d", "b0", "B", "é", "\U0001f600", "b/a/x"]
    for path in paths:
        bench.user.put(path, path.encode())
    assert bench.paths() == sorted(paths, key=str.encode)
    assert bench.paths("b") == ["b/a/x", "b/c"]
    assert bench.paths("none") == []
    assert [entry.size for entry in bench.listed()] == [
        len(path.encode()) for path in sorted(paths)
    ]


def test_a_scan_and_a_look_agree(bench: Bench) -> None:
    bench.user.put("a", b"content")
    written = bench.write(small("b"), None)
    reported = {entry.path: entry for entry in bench.listed()}
    for known in (bench.see("a"), written):
        listed = reported[known.path]
        assert listed.size == known.size
        assert all(x == y or not x or not y for x, y in zip(listed.tag, known.tag, strict=True))


@pytest.mark.parametrize("path", ODD)
def test_odd_names_make_the_round_trip(bench: Bench, path: str) -> None:
    written = bench.write(small(path), None)
    assert bench.user.get(path) == b"ours"
    assert bench.paths() == [path]
    assert bench.see(path).size == 4
    bench.run(bench.tree.delete(written))
    bench.keep_only()


def test_a_digest_is_that_of_the_bytes(bench: Bench) -> None:
    bench.user.put("a", b"content")
    seen = replace(bench.see("a"), crc=None, body=None)
    assert bench.run(bench.tree.with_checksum(seen)).crc == checksum.update(b"content")
    bench.user.put("a", b"something else")
    with pytest.raises(Changed):
        bench.run(bench.tree.with_checksum(seen))


def test_a_big_file_is_read_in_parts(bench: Bench) -> None:
    bench.user.put("big", BIG)
    seen = bench.see("big")
    assert seen.body is None
    assert seen.size == len(BIG)

    async def read() -> bytes:
        content = await bench.tree.open(seen, deadline_passed=True)
        try:
            body = b"".join(
                [
                    *await content.part(0, SMALL_BYTES),
                    *await content.part(SMALL_BYTES, len(BIG) - SMALL_BYTES),
                ]
            )
            await content.verify(checksum.update(body))
        finally:
            content.close()
        return body

    assert bench.run(read()) == BIG
    assert bench.run(bench.tree.with_checksum(seen)).crc == checksum.update(BIG)


def test_a_big_file_that_changed_cannot_be_opened_and_read(bench: Bench) -> None:
    bench.user.put("big", BIG)
    seen = bench.see("big")
    bench.user.put("big", BIG[::-1])

    async def read() -> None:
        content = await bench.tree.open(seen, deadline_passed=True)
        try:
            await content.part(0, SMALL_BYTES)
        finally:
            content.close()

    with pytest.raises(Changed):
        bench.run(read())


class Bytes(Content):
    """A big file of the other side."""

    def __init__(self, entry: Entry, body: bytes) -> None:
        self.entry = entry
        self._body = body

    async def part(self, offset: int, length: int) -> list[bytes]:
        return [self._body[offset : offset + length]]

    async def verify(self, crc: int | None) -> None:
        assert crc in (None, checksum.update(self._body))

    def close(self) -> None:
        """Nothing is held."""


def big(body: bytes) -> tuple[Entry, Content]:
    entry = replace(small("d/big", body), body=None)
    return entry, Bytes(entry, body)


def test_a_big_file_is_written_and_replaced(bench: Bench) -> None:
    first = bench.run(bench.tree.write(*big(BIG), None))
    assert bench.user.get("d/big") == BIG
    second = bench.run(bench.tree.write(*big(BIG[::-1]), first))
    assert bench.user.get("d/big") == BIG[::-1]
    seen = bench.see("d/big")
    assert (seen.size, seen.mtime_ns, seen.mode) == (len(BIG), MTIME, 0o640)
    assert second.tag[0] == seen.tag[0]
    bench.keep_only("d/big")


def test_a_big_write_is_conditional_too(bench: Bench) -> None:
    bench.user.put("d/big", b"theirs")
    with pytest.raises(Changed):
        bench.run(bench.tree.write(*big(BIG), None))
    first = bench.see("d/big")
    bench.user.put("d/big", b"theirs again")
    with pytest.raises(Changed):
        bench.run(bench.tree.write(*big(BIG), first))
    assert bench.user.get("d/big") == b"theirs again"
    bench.keep_only("d/big")


def test_a_marker_makes_an_empty_directory_and_can_be_deleted(bench: Bench) -> None:
    marker = Entry("d/e/", ("theirs",), 0, MTIME, 0o644, checksum.update(b""), b"")
    written = bench.write(marker, None)
    seen = bench.look("d/e/")
    assert isinstance(seen, Entry)
    assert seen.size == 0
    bench.run(bench.tree.delete(written))
    assert bench.look("d/e/") == Absent("d/e/")


def test_a_marker_is_no_file_of_that_name(bench: Bench) -> None:
    bench.write(Entry("d/", ("theirs",), 0, MTIME, 0o644, checksum.update(b""), b""), None)
    assert bench.look("d") == Absent("d")


def test_hidden_names_are_not_listed(bench: Bench) -> None:
    bench.user.put(names.hidden("tmp", names.new_nonce()), b"half")
    bench.user.put("a", b"")
    if not isinstance(bench.tree, MemoryTree):
        assert bench.paths() == ["a"]


def test_many_writes_at_once(bench: Bench) -> None:
    async def write_all() -> list[Entry]:
        entries = [small(f"d{number % 3}/{number:02}", b"%d" % number) for number in range(30)]
        return await asyncio.gather(*(bench.tree.write(entry, None, None) for entry in entries))

    written = bench.run(write_all())
    assert len(bench.paths()) == 30
    assert all(bench.user.get(entry.path) == b"%d" % number for number, entry in enumerate(written))


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        tree = LocalTree(tmp_path, nonce=names.new_nonce())
        os.mkdir(tmp_path / "d")
        assert runner.run(tree.observe("d", None, None)) == Absent("d")
        tree.close()
