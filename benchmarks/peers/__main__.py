"""`python -m benchmarks.peers` puts MinIO's client from Debian 13 into this environment.

No Python package has that client. Where it cannot be had (it takes root and mmdebstrap), the jobs
run without it, and report that.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import CHECKOUT
from benchmarks.peers.tools import MC, available

_PROGRAM, _PACKAGES = "./usr/bin/minio-client", "./var/lib/dpkg/status"


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__).parse_args()
    if available(MC):
        return
    told = subprocess.run(
        [CHECKOUT / "packaging" / "bin" / "root", "trixie", "peers", "minio-client"],
        stdout=subprocess.PIPE,
        check=False,
    )
    if told.returncode:
        print(
            "without mc: Debian's minio-client could not be had; the variable MC may name it",
            file=sys.stderr,
        )
        return
    root = told.stdout.strip()
    target = Path(sys.executable).parent / "minio-client"
    # Debian's build does not know its own version.
    version = re.search(
        rb"^Package: minio-client\n(?:.+\n)*?Version: (.+)$", _member(root, _PACKAGES), re.MULTILINE
    )
    target.with_suffix(".version").write_bytes(version[1] if version else b"")
    partial = target.with_suffix(".part")
    partial.write_bytes(_member(root, _PROGRAM))
    shutil.copymode(sys.executable, partial)
    partial.rename(target)


def _member(root: bytes, name: str) -> bytes:
    return subprocess.run(
        ["tar", "-x", "-O", "-f", root, name], stdout=subprocess.PIPE, check=True
    ).stdout


if __name__ == "__main__":
    main()
