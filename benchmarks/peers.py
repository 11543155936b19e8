"""`python -m benchmarks.peers`: MinIO's client, which no Python package has, from Debian 13 into this environment.

Where that cannot be had (it takes root and mmdebstrap) the jobs are run without it, and say so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.servers import CHECKOUT
from benchmarks.tools import MC, available

_MEMBER = "./usr/bin/minio-client"


def main() -> None:
    if available(MC):
        return
    told = subprocess.run(
        [CHECKOUT / "packaging" / "root", "trixie", "peers", "minio-client"], stdout=subprocess.PIPE, check=False
    )
    if told.returncode:
        print("without mc: Debian's minio-client could not be had; the variable MC may name it", file=sys.stderr)
        return
    target = Path(sys.executable).parent / "minio-client"
    partial = target.with_suffix(".part")
    with partial.open("wb") as file:
        subprocess.run(["tar", "-x", "-O", "-f", told.stdout.strip(), _MEMBER], stdout=file, check=True)
    shutil.copymode(sys.executable, partial)
    partial.rename(target)


if __name__ == "__main__":
    main()
