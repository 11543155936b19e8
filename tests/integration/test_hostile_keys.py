"""Keys that try to leave the directory, or that no file system can hold.

Each key is a file one to one, or refused, once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from syncloud.core import names
from tests.support.meddler import Meddler, encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Start
    from tests.support.emulator import Bucket
    from tests.support.processes import Process

PREFIX = "p/"

REFUSED = {
    "../x": "up",
    "../../x": "up twice",
    "a/../x": "through a folder",
    "a/../../../x": "through a folder and up",
    "..": "the parent",
    "../": "the parent as a folder",
    ".": "itself",
    "./x": "itself, first",
    "deep/./x": "itself, within",
    "/etc/x": "absolute",
    "//x": "absolute twice",
    "/": "a slash",
    "a//b": "an empty component",
    "folder//": "an empty component at the end",
    "content/": "a folder with content",
    "n" * 256: "one byte too long",
    "\u00e9" * 128: "one byte too long in UTF-8",
    "deep/" + "n" * 256 + "/x": "a folder that is too long",
}
"""Paths below the prefix, and what is in them."""

FILES = {
    "n" * 255: "as long as it can be",
    "line\nfeed": "newline",
    '{"event": "forged"}\n{"event": "service.started"}': "a forged log line",
    "\x1b[2J\x1b[31mred": "terminal control",
    "bell\x07 tab\t return\r": "control characters",
    "\u2028\u0085": "line breaks of Unicode",
    "\u202egnp.exe": "right to left",
    "...": "three dots",
    "..x": "two dots and more",
    "x..": "two dots at the end",
    "-rf": "an option",
    "~": "a home",
    "$(id)": "a shell",
    "a\\..\\x": "backslashes",
    "%2e%2e%2fx": "encoded",
    "..%2fx": "half encoded",
    "trailing ": "a space",
    "trailing.": "a dot",
    "File": "upper",
    "file": "lower",
    "u\u0308": "decomposed",
    "\u00fc": "composed",
    ".syncloud-tmp-x": "like ours, and not",
    ".syncloud-old-0123456789abcdef-0123456789abcde": "nearly ours",
    "state.sqlite": "like our state",
    "a.conflict-20240101T000000Z-host": "like a conflict copy",
    "below/b": "in a folder",
    ".git/hooks/post-checkout": "hidden",
}
OURS = [names.hidden(kind, "0123456789abcdef") for kind in ("tmp", "old", "probe")]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A directory in whose middle the pulled one is; what hostile keys aim at is there."""
    world = tmp_path / "world"
    for place in (world / "x", world / "middle" / "x", world / "middle" / "etc" / "x"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("not yours")
    return world


@pytest.fixture
def hostile(bucket: Bucket) -> Iterator[Bucket]:
    """The bucket; what the emulator's list of versions cannot name is removed before the rest."""
    yield bucket
    for key in bucket.keys():  # noqa: SIM118 (it is no dict)
        if any(ord(char) < 32 for char in key):
            bucket.server.client("s3").delete_object(
                Bucket=bucket.name, Key=key, VersionId=bucket.head(key)["VersionId"]
            )


def fill(bucket: Bucket) -> None:
    for path, text in {**REFUSED, **FILES, **dict.fromkeys(OURS, "ours")}.items():
        bucket.put(PREFIX + path, text.encode())
    bucket.put(PREFIX + "marker/")
    bucket.put(PREFIX)


def outside(world: Path) -> dict[str, tuple[Any, ...]]:
    """All that is in the world but the pulled directory's inside."""
    found = {}
    for folder, folders, files in os.walk(world):
        if Path(folder) == world / "middle":
            folders.remove("root") if "root" in folders else None
        for name in [*folders, *files]:
            status = (Path(folder) / name).lstat()
            content = (Path(folder) / name).read_bytes() if name in files else b""
            found[str(Path(folder) / name)] = (
                status.st_ino,
                status.st_mode,
                status.st_mtime_ns if name in files else 0,
                content,
            )
    return found


def inside(world: Path) -> dict[str, str]:
    root = world / "middle" / "root"
    found = {}
    for path in filter(Path.is_file, root.rglob("*")):
        # A name being staged may vanish while it is looked at.
        with contextlib.suppress(FileNotFoundError):
            found[str(path.relative_to(root))] = path.read_text()
    return found


def recorded(state: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(state / "state.sqlite")) as db:
        return dict(db.execute("SELECT path, reason FROM unsyncable"))


@pytest.fixture
def pull(hostile: Bucket, world: Path, tmp_path: Path, syncloud: Start) -> Callable[..., Process]:
    def start(
        *more: str, endpoint: str = "", form: str = "json", env: dict[str, str] | None = None
    ) -> Process:
        places = [
            "--directory",
            str(world / "middle" / "root"),
            "--state-dir",
            str(tmp_path / "state"),
        ]
        where = ["--bucket", hostile.name, "--prefix", "p", "--log-format", form]
        return syncloud("pull", *places, *where, *more, endpoint=endpoint, env=env)

    return start


def skipped(process: Process) -> list[str]:
    return sorted(str(event["path"]) for event in process.events("path.skipped"))


def test_each_key_is_a_file_or_refused(
    hostile: Bucket, world: Path, tmp_path: Path, pull: Callable[..., Process]
) -> None:
    fill(hostile)
    before = outside(world)
    first = pull("--once")
    assert first.wait(timeout=60) == 0, first.stderr
    assert inside(world) == FILES
    assert (world / "middle" / "root" / "marker").is_dir()
    assert outside(world) == before
    assert set(recorded(tmp_path / "state")) == set(REFUSED)
    assert len(skipped(first)) == len(REFUSED)
    for line in first.stderr.splitlines():
        assert isinstance(json.loads(line[line.index("{") :]), dict)
        assert line.isprintable() or line.isascii()
    # Told once; the second time there is nothing to do.
    second = pull("--once")
    assert second.wait(timeout=60) == 0, second.stderr
    assert skipped(second) == []
    assert not second.events("pull.written")
    assert set(recorded(tmp_path / "state")) == set(REFUSED)


def test_many_refused_keys_are_few_lines_of_the_journal(
    hostile: Bucket, tmp_path: Path, pull: Callable[..., Process]
) -> None:
    names = ["a//" + "\u00e9" * 400 + f"{number:03}" for number in range(120)]
    for name in names:
        hostile.put(PREFIX + name, b"x")
    process = pull("--once")
    assert process.wait(timeout=60) == 0, process.stderr
    lines = process.events("path.skipped")
    assert len(lines) <= 22
    assert sum(line.get("count", 1) for line in lines) == len(names)
    assert max(len(line) for line in process.stderr.splitlines() if "path.skipped" in line) < 1_000
    assert set(recorded(tmp_path / "state")) == set(names), "the state and the page have them all"


def test_a_terminal_gets_single_harmless_lines(
    hostile: Bucket, world: Path, pull: Callable[..., Process]
) -> None:
    fill(hostile)
    process = pull("--once", form="text")
    assert process.wait(timeout=60) == 0, process.stderr
    assert inside(world) == FILES
    assert not [char for char in process.stderr if ord(char) < 32 and char != "\n"]
    assert not [
        line
        for line in process.stderr.split("\n")
        if line.startswith(("feed", '{"event": "service.started"}'))
    ]
    assert "\u2028" not in process.stderr
    assert "\u202e" not in process.stderr


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}]
)
def test_a_rehearsal_of_pull_names_keys_in_single_harmless_lines(
    hostile: Bucket, world: Path, pull: Callable[..., Process], locale: dict[str, str]
) -> None:
    fill(hostile)
    (world / "middle" / "root").mkdir()
    process = pull("--dry-run", form="text", env=locale)
    assert process.wait(timeout=60) == 0, process.stderr
    lines = process.stdout.split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(FILES) + 1, "and the marker"
    for verb, tab, path in (line.partition("\t") for line in lines):
        assert (verb, tab) == ("copy", "\t")
        assert path.isprintable(), ascii(path)
    assert all(line.isprintable() for line in process.stderr.split("\n"))


def test_each_event_is_a_file_or_refused(
    hostile: Bucket, world: Path, tmp_path: Path, pull: Callable[..., Process]
) -> None:
    before = outside(world)
    with Meddler(hostile.server.endpoint, encoding) as meddler:
        process = pull("--queue-url", hostile.queue_url, endpoint=meddler.endpoint)
        process.wait_event("reconcile.finished")
        process.wait_event("service.ready")
        fill(hostile)
        process.wait_for(lambda: len(skipped(process)) >= len(REFUSED))
        process.wait_for(lambda: len(inside(world)) >= len(FILES))
        hostile.put(PREFIX + "../x", b"again")
        hostile.put(PREFIX + "last", b"last")
        process.wait_for(lambda: "last" in inside(world))
        assert process.stop() == 143
    assert len(process.events("reconcile.finished")) == 1
    assert inside(world) == FILES | {"last": "last"}
    assert outside(world) == before
    assert set(recorded(tmp_path / "state")) == set(REFUSED)
    assert len(skipped(process)) == len(REFUSED)


@pytest.mark.parametrize(
    "order", [("both", "both/b"), ("both/b", "both"), ("both/",), ("both", "both/", "both/b")]
)
def test_a_folder_wins_over_a_file_of_its_name(
    hostile: Bucket,
    world: Path,
    pull: Callable[..., Process],
    tmp_path: Path,
    order: tuple[str, ...],
) -> None:
    for path in order:
        hostile.put(PREFIX + path, b"" if path.endswith("/") else path.encode())
    process = pull("--once", "--delete")
    assert process.wait(timeout=60) == 0, process.stderr
    assert inside(world) == {path: path for path in order if path == "both/b"}
    assert (world / "middle" / "root" / "both").is_dir()
    wanted = {"both"} if "both" in order else set()
    assert set(recorded(tmp_path / "state")) == wanted
    assert skipped(process) == sorted(wanted)
    # The same again: nothing flaps.
    second = pull("--once", "--delete")
    assert second.wait(timeout=60) == 0, second.stderr
    assert inside(world) == {path: path for path in order if path == "both/b"}
    assert skipped(second) == []
    assert not second.events("pull.written")


def test_a_parent_that_is_a_link_is_not_followed(
    hostile: Bucket, world: Path, pull: Callable[..., Process]
) -> None:
    root = world / "middle" / "root"
    root.mkdir()
    (root / "link").symlink_to(world)
    (root / "file-link").symlink_to(world / "x")
    hostile.put(PREFIX + "link/x", b"through the link")
    hostile.put(PREFIX + "link/new", b"through the link")
    hostile.put(PREFIX + "file-link", b"onto the link")
    hostile.put(PREFIX + "plain", b"plain")
    before = outside(world)
    process = pull("--once")
    assert process.wait(timeout=60) == 0, process.stderr
    assert skipped(process) == ["file-link", "link/new", "link/x"]
    assert outside(world) == before
    assert (root / "plain").read_text() == "plain"
    assert (root / "link").is_symlink()
    assert (root / "file-link").is_symlink()
