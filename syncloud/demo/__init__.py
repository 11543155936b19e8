"""A demonstration on one machine: an emulated AWS, and real `setup`, `push` and `pull` processes.

    the demo writes into host-a -> push -> S3 -> SQS -> pull -> host-b, where the demo reads

One clock in this process measures all times. The times are the close of the file, the receipt of
the daemon's log line, and the first equal read. Equal means the same bytes, mtime and mode in
host-b.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

from .bed import Bed
from .rounds import follow, one_round
from .signals import Signals

_FOLDER = "syncloud-demo-"


def run(*, once: bool) -> int:
    """Run one round, and then on a terminal, unless `once`, follow the user's changes until Ctrl-C.

    The result is 0 if both directories are equal. Everything is removed at the end, also after an
    error or a signal. Raises SyncloudError.
    """
    with Signals() as signals, contextlib.ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix=_FOLDER, ignore_cleanup_errors=True)
        bed = Bed(Path(stack.enter_context(folder)), stack, signals)
        bed.start()
        equal = one_round(bed)
        if equal and not once and sys.stdin.isatty() and sys.stdout.isatty():
            follow(bed)
        return 0 if equal else 1
