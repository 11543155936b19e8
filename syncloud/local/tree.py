"""LocalTree: the file tree of a directory on disk, source of a push or target of a pull.

A scan only nominates paths; `observe` looks again below a verified root and proves the result.
`observe` reads small files whole, and only stable reads count (`stable_read`): equal stats
before and after, and no writer in between.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from .. import log
from ..core import names
from ..core.budget import Budget
from ..core.diff import flat
from ..core.interfaces import Content
from ..core.model import SMALL_BYTES, Absent, Base, Entry, ScanChunk, Side, Tag, Unknown
from ..errors import Changed, SyncloudError, Unsteady, Unsyncable
from . import batch, error_mapping, leftovers, marks, mount_guard, stable_read, syscalls
from . import replace as commit
from .claim import Claim
from .content import LocalContent
from .descriptor import Descriptor
from .owners import AnyOwner, Owners
from .root import Root
from .staging import Staging
from .threads import DiskThreads
from .walker import Scan

T = TypeVar("T")


class LocalTree:
    """The tree below the directory `root`.

    `ignored(directory)` prunes the scan. `nonce` identifies our hidden files and marks. `known`
    yields files of the base that identify a remounted file system. `owners(uid)` makes the owner
    policy from the uid of the root's owner; the default accepts files of every owner.

    Raises the errors of `Root`, and BusyError for a directory claimed by another syncloud.
    """

    given = taken = 0

    def __init__(
        self,
        root: Path,
        *,
        nonce: str,
        ignored: Callable[[str], bool] = lambda _: False,
        prefix: str = "",
        threads: int = 4,
        known: mount_guard.Known = mount_guard.nothing,
        owners: Callable[[int], Owners] | None = None,
    ) -> None:
        self.root = Root(root)
        self.nonce = nonce
        self._prefix = prefix
        self._fd = self.root.fd
        try:
            self._claim = Claim(self._fd, str(root))
        except BaseException:
            self.root.close()
            raise
        self.places = mount_guard.MountGuard(root, self._fd, known=known, ignored=ignored)
        self._disk_threads = DiskThreads(threads)
        self._budget = Budget()
        self._batches = batch.Batches(self._disk_threads, self._fd, nonce)
        whose = AnyOwner() if owners is None else owners(os.fstat(self._fd).st_uid)
        self._scan = Scan(
            self._fd, self._disk_threads, ignored=ignored, prefix=prefix, nonce=nonce, owners=whose
        )

    async def _run(
        self, function: Callable[..., T], *arguments: object, path: str, size: int = 0
    ) -> T:
        try:
            return await self._disk_threads.run(function, *arguments, size=size)
        except OSError as error:
            raise await self._blamed(error, path) from error

    async def _blamed(self, error: OSError, path: str) -> SyncloudError:
        """`error` as a SyncloudError. On a disk thread, because the translation asks the disk."""
        return await self._disk_threads.run(
            error_mapping.translate, error, path, self._fd, self.nonce
        )

    async def _alter(self, function: Callable[..., T], *arguments: object, path: str) -> T:
        await self._require_writable(path)
        return await self._run(function, *arguments, path=path)

    async def _require_writable(self, path: str) -> None:
        """The last line of defence against writes to refused paths and below doubtful mounts.

        Raises Unsyncable.
        """
        if reason := names.refusal(path):
            raise Unsyncable(path, f"{path}: {reason}")
        if self.places.any and (
            reason := await self._run(self.places.why_untrusted, path, path=path)
        ):
            raise Unsyncable(
                path,
                reason,
                hint="mount it again; or say that it is meant: syncloud resume --allow-deletes",
            )

    # In both roles

    def missing(self) -> str | None:
        """Why the path no longer leads to the opened root, or None (`Root.missing`)."""
        return self.root.missing()

    def stalled(self) -> str | None:
        """The reason to call the disk frozen, or None."""
        return self._disk_threads.stalled()

    def have_moved_since(self, moment: float) -> bool:
        """Whether the disk has answered since `moment` (monotonic seconds), or is idle."""
        return self._disk_threads.have_moved_since(moment)

    def scan(self, under: str = "") -> Iterator[Side | ScanChunk]:
        """Nominate every regular file below `under`, in the order of the paths' UTF-8 bytes.

        Unreadable and refused paths come as Unknown. Blocking: call it on a thread.
        """
        reason = self.missing() or self.places.why_untrusted(f"{under}/")
        if reason is not None:
            yield Unknown(under, reason, subtree=True)
            return
        closed = self.places.skipped(under)
        walk = self._scan.walk(under, frozenset(side.path for side in closed))
        yield from mount_guard.merged(closed, flat(walk)) if closed else walk

    def _nominate(self, path: str, status: os.stat_result) -> Side:
        reason = self._scan.refusal(path, status)
        return stable_read.entry_of(path, status) if reason is None else Unknown(path, reason)

    async def observe(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        *,
        reported: Side | None = None,
        deadline_passed: bool = False,
    ) -> Side:
        """Look at `path` now. `known` is the base's tag for this side; a file that still has this
        tag and the base's size is not read.

        Raises HostUnavailable. Raises Unsteady for a writer at work while `deadline_passed` is
        False, and at any time for a small file rewritten meanwhile or under lease.
        """
        return await self._run(self._look, path, base, known, reported, deadline_passed, path=path)

    def _look(
        self,
        path: str,
        base: Base | None,
        known: Tag | None,
        reported: Side | None,
        deadline_passed: bool,
    ) -> Side:
        if reason := names.refusal(path) or self.places.why_untrusted(path):
            return Unknown(path, reason)
        if names.is_hidden(path):
            return Unknown(path, "excluded")
        if isinstance(reported, Entry) and reported.size <= SMALL_BYTES and not path.endswith("/"):
            side = self._read_as_nominated(path, base, known, deadline_passed)
            if side is not None:
                return side
        return self._look_closely(path, base, known, deadline_passed)

    def _look_closely(
        self, path: str, base: Base | None, known: Tag | None, deadline_passed: bool
    ) -> Side:
        """O_PATH first: an open for reading has side effects on devices, so it is for regular
        files alone.
        """
        try:
            fd = syscalls.open_beneath(self._fd, path.removesuffix("/"), os.O_PATH)
        except OSError as error:
            return self._unseen(path, error)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if stat.S_ISDIR(status.st_mode):
            return _marker(path) if path.endswith("/") else self._absent(path)
        if not deadline_passed and self._scan.owners.awaits(status):
            raise Unsteady(path, f"{path}: has {status.st_nlink} names at the moment")
        side = self._nominate(path, status)
        if not isinstance(side, Entry):
            return side
        if path.endswith("/"):
            return self._absent(path)  # a file has the name of the marker's directory
        if base is not None and side.tag == known and side.size == base.size:
            return replace(side, crc=base.crc)
        if side.size > SMALL_BYTES:
            return replace(side, written_by_us=marks.claimed(self._fd, path, self.nonce))
        try:
            fd = self._open_small(path)
        except OSError as error:
            return self._unseen(path, error)
        try:
            again = self._read_small(
                fd,
                path,
                base,
                None,
                deadline_passed,
                lambda crc: marks.marked(fd, path, crc, self.nonce),
            )
            if again is None:
                raise Unsteady(path, f"{path}: replaced while it was looked at")
            return again
        finally:
            os.close(fd)

    def _unseen(self, path: str, error: OSError) -> Side:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return self._absent(path)
        if error.errno in (errno.ELOOP, errno.EXDEV):
            return Unknown(path, "a symbolic link is in the way")
        if error.errno == errno.EAGAIN:
            raise Unsteady(path, f"{path}: another program has a lease on it") from error
        if error.errno in error_mapping.SERIOUS:
            raise error
        return Unknown(path, error.strerror or str(error))

    def _absent(self, path: str) -> Side:
        reason = self.missing() or self.places.doubt_absence(path)
        return Absent(path) if reason is None else Unknown(path, reason)

    # As the source of a push

    def _read_as_nominated(
        self, path: str, base: Base | None, known: Tag | None, deadline_passed: bool
    ) -> Side | None:
        """The fast path for a small file of a listing: one open. None means `_look_closely`."""
        try:
            fd = self._open_small(path)
        except OSError:
            return None
        try:
            return self._read_small(fd, path, base, known, deadline_passed)
        finally:
            os.close(fd)

    def _open_small(self, path: str) -> int:
        return syscalls.open_beneath(self._fd, path, os.O_RDONLY | os.O_NONBLOCK)

    def _read_small(
        self,
        fd: int,
        path: str,
        base: Base | None,
        known: Tag | None,
        deadline_passed: bool,
        ours: Callable[[int], bool] = stable_read.unasked,
    ) -> Entry | None:
        """The small file behind `fd`, with its bytes unless its tag is `known`; else None."""
        status = os.fstat(fd)
        if (
            not stat.S_ISREG(status.st_mode)
            or status.st_size > SMALL_BYTES
            or self._scan.refusal(path, status)
        ):
            return None
        if base is not None and stable_read.tag_of(status) == known and status.st_size == base.size:
            return stable_read.entry_of(path, status, base.crc)
        return stable_read.read_whole(
            fd, status, path, base, deadline_passed=deadline_passed, ours=ours
        )

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> LocalContent:
        """Open a big file for reads of its parts. Raises Changed, Unsteady."""
        file = Descriptor()
        try:
            await self._run(self._open, file, entry, deadline_passed, path=entry.path)
        except BaseException:
            file.close()
            raise
        return LocalContent(
            entry,
            file,
            functools.partial(self._run, path=entry.path),
            deadline_passed=deadline_passed,
        )

    def _open(self, file: Descriptor, entry: Entry, deadline_passed: bool) -> None:
        try:
            file.take(syscalls.open_beneath(self._fd, entry.path, os.O_RDONLY | os.O_NONBLOCK))
        except BlockingIOError as error:
            raise Unsteady(
                entry.path, f"{entry.path}: another program has a lease on it"
            ) from error
        except OSError as error:
            raise Changed(entry.path, f"{entry.path}: {error.strerror}") from error
        with file.held() as fd:
            status = stable_read.wait_past_racy_tick(fd)
            if stable_read.tag_of(status) != entry.tag:
                raise Changed(entry.path, f"{entry.path}: changed before it was read")
            if not (deadline_passed or stable_read.is_quiet(status)) and syscalls.held_by_writer(
                fd
            ):
                raise Unsteady(entry.path, f"{entry.path}: open for writing")

    async def with_checksum(self, entry: Entry) -> Entry:
        """`entry` with its checksum, `written_by_us` and `racy`. Raises Changed, Unsteady."""
        content = await self.open(entry, deadline_passed=True)
        try:
            crc = await content.digest()
            await content.verify(crc)
            ours = await content.is_marked(crc, self.nonce)
            return replace(entry, crc=crc, written_by_us=ours, racy=await content.is_held())
        finally:
            content.close()

    def rename_identity(self, entry: Entry) -> Tag | None:
        """The tag fields that a rename keeps: inode, size and mtime."""
        return entry.tag[:3]

    # As the target of a pull

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        """Put the bytes of `entry` (its body, or `content`) in place of `expected`; durable on
        return.

        Raises HostUnavailable, and PathError: Changed, Blocked, Corrupt, Unsyncable and others.
        """
        if entry.path.endswith("/"):
            await self._alter(commit.make_directory, self._fd, entry.path, path=entry.path)
            return _marker(entry.path)
        if entry.body is not None:
            await self._require_writable(entry.path)
            file = batch.File(entry, expected)
            await self._batches.write(file)
            return await self._told(file)
        assert content is not None
        await self._require_writable(entry.path)
        call = functools.partial(self._run, path=entry.path)
        return await self._told(
            await Staging(call, self._budget, self._fd, entry, expected, self.nonce).write(content)
        )

    async def admit(self, entry: Entry) -> None:
        await self._budget.turn(SMALL_BYTES, entry.size)

    async def _told(self, file: batch.File) -> Entry:
        path = file.entry.path
        if file.aside is not None:
            text = "%s was edited here while it was replaced: the edit is kept as %s"
            log.warning("conflict.kept", text, path, file.aside, path=path)
        if file.exchanged:
            text = "%s: somebody has put a file in the place of the one that was to get this name; it is looked at again"
            log.warning("pull.exchanged", text, path, path=path)
        try:
            return file.outcome()
        except OSError as error:
            raise await self._blamed(error, path) from error

    async def touch(self, expected: Entry, source: Entry) -> Entry | None:
        """Give the file the source's mtime and mode. None for a file with another hard link,
        because every link would get both.

        Raises Changed, Unsteady.
        """
        if expected.path.endswith("/"):
            return expected
        return await self._alter(
            commit.touch, self._fd, expected, source.mtime_ns, source.mode, path=expected.path
        )

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        """The source's mode; a file that pull did not write gets no new group or other bits."""
        more = source.mode & ~expected.mode & 0o077
        if not more or expected.path.endswith("/"):
            return source.mode
        is_own = await self._run(marks.is_own, self._fd, expected, self.nonce, path=expected.path)
        return source.mode if is_own else source.mode & ~more

    async def delete(self, expected: Entry) -> None:
        """Remove the file if it still is `expected`; for a marker, the empty directory. Parents
        that become empty go as well. Raises Changed, Unsteady.
        """
        await self._alter(self._delete, expected, path=expected.path)

    def _delete(self, expected: Entry) -> None:
        if expected.path.endswith("/"):
            commit.remove_emptied(self._fd, expected.path.rstrip("/"))
        else:
            commit.delete(self._fd, expected, self.nonce)

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        """Keep the file under a conflict name as well; returns the new path and the entry now.

        Raises Changed, Unsteady.
        """
        return await self._alter(
            commit.keep_conflict_copy, self._fd, entry, self._prefix, path=entry.path
        )

    async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
        """Always None: on a disk, a local copy instead of a transfer does not pay."""
        return None

    async def reach(self, known: str | None) -> None:
        """Does nothing, because `_blamed` checks the root after a failed call."""

    async def try_giving(self, known: Sequence[str]) -> None:
        """Does nothing, like `reach`."""

    async def try_taking(self) -> None:
        """Does nothing, like `reach`."""

    def keeps_versions(self, entry: Entry) -> bool:
        return False

    def leftovers(self) -> Iterator[str]:
        """Yield hidden files that a crash may have left, directory by directory. Blocking: call it
        on a thread.
        """
        for directory, hidden in leftovers.found(self._fd):
            yield from (f"{directory}/{name}" if directory else name for name in hidden)

    def recover(self, path: str, known: Mapping[Tag, int | None], kept: int = 0) -> str | None:
        """Clean up one hidden file (`leftovers.recover`). Blocking."""
        return leftovers.recover(self._fd, path, known, self.nonce, kept)

    def close(self) -> None:
        """Wait for running calls, then close the root. A call that never returns keeps the root
        open, because a free descriptor number could become another file's.
        """
        if self._disk_threads.close():
            self.places.close()
            self.root.close()
        self._claim.release()


def _marker(path: str) -> Entry:
    """The entry of an empty directory. Only existence counts, so times and mode are 0."""
    return Entry(path, ("directory", "", "", ""), 0, 0, 0, 0)
