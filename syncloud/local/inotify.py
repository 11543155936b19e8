"""inotify as the kernel reports it: limits, descriptors of this process, watches, unread bytes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from pathlib import Path


def limit(name: str, default: int) -> int:
    """The setting `name` below fs.inotify, see inotify(7); `default` if it cannot be read."""
    try:
        return int(Path("/proc/sys/fs/inotify", name).read_text())
    except (OSError, ValueError):
        return default


def descriptors() -> Iterator[int]:
    """Every inotify descriptor of this process."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":
                yield int(name)


def unread(fd: int) -> int:
    """Unread bytes of an inotify descriptor, or 0 on an error: ioctl_list(2), FIONREAD."""
    with contextlib.suppress(OSError):
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))
        return int(count)
    return 0


def watches(fd: int) -> Iterator[tuple[int, int]]:
    """The (watch, inode) pairs of an inotify descriptor: proc_pid_fdinfo(5). Empty on an error."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as lines:
            for line in lines:
                if line.startswith("inotify "):
                    _, watch, inode, *_ = line.split()
                    yield int(watch.removeprefix("wd:"), 16), int(inode.removeprefix("ino:"), 16)
    except OSError:
        return
