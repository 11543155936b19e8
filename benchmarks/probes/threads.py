"""syncloud whose threads have their names in the kernel, too.

With `python -m benchmarks.probes.threads push ...`, `top -H` and `perf report --sort comm` show the
cost of each thread. (From 3.14 on Python does so itself.)
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path

_EVERY = 0.1


def _name_them() -> None:
    while True:
        for thread in threading.enumerate():
            with contextlib.suppress(OSError):  # it has just ended
                Path(f"/proc/self/task/{thread.native_id}/comm").write_text(thread.name[:15])
        time.sleep(_EVERY)


if __name__ == "__main__":
    from syncloud.cli.main import main

    threading.Thread(target=_name_them, name="names", daemon=True).start()
    sys.exit(main())
