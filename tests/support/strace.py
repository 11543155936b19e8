"""strace(1) on a process that waits.

The trace shows the changes and their order; strace kills at a chosen system call.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

DATA = frozenset(
    {
        "write",
        "pwrite64",
        "writev",
        "pwritev",
        "ftruncate",
        "fallocate",
        "fsetxattr",
        "fchmod",
        "utimensat",
    }
)
"""What changes a file, by its descriptor."""
NAMES = frozenset(
    {
        "mkdir",
        "mkdirat",
        "rmdir",
        "unlink",
        "unlinkat",
        "link",
        "linkat",
        "rename",
        "renameat",
        "renameat2",
        "openat",
    }
)
"""What changes a directory (openat: with O_CREAT)."""
SYNCS = frozenset({"fsync", "fdatasync"})
SENDS = frozenset({"sendto", "sendmsg"})
CHANGING = DATA | NAMES | SYNCS

_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (.*)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_ENDED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (.*)")
_AT = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)"')
_FD = re.compile(r"\d+<([^>]*)>")
_PATH = re.compile(r'"([^"]*)"')


@dataclass(slots=True)
class Call:
    """One system call; `began` and `ended` are places in the trace.

    The result of a call that a kill has cut off is "?".
    """

    thread: int
    name: str
    arguments: str
    result: str
    began: int
    ended: int

    @property
    def done(self) -> bool:
        return not self.result.startswith(("-1", "?"))

    @property
    def paths(self) -> list[str]:
        """The files that it is about; of a rename or link the old name, then the new one."""
        if self.name in {"mkdir", "rmdir", "unlink", "link", "rename"}:
            return _PATH.findall(self.arguments)
        if self.name in NAMES:
            return [os.path.join(*found) for found in _AT.findall(self.arguments)]
        return _FD.findall(self.arguments)[:1]

    def concerns(self, paths: Iterable[str]) -> bool:
        """Whether the call is about one of these paths, as strace's -P decides.

        A call is about such a file, or about a path below such a directory of an `at` call.
        """
        directories = (
            [found[0] for found in _AT.findall(self.arguments)] if self.name in NAMES else []
        )
        return not {*self.paths, *directories}.isdisjoint(paths)

    @property
    def changes(self) -> bool:
        return self.name in CHANGING and (self.name != "openat" or "O_CREAT" in self.arguments)


def works() -> bool:
    """Whether strace is there, and may trace."""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(
            ["strace", "-o", "/dev/null", "true"], capture_output=True, check=False
        ).returncode
        == 0
    )


def attach(pid: int, output: Path, *more: str) -> subprocess.Popen[str]:
    """strace on all threads of `pid`, also future ones.

    From the return of this function on, no call is missed.
    """
    traced = ",".join(sorted(CHANGING | SENDS))
    argv = [
        "strace",
        "-f",
        "-y",
        "-s",
        "1000",
        "-o",
        str(output),
        "-p",
        str(pid),
        "-e",
        f"trace={traced}",
        *more,
    ]
    tracer = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    assert "attached" in said, said
    return tracer


def killing(call: str, nth: int, paths: Sequence[str] = ()) -> list[str]:
    """strace's arguments for SIGKILL at the entry of the `nth` `call` of one thread.

    `paths`, if given, restricts the calls.
    """
    return [
        *(word for path in paths for word in ("-P", path)),
        "-e",
        f"inject={call}:signal=KILL:when={nth}",
    ]


def read(output: Path) -> list[Call]:
    """The calls of a trace, in the order in which they began."""
    return sorted(
        _calls(output.read_text("utf-8", "backslashreplace")), key=lambda call: call.began
    )


def _calls(text: str) -> Iterator[Call]:
    open_calls: dict[int, Call] = {}
    for number, line in enumerate(text.splitlines()):
        if found := _BEGUN.fullmatch(line):
            open_calls[int(found[1])] = Call(int(found[1]), found[2], found[3], "?", number, number)
        elif (found := _ENDED.fullmatch(line)) and int(found[1]) in open_calls:
            call = open_calls.pop(int(found[1]))
            call.arguments, call.result, call.ended = call.arguments + found[3], found[4], number
            yield call
        elif found := _WHOLE.fullmatch(line):
            yield Call(int(found[1]), found[2], found[3], found[4], number, number)
    yield from open_calls.values()
