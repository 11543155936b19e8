"""syncloud whose threads the kernel knows by their names: `python -m benchmarks.threads push ...`.

Then `top -H` and `perf report --sort comm` say what each of them costs. (Python does so itself from
3.14 on.)
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

_EVERY = 0.1


def _name_them() -> None:
    while True:
        for thread in threading.enumerate():
            if thread.native_id is not None and thread.is_alive():
                _name(thread)
        time.sleep(_EVERY)


def _name(thread: threading.Thread) -> None:
    try:
        Path(f"/proc/self/task/{thread.native_id}/comm").write_text(thread.name[:15])
    except OSError:
        return  # it has just ended


if __name__ == "__main__":
    from syncloud.cli import main

    threading.Thread(target=_name_them, name="names", daemon=True).start()
    sys.exit(main())
