"""Objects of aws-cli, s5cmd and rclone are pulled byte for byte.

Each tool also reads push's objects.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.meddler import Meddler, encoding

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Start
    from tests.support.emulator import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TOOLS = ("aws", "s5cmd", "rclone")
BINARIES = Path(sys.executable).parent

NAMES = [
    "plain.txt",
    "with  two spaces",
    " leading and trailing ",
    "a+b+c",
    "100%",
    "%2Fno slash%20no space%",
    "a%2Bb is not a+b",
    "\u00fcber/\u65e5\u672c\u8a9e \U0001f980.txt",
    "decomposed u\u0308",
    "year=2020/month=01/key=value.csv",
    "quotes '\" & ampersand; #hash !bang $dollar @at ~tilde (round) {curly}, comma:colon",
    "empty",
    ".hidden/.file",
]
MTIME_NS = 1_577_934_245_123_456_789


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files with names and sizes that tools get wrong.

    The mtimes are long ago and have nanoseconds.
    """
    root = tmp_path / "source"
    bytes_of = random.Random(4)
    # 1,000 bytes of key together with the longest folder that a test puts before it.
    long = "/".join(["\u00e9" * 127, "y" * 255, "z" * 255])
    long += "/" + "w" * (1000 - len(f"f/rclone/{long}/".encode()))
    for number, name in enumerate([*NAMES, long]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else bytes_of.randbytes(number * 1000 + 1))
        os.utime(path, ns=(MTIME_NS + number, MTIME_NS + number))
        path.chmod(0o640)
    big = root / "big one.bin"
    big.write_bytes(bytes_of.randbytes(11 * 2**20 + 3))
    os.utime(big, ns=(MTIME_NS, MTIME_NS))
    big.chmod(0o600)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def mtimes(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file()
    }


class Tools:
    """The three commands, with parts small enough that the big file travels in several."""

    def __init__(self, bucket: Bucket, home: Path) -> None:
        missing = [tool for tool in TOOLS if not (BINARIES / tool).exists()]
        if missing:
            pytest.skip(f"not installed beside {sys.executable}: {', '.join(missing)}")
        self._bucket = bucket.name
        self._endpoint = bucket.server.endpoint
        self._env = bucket.server.environment() | {"HOME": str(home)}
        home.mkdir()

    def upload(self, tool: str, source: Path, folder: str) -> None:
        self._copy(tool, f"{source}/", self._place(tool, folder))

    def download(self, tool: str, folder: str, target: Path, *options: str) -> None:
        target.mkdir()
        self._copy(tool, self._place(tool, folder), f"{target}/", *options)

    def _place(self, tool: str, folder: str) -> str:
        if tool == "rclone":
            return (
                f":s3,provider=Other,env_auth,endpoint='{self._endpoint}':{self._bucket}/{folder}"
            )
        return f"s3://{self._bucket}/{folder}/"

    def _copy(self, tool: str, source: str, target: str, *options: str) -> None:
        parts = ["--s3-no-check-bucket", "--s3-upload-cutoff", "5Mi", "--s3-chunk-size", "5Mi"]
        if tool == "s5cmd" and source.startswith("s3://"):
            source += "*"
        command = {
            "aws": ["s3", "cp", "--quiet", "--recursive", source, target],
            "s5cmd": ["--endpoint-url", self._endpoint, "cp", "--part-size", "5", source, target],
            "rclone": ["--config", os.devnull, "copy", *parts, *options, source, target],
        }[tool]
        done = subprocess.run(
            [str(BINARIES / tool), *command],
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def tools(bucket: Bucket, tmp_path: Path) -> Tools:
    return Tools(bucket, tmp_path / "tools-home")


@pytest.fixture
def pulled_arguments(bucket: Bucket, tmp_path: Path) -> Callable[..., list[str]]:
    def arguments(*more: str) -> list[str]:
        places = ["--directory", str(tmp_path / "pulled"), "--state-dir", str(tmp_path / "state")]
        return [
            "pull",
            *places,
            "--bucket",
            bucket.name,
            "--prefix",
            "f",
            "--log-format",
            "json",
            *more,
        ]

    return arguments


def test_what_they_write_is_pulled(
    bucket: Bucket,
    tools: Tools,
    source: Path,
    tmp_path: Path,
    syncloud: Start,
    pulled_arguments: Callable[..., list[str]],
) -> None:
    for tool in TOOLS:
        tools.upload(tool, source, f"f/{tool}")
    listed = bucket.keys()
    assert max(len(key.encode()) for key in listed) == 1000
    assert all("-" in bucket.head(f"f/{tool}/big one.bin")["ETag"] for tool in TOOLS)
    process = syncloud(*pulled_arguments("--once"))
    assert process.wait(timeout=120) == 0, process.stderr
    for tool in TOOLS:
        assert contents(tmp_path / "pulled" / tool) == contents(source), tool
    assert mtimes(tmp_path / "pulled" / "rclone") == mtimes(source)
    assert not process.events("path.skipped")


def test_what_they_write_is_pulled_by_its_events(
    bucket: Bucket,
    tools: Tools,
    source: Path,
    tmp_path: Path,
    syncloud: Start,
    pulled_arguments: Callable[..., list[str]],
) -> None:
    with Meddler(bucket.server.endpoint, encoding) as meddler:
        process = syncloud(
            *pulled_arguments("--queue-url", bucket.queue_url), endpoint=meddler.endpoint
        )
        process.wait_event("reconcile.finished")
        process.wait_event("service.ready")
        for tool in TOOLS:
            tools.upload(tool, source, f"f/{tool}")
        wanted = {f"{tool}/{path}" for tool in TOOLS for path in contents(source)}
        process.wait_for(
            lambda: all((tmp_path / "pulled" / name).exists() for name in wanted), timeout=60
        )
        assert process.stop() == 143
    assert len(process.events("reconcile.finished")) == 1  # no listing helped
    for tool in TOOLS:
        assert contents(tmp_path / "pulled" / tool) == contents(source), tool
    assert mtimes(tmp_path / "pulled" / "rclone") == mtimes(source)
    assert not process.events("conflict.kept")


def test_they_read_what_push_wrote(
    bucket: Bucket, tools: Tools, source: Path, tmp_path: Path, syncloud: Start
) -> None:
    places = [
        "--directory",
        str(source),
        "--state-dir",
        str(tmp_path / "state"),
        "--bucket",
        bucket.name,
        "--prefix",
        "f",
    ]
    process = syncloud("push", *places, "--once", "--log-format", "json")
    assert process.wait(timeout=120) == 0, process.stderr
    assert "-" in bucket.head("f/big one.bin")["ETag"]
    for tool in TOOLS:
        tools.download(tool, "f", tmp_path / tool)
        assert contents(tmp_path / tool) == contents(source), tool
    assert mtimes(tmp_path / "rclone") == mtimes(source)
    # With metadata it restores the permissions too.
    tools.download("rclone", "f", tmp_path / "with-metadata", "--metadata")
    assert mtimes(tmp_path / "with-metadata") == mtimes(source)
    modes = {
        path.stat().st_mode & 0o777
        for path in (tmp_path / "with-metadata").rglob("*")
        if path.is_file()
    }
    assert modes == {0o640, 0o600}
