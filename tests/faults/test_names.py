"""Names that neither side can hold, and names of our own.

In one store every key aims outside of the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import stat
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from watchdog.events import FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

from syncloud.core import checksum, names
from syncloud.core.diff import flat
from syncloud.core.model import Absent, Entry, Unknown
from syncloud.errors import PathError
from syncloud.local.tree import LocalTree
from tests.support.meddler import Answer
from tests.support.trees import snapshot, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchdog.events import FileSystemEvent

    from tests.faults.rig import Rig
    from tests.support.meddler import Asked, Forward

# From outside: all that is not the directory itself

PIECES = [
    "..",
    ".",
    "",
    "a",
    "b",
    "link",
    "file-link",
    "deep",
    "x",
    "etc",
    "\0",
    "\n",
    "\x1b[31m",
    "\u00e9",
    "%2e%2e",
    "..%2f",
]
"""What keys are made of."""
LEADING = ("link", "file-link", "deep/link", "deep/file-link")
"""Links that are planted below the root, and lead outside."""


class Elsewhere(FileSystemEventHandler):
    """Every change in the directories that it hears of, but for the one at `root`."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.heard: list[FileSystemEvent] = []

    def dispatch(self, event: FileSystemEvent) -> None:
        if (
            event.event_type in ("created", "deleted", "modified", "moved")
            and event.src_path != self._root
        ):
            self.heard.append(event)


@pytest.fixture
def world(rig: Rig) -> Path:
    """The surroundings of the pulled directory, which is in its middle.

    A canary stands wherever a key may aim.
    """
    world = rig.place / "world"
    for name in ("x", "a", "etc/x", "middle/x", "middle/a", "middle/etc/x", "middle/b/x"):
        (world / name).parent.mkdir(parents=True, exist_ok=True)
        (world / name).write_text("not yours")
    root = world / "middle" / "root"
    (root / "deep").mkdir(parents=True)
    for link in LEADING:
        (root / link).symlink_to(world / "x" if link.endswith("file-link") else world)
    return world


@pytest.fixture
def elsewhere(world: Path) -> Iterator[Elsewhere]:
    heard = Elsewhere(world / "middle" / "root")
    observer = InotifyObserver()
    for folder in (
        world,
        world / "etc",
        world / "middle",
        world / "middle" / "etc",
        world / "middle" / "b",
    ):
        observer.schedule(heard, str(folder))
    observer.start()
    yield heard
    observer.stop()
    observer.join()


def keys() -> list[str]:
    """Some hundred, the same in each run, beside those that everybody tries."""
    chance = random.Random(53)
    made = {"/".join(chance.choices(PIECES, k=chance.randint(1, 6))) for _ in range(400)}
    known = {
        "../../etc/cron.d/x",
        "/etc/x",
        "a/../../x",
        ".",
        "..",
        "link/x",
        "deep/link/new",
        "file-link",
        "file-link/",
        "link/",
    }
    return sorted((made | known) - {""})


class HostileStore:
    """Lists and tells of every key, and has an object for each."""

    def __init__(self, rig: Rig) -> None:
        self._bucket = rig.bucket.name
        self._told = False

    def __call__(self, asked: Asked, forward: Forward) -> Answer | None:
        headers = {
            "etag": '"e"',
            "last-modified": "Tue, 02 Jan 2024 03:04:05 GMT",
            "content-type": "binary/octet-stream",
        }
        if asked.name == "ListObjectsV2":
            rows = "".join(
                f"<Contents><Key>{quote(key)}</Key><LastModified>2024-01-02T03:04:05.000Z</LastModified>"
                f"<ETag>&quot;e&quot;</ETag><Size>{0 if key.endswith('/') else 4}</Size></Contents>"
                for key in sorted(keys(), key=str.encode)
            )
            text = (
                "<ListBucketResult><EncodingType>url</EncodingType>"
                f"<IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
            )
            return Answer(200, {"content-type": "application/xml"}, text.encode())
        if asked.name in ("GetObject", "HeadObject"):
            body = b"" if asked.target.partition("?")[0].endswith("/") else b"evil"
            return Answer(200, headers, b"" if asked.name == "HeadObject" else body, len(body))
        if asked.name == "ReceiveMessage" and not self._told:
            self._told = True
            return self._messages()
        return forward(asked)

    def _messages(self) -> Answer:
        records = [
            {
                "eventVersion": "2.1",
                "eventName": name,
                "s3": {
                    "bucket": {"name": self._bucket},
                    "object": {"key": quote(key), "size": 4, "eTag": "f", "sequencer": "1"},
                },
            }
            for key in keys()
            for name in ("ObjectCreated:Put", "ObjectRemoved:Delete")
        ]
        body = json.dumps({"Records": records})
        message = {"MessageId": "1", "ReceiptHandle": "1", "Body": body}
        return Answer(
            200,
            {"content-type": "application/x-amz-json-1.0"},
            json.dumps({"Messages": [message]}).encode(),
        )


def test_a_store_of_hostile_keys_touches_nothing_outside(
    rig: Rig, world: Path, elsewhere: Elsewhere
) -> None:
    root = world / "middle" / "root"
    before = {
        path: file for path, file in snapshot(world).items() if not path.startswith("middle/root/")
    }
    rig.meddler.meddle = HostileStore(rig)
    there = [
        "--directory",
        str(root),
        "--state-dir",
        str(rig.pull_state),
        "--bucket",
        rig.bucket.name,
        "--log-format",
        "json",
    ]
    queue = rig.bucket.queue_url.replace(rig.bucket.server.endpoint, rig.meddler.endpoint)
    pull = rig.start(
        "pull", *there, "--delete", "--queue-url", queue, endpoint=rig.meddler.endpoint
    )
    pull.wait_event("reconcile.finished", timeout=60)
    good = [key for key in keys() if names.refusal(key) is None and not key.startswith(LEADING)]
    files = [
        key
        for key in good
        if not key.endswith("/") and not any(other.startswith(f"{key}/") for other in good)
    ]
    wait_until(lambda: all((root / key).is_file() for key in files), timeout=60)
    wait_until(lambda: _pending(rig) == 0, timeout=60, every=1)
    assert pull.stop() == 143
    assert len(files) > 10
    assert {
        path: file for path, file in snapshot(world).items() if not path.startswith("middle/root/")
    } == before
    assert elsewhere.heard == []
    assert stat.S_ISLNK((root / "link").lstat().st_mode)
    assert stat.S_ISLNK((root / "deep" / "file-link").lstat().st_mode)
    assert not pull.events("internal.error")
    for line in pull.stderr.splitlines():
        assert isinstance(json.loads(line[line.index("{") :]), dict)


def _pending(rig: Rig) -> int:
    asked = rig.start("status", "--json", "--state-dir", str(rig.pull_state))
    asked.wait()
    return int(json.loads(asked.stdout)["pending"])


ANY = st.text(st.characters(codec=None), max_size=20)
PATHS = ANY | st.lists(
    st.sampled_from([*PIECES, "n" * 255, "n" * 256, "\udcff"]) | ANY, max_size=6
).map("/".join)
# A bucket has no longer ones; and what is there from the beginning does not come.
KEYS = PATHS.filter(lambda key: len(key.encode(errors="surrogatepass")) <= 1024 and key != "deep/")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(key="0/0/")  # its deletion left the directory above
@given(key=KEYS)
def test_whatever_a_key_is_it_is_itself_or_refused(world: Path, key: str) -> None:
    """Every method of the tree, on a real disk.

    A written file is seen under this very name, and nothing is anywhere else.
    """
    root = world / "middle" / "root"
    canaries = {
        path: file for path, file in snapshot(world).items() if not path.startswith("middle/root/")
    }
    before = sorted(root.rglob("*"))
    tree = LocalTree(root, nonce="0123456789abcdef")
    try:
        asyncio.run(_attempt(tree, key))
    finally:
        tree.close()
    assert sorted(root.rglob("*")) == before, "nothing is left, no directory either"
    assert {
        path: file for path, file in snapshot(world).items() if not path.startswith("middle/root/")
    } == canaries
    assert (root / "link").is_symlink()


async def _attempt(tree: LocalTree, key: str) -> None:
    body = b"" if key.endswith("/") else b"evil"
    entry = Entry(key, ("remote",), len(body), 10**18, 0o644, checksum.update(body), body)
    seen = await tree.observe(key, None, None)
    if isinstance(seen, Unknown):
        with pytest.raises(PathError):
            await tree.keep_conflict_copy(entry)
        # Refused, or without effect: a marker's directory goes if it is one and empty, and no other
        # file of that name does.
        with contextlib.suppress(PathError) if key.endswith("/") else pytest.raises(PathError):
            await tree.delete(entry)
    try:
        written = await tree.write(entry, None, None)
    except PathError:
        return
    assert isinstance(seen, Absent)
    assert names.refusal(key) is None
    assert await tree.observe(key, None, None) == written
    assert [side.path for side in flat(tree.scan()) if isinstance(side, Entry)] == (
        [] if key.endswith("/") else [key]
    )
    await tree.delete(written)


# What a user has


def test_names_that_no_key_can_be_hold_nobody_up(rig: Rig) -> None:
    out = os.fsencode(rig.out)
    os.makedirs(out + b"/dir-\xff")
    for name in (
        b"bad-\xff",
        b"dir-\xff/x",
        b"line\nfeed",
        b"\x1b[2J",
        b"good",
        b"a.conflict-20240101T000000Z-host.txt",
    ):
        Path(os.fsdecode(out + b"/" + name)).write_bytes(b"1")
    deep = Path(*["d" * 250] * 4)
    (rig.out / deep).mkdir(parents=True)
    (rig.out / deep / ("f" * 50)).write_bytes(b"1")  # a path of 1,054 bytes
    push = rig.push()
    wanted = dict.fromkeys(
        ["good", "line\nfeed", "\x1b[2J", "a.conflict-20240101T000000Z-host.txt"], b"1"
    )
    try:
        rig.until_pushed(wanted)
        left = {"bad-\\xff", "dir-\\xff", str(deep / ("f" * 50))}
        with closing(sqlite3.connect(rig.push_state / "state.sqlite")) as db:
            wait_until(
                lambda: {path for (path,) in db.execute("SELECT path FROM unsyncable")} == left,
                timeout=30,
            )
        Path(os.fsdecode(out + b"/bad-\xff")).write_bytes(b"again")
        rig.write("later", b"2")
        rig.until_pushed({"later": b"2", **wanted})
        assert len(push.events("path.skipped")) == 3
        assert all(
            line.isascii() and isinstance(json.loads(line[line.index("{") :]), dict)
            for line in push.stderr.splitlines()
        )
        asked = rig.start("status", "--state-dir", str(rig.push_state))
        assert asked.wait() in (0, 1)
        assert len(asked.stdout.splitlines()) < 30
    finally:
        _remove_with_control_characters(rig)


def _remove_with_control_characters(rig: Rig) -> None:
    """The emulator's list of versions cannot name them."""
    for key in rig.bucket.keys():  # noqa: SIM118 - a method
        if any(ord(char) < 32 for char in key):
            rig.bucket.server.client("s3").delete_object(
                Bucket=rig.bucket.name, Key=key, VersionId=rig.bucket.head(key)["VersionId"]
            )


def test_a_long_root_holds_a_long_key(rig: Rig) -> None:
    """Together they are longer than any path that open(2) takes."""
    root = rig.place / Path(*["r" * 250] * 14)
    here = os.getcwd()
    os.chdir(rig.place)
    for part in root.relative_to(rig.place).parts:
        os.mkdir(part)
        os.chdir(part)
    os.chdir(here)
    key = "/".join(["k" * 250] * 4)
    assert len(f"{root}/{key}") > 4096
    rig.bucket.put(key, b"1")
    rig.bucket.put("short", b"2")
    there = [
        "--directory",
        str(root),
        "--state-dir",
        str(rig.pull_state),
        "--bucket",
        rig.bucket.name,
        "--log-format",
        "json",
    ]
    for _ in range(2):
        pull = rig.start("pull", *there, "--once", "--delete", endpoint=rig.meddler.endpoint)
        assert pull.wait(timeout=60) == 0, pull.stderr
        assert (root / "short").read_bytes() == b"2"
        with closing_fd(os.open(root, os.O_RDONLY)) as at:
            assert os.stat(key, dir_fd=at).st_size == 1
    assert not pull.events("pull.written"), "the second look finds it as it is"
    assert not pull.events("path.skipped")


class closing_fd:  # noqa: N801 - as contextlib's
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def test_a_marker_keeps_its_directory_when_the_last_file_goes(rig: Rig) -> None:
    for key in ("d/", "d/f", "e/f", "g"):
        rig.bucket.put(key, b"" if key.endswith("/") else b"1")
    pull = rig.pull("--delete", "--max-delete", "100")
    wait_until(lambda: rig.pulled().keys() == {"d/f", "e/f", "g"}, timeout=30)
    for key in ("d/f", "e/f"):
        rig.bucket.delete(key)
    wait_until(lambda: not (rig.into / "e").exists(), timeout=30)
    wait_until(lambda: rig.pulled().keys() == {"g"}, timeout=30)
    assert (rig.into / "d").is_dir()
    assert pull.stop() == 143


def test_a_marker_makes_a_directory_and_takes_it_away_only_if_it_is_empty(rig: Rig) -> None:
    for key in ("kept/", "empty/"):
        rig.bucket.put(key)
    pull = rig.pull("--delete")
    wait_until(lambda: (rig.into / "kept").is_dir() and (rig.into / "empty").is_dir(), timeout=30)
    (rig.into / "kept" / "mine").write_bytes(b"1")
    for key in ("kept/", "empty/"):
        rig.bucket.delete(key)
    wait_until(lambda: not (rig.into / "empty").exists(), timeout=30)
    wait_until(lambda: _pending(rig) == 0, timeout=30, every=1)
    assert (rig.into / "kept" / "mine").read_bytes() == b"1"
    assert pull.stop() == 143


STARS = [
    "--exclude",
    "*.*.*.*.*.gz",
    "--exclude",
    "*[a.]*[a.]*[a.]*[a.]*[a.]b",
    "--exclude",
    "**/d/**/d/**/d/**/d/**/e",
    "--exclude",
    "*.tmp",
]
"""Patterns that could be matched in very many ways."""
LONG = {"." * 250: b"1", "a" * 255: b"2", "d/" * 500 + "f": b"3", "line\nfeed/a": b"4"}


def test_no_name_holds_a_pull_with_patterns_up(rig: Rig) -> None:
    rig.bucket.put("before", b"0")
    pull = rig.pull(*STARS)
    rig.until_pulled({"before": b"0"})
    for key, body in LONG.items():
        rig.bucket.put(key, body)
        rig.bucket.put(f"{key}.tmp"[-255:] if "/" not in key else f"{key}.tmp", b"excluded")
    rig.bucket.put("after", b"5")
    try:
        rig.until_pulled({"before": b"0", **LONG, "after": b"5"})
        assert pull.stop() == 143
        assert not pull.events("internal.error")
    finally:
        _remove_with_control_characters(rig)


def test_no_name_holds_a_push_with_patterns_up(rig: Rig) -> None:
    for path, body in LONG.items():
        rig.write(path, body)
        rig.write(f"{path}.tmp"[-255:] if "/" not in path else f"{path}.tmp", b"excluded")
    push = rig.push(*STARS)
    try:
        rig.until_pushed(LONG)
        rig.write("after", b"5")
        rig.until_pushed({**LONG, "after": b"5"})
        assert push.stop() == 143
        assert not push.events("internal.error")
    finally:
        _remove_with_control_characters(rig)


# What is our own


def test_what_a_crash_has_left_is_never_published(rig: Rig) -> None:
    ours = [names.hidden(kind, "0123456789abcdef") for kind in ("tmp", "old", "probe")]
    for name in ours:
        rig.write(name, b"ours")
        rig.write(f"deep/{name}", b"ours")
    rig.write(".syncloud-tmp-mine", b"1")
    push = rig.push("--delete")
    rig.until_pushed({".syncloud-tmp-mine": b"1"})
    rig.write(names.hidden("tmp", "0123456789abcdef"), b"a pull at work")
    rig.write("last", b"2")
    rig.until_pushed({".syncloud-tmp-mine": b"1", "last": b"2"})
    time.sleep(2.5)  # longer than anything waits for quiet
    assert sorted(rig.objects()) == [".syncloud-tmp-mine", "last"]
    assert push.running


@pytest.mark.parametrize("role", ["push", "pull"])
def test_a_state_inside_of_the_directory_is_refused_unless_it_is_excluded(
    rig: Rig, role: str
) -> None:
    (rig.into).mkdir()
    root = rig.out if role == "push" else rig.into
    there = [
        "--directory",
        str(root),
        "--state-dir",
        str(root / ".state"),
        "--bucket",
        rig.bucket.name,
        "--once",
    ]
    start = partial(rig.start, role, *there, endpoint=rig.meddler.endpoint)
    refused = start()
    assert refused.wait() == 78
    assert "is inside of" in refused.stderr
    rig.write("file", b"1")
    assert start("--exclude", "/.state/").wait() == 0
    assert rig.objects() == ({"file": b"1"} if role == "push" else {})
