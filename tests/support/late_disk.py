"""A disk that answers late or not at all, and a clock that jumps.

The process loads this library before the C library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# One backslash at the end of a line joins it to the next one before the compiler sees it.
_SOURCE = """
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The rules are read anew for each call: "CALL MICROSECONDS PART-OF-THE-PATH\\n"; \
-1 waits until somebody opens the gate. */
static void wait_for(const char *call, const char *path) {
    const char *rules = getenv("SLOW_DISK_RULES");
    char text[4096], name[32], part[1024], gate[PATH_MAX];
    long us, fd = rules ? syscall(SYS_openat, AT_FDCWD, rules, O_RDONLY | O_CLOEXEC, 0) : -1, n;
    int used;
    if (fd < 0) return;
    n = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    text[n < 0 ? 0 : n] = 0;
    for (char *at = text; sscanf(at, "%31s %ld %1023s%n", name, &us, part, &used) == 3; \
at += used) {
        if (strcmp(name, call) || !strstr(path, part)) continue;
        if (us >= 0) {
            struct timespec t = {us / 1000000, us % 1000000 * 1000};
            while (nanosleep(&t, &t)) ;
        } else {
            snprintf(gate, sizeof gate, "%s.held", rules);
            fd = syscall(SYS_openat, AT_FDCWD, gate, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
            if (fd >= 0) syscall(SYS_close, fd);
            snprintf(gate, sizeof gate, "%s.gate", rules);
            fd = syscall(SYS_openat, AT_FDCWD, gate, O_RDONLY | O_CLOEXEC, 0);
            if (fd >= 0) syscall(SYS_close, fd);
        }
        return;
    }
}
static void wait_at(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    ssize_t n;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n < 0) return;
    path[n] = 0;
    wait_for(call, path);
}
#define REAL(name) static __typeof__(&name) real; \
if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
DIR *opendir(const char *path) { REAL(opendir); wait_for("opendir", path); return real(path); }
DIR *fdopendir(int fd) { REAL(fdopendir); wait_at("opendir", fd); return real(fd); }
struct dirent64 *readdir64(DIR *d) { \
REAL(readdir64); wait_at("readdir", dirfd(d)); return real(d); }
int stat64(const char *path, struct stat64 *to) { \
REAL(stat64); wait_for("stat", path); return real(path, to); }
int fstatat64(int fd, const char *path, struct stat64 *to, int flags) {
    REAL(fstatat64); if (fd >= 0) wait_at("statat", fd); else wait_for("stat", path); \
return real(fd, path, to, flags); }
ssize_t pread64(int fd, void *to, size_t n, off64_t at) { \
REAL(pread64); wait_at("pread", fd); return real(fd, to, n, at); }
int fstat64(int fd, struct stat64 *to) { REAL(fstat64); wait_at("fstat", fd); return real(fd, to); }
int fsync(int fd) { REAL(fsync); wait_at("fsync", fd); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); wait_at("fsync", fd); return real(fd); }
/* CLOCK_MONOTONIC is ahead by so many seconds; \
whoever waits for a moment of it is told the real one. */
static long ahead(void) {
    const char *rules = getenv("SLOW_DISK_RULES");
    char name[PATH_MAX], text[32];
    long fd, n;
    snprintf(name, sizeof name, "%s.ahead", rules ? rules : "");
    fd = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    n = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    text[n < 0 ? 0 : n] = 0;
    return atol(text);
}
int clock_gettime(clockid_t clock, struct timespec *t) {
    REAL(clock_gettime); int r = real(clock, t);
    if (!r && clock == CLOCK_MONOTONIC) t->tv_sec += ahead();
    return r;
}
static struct timespec told(const struct timespec *t) {
    struct timespec u = *t, now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    if (labs(u.tv_sec - now.tv_sec) < 1000000) u.tv_sec -= ahead();  /* else it is a time of day */
    return u;
}
int sem_clockwait(sem_t *s, clockid_t c, const struct timespec *t) {
    REAL(sem_clockwait); struct timespec u = told(t); return real(s, c, &u); }
int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t) {
    REAL(pthread_cond_timedwait); struct timespec u = told(t); return real(c, m, &u); }
int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t k, \
const struct timespec *t) {
    REAL(pthread_cond_clockwait); struct timespec u = told(t); return real(c, m, k, &u); }
int flock(int fd, int what) { \
REAL(flock); int r = real(fd, what); if (!r) wait_at("flock", fd); return r; }
"""


class LateDisk:
    """A late disk for each process that gets `environment`.

    Nothing is slow before the first `slow()` or `hang()`. `call` is opendir, readdir, stat (by a
    path), statat (below an open directory), fstat, pread, fsync, or flock (after the lock).
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        source, library = directory / "slow.c", directory / "slow.so"
        source.write_text(_SOURCE)
        compiler = shutil.which("cc") or "gcc"
        subprocess.run(
            [compiler, "-w", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True
        )
        self._rules, self._gate = directory / "rules", directory / "rules.gate"
        self._ahead, self._held = directory / "rules.ahead", directory / "rules.held"
        self._lines: list[str] = []
        os.mkfifo(self._gate)
        self._write()
        self.environment = {"LD_PRELOAD": str(library), "SLOW_DISK_RULES": str(self._rules)}

    def slow(self, call: str, part: str, seconds: float) -> None:
        """Each such call waits so long where its path holds `part`, which has no blanks."""
        self._add(f"{call} {round(seconds * 1e6)} {part}")

    def hang(self, call: str, part: str) -> None:
        """Such a call does not return before `heal()`, and costs nothing meanwhile."""
        self._add(f"{call} -1 {part}")

    @property
    def holds(self) -> bool:
        """Whether a call hangs."""
        return self._held.exists()

    def heal(self) -> None:
        """Nothing is slow any more, and whatever hangs goes on."""
        self._held.unlink(missing_ok=True)
        self._lines.clear()
        self._write()
        with contextlib.suppress(OSError):  # nobody hangs
            os.close(os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK))

    def step(self, seconds: int) -> None:
        """The monotonic clock of the process is that far ahead from now on."""
        self._ahead.write_text(str(seconds))

    def _add(self, line: str) -> None:
        self._lines.append(line + "\n")
        self._write()

    def _write(self) -> None:
        new = self._rules.with_suffix(".new")
        new.write_text("".join(self._lines))
        new.replace(self._rules)
