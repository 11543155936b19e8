"""A throttled or full disk for one process.

A small library before the C library delays or refuses its reads and writes.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

# One backslash at the end of a line joins it to the next one before the compiler sees it.
_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
static long setting(const char *name) { const char *text = getenv(name); \
return text ? atol(text) : 0; }
static void rest(const char *name, size_t size) {
    static atomic_long calls;
    long every = setting("SLOW_EVERY"), \
us = size >= 65536 && atomic_fetch_add(&calls, 1) % every == 0 ? setting(name) : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    while (us && nanosleep(&left, &left)) ;
}
static int is_full(size_t size) {
    static atomic_long written;
    long most = setting("DISK_ROOM");
    return most && atomic_fetch_add(&written, (long)size) > most;
}
#define REAL(name) static __typeof__(&name) real; \
if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define WRITE(name, offset) ssize_t name(int fd, const void *data, size_t size, offset at) \
{ REAL(name); \\
    rest("SLOW_WRITE_US", size); if (is_full(size)) { errno = ENOSPC; return -1; } \
return real(fd, data, size, at); }
#define READ(name, offset) ssize_t name(int fd, void *data, size_t size, offset at) { REAL(name); \\
    rest("SLOW_READ_US", size); return real(fd, data, size, at); }
#define READV(name, offset) ssize_t name(int fd, const struct iovec *to, int count, offset at) \
{ REAL(name); \\
    rest("SLOW_READ_US", count ? to[0].iov_len : 0); return real(fd, to, count, at); }
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)
READ(pread, off_t)
READ(pread64, off64_t)
READV(preadv, off_t)
READV(preadv64, off64_t)
"""


def throttled(
    *, write_us: int = 0, read_us: int = 0, every: int = 1, room: int = 0
) -> dict[str, str]:
    """Variables for a process whose large calls take so many microseconds longer.

    A large call is about 64 KiB or more; one of `every` such calls is delayed. `room`: bytes after
    which pwrite(2) reports a full disk; 0: never.
    """
    return {
        "LD_PRELOAD": str(_library()),
        "SLOW_WRITE_US": str(write_us),
        "SLOW_READ_US": str(read_us),
        "SLOW_EVERY": str(every),
        "DISK_ROOM": str(room),
    }


@functools.cache
def _library() -> Path:
    """Compiled once, in a folder that ends with the tests' process."""
    place = tempfile.TemporaryDirectory(prefix="syncloud-throttle-")
    _FOLDERS.append(place)
    source, library = Path(place.name, "slow.c"), Path(place.name, "slow.so")
    source.write_text(_SOURCE)
    argv = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"it takes gcc: {done.stderr}"
    return library


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
