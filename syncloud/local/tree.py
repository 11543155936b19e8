"""LocalTree: the file tree of a directory on disk, source of a push or target of a pull.

It joins the parts of this package: `walker` nominates paths, `lookup` observes one of them,
`content` reads a large file, and `batch`, `staging` and `replace` put files in place. Each call
runs on a disk thread, and a fault of the disk comes back as a SyncloudError.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from .. import log
from ..core import names
from ..core.budget import Budget
from ..core.diff import flat
from ..core.interfaces import Content
from ..core.model import SMALL_BYTES, Base, Entry, Kind, ScanChunk, Side, Tag, Unknown
from ..errors import Skipped, SyncloudError
from . import batch, error_mapping, leftovers, marks, mount_guard, parents
from . import replace as commit
from .claim import Claim
from .content import LocalContent, open_content
from .entries import marker
from .lookup import Lookup, Query
from .owners import AnyOwner, Owners
from .root import Root
from .staging import Staging
from .threads import Caller, DiskThreads
from .walker import Scan

T = TypeVar("T")

_MOUNT_HINT = "mount it again, or confirm the change: syncloud resume --allow-deletes"


class LocalTree:
    """The tree below the directory `root`.

    `nonce` identifies our hidden files and marks. `ignored(directory)` prunes the scan; None prunes
    nothing. `known` yields files of the base that identify a remounted file system; None is an
    empty base. `owners(uid)` makes the owner policy from the uid of the root's owner; None accepts
    files of every owner.

    Raises the errors of `Root`, and BusyError for a directory claimed by another syncloud.
    """

    given = taken = 0

    def __init__(
        self,
        root: Path,
        *,
        nonce: str,
        ignored: Callable[[str], bool] | None = None,
        prefix: str = "",
        threads: int = 4,
        known: mount_guard.Known | None = None,
        owners: Callable[[int], Owners] | None = None,
    ) -> None:
        self.root, self._claim = _claimed(root)
        self.nonce = nonce
        self._prefix = prefix
        self._fd = self.root.fd
        prunes = _nothing if ignored is None else ignored
        familiar = mount_guard.nothing if known is None else known
        self.places = mount_guard.MountGuard(root, self._fd, known=familiar, ignored=prunes)
        self._disk_threads = DiskThreads(threads)
        self._budget = Budget()
        self._batches = batch.Batches(self._disk_threads, self._fd, nonce)
        whose = AnyOwner() if owners is None else owners(os.fstat(self._fd).st_uid)
        self._scan = Scan(
            self._fd, self._disk_threads, ignored=prunes, prefix=prefix, nonce=nonce, owners=whose
        )
        self._lookup = Lookup(self.root, nonce, self.places, self._scan)

    async def _run(
        self, function: Callable[..., T], *arguments: object, path: str, size: int = 0
    ) -> T:
        try:
            return await self._disk_threads.run(function, *arguments, size=size)
        except OSError as error:
            raise await self._translated(error, path) from error

    async def _translated(self, error: OSError, path: str) -> SyncloudError:
        """`error` as a SyncloudError. On a disk thread, because the translation asks the disk."""
        return await self._disk_threads.run(
            error_mapping.translate, error, path, self._fd, self.nonce
        )

    def _caller(self, path: str) -> Caller:
        return functools.partial(self._run, path=path)

    async def _alter(self, function: Callable[..., T], *arguments: object, path: str) -> T:
        await self._require_writable(path)
        return await self._run(function, *arguments, path=path)

    async def _require_writable(self, path: str) -> None:
        """The last line of defence against writes to refused paths and below doubtful mounts.

        Raises Skipped.
        """
        if reason := names.refusal(path):
            raise Skipped(path, f"{path}: {reason}")
        if not self.places.any:
            return
        if reason := await self._run(self.places.why_untrusted, path, path=path):
            raise Skipped(path, reason, hint=_MOUNT_HINT)

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
        query = Query(path, base, known, deadline_passed)
        return await self._run(self._lookup.look, query, reported, path=path)

    # As the source of a push

    async def open(self, entry: Entry, *, deadline_passed: bool = False) -> LocalContent:
        """Open a big file for reads of its parts. Raises Changed, Unsteady."""
        call = self._caller(entry.path)
        return await open_content(call, self._fd, entry, deadline_passed=deadline_passed)

    async def with_checksum(self, entry: Entry) -> Entry:
        """`entry` with its checksum, `written_by_us` and `racy`. Raises Changed, Unsteady."""
        file = await self.open(entry, deadline_passed=True)
        try:
            return await file.with_checksum(self.nonce)
        finally:
            file.close()

    def rename_identity(self, entry: Entry) -> Tag | None:
        """The tag fields that a rename keeps: inode, size and mtime."""
        return entry.tag[:3]

    # As the target of a pull

    async def write(self, entry: Entry, content: Content | None, expected: Entry | None) -> Entry:
        """Put the bytes of `entry` (its body, or `content`) in place of `expected`; durable on
        return.

        Raises HostUnavailable, and PathError: Changed, Blocked, Corrupt, Skipped and others.
        """
        if entry.kind is Kind.DIRECTORY:
            await self._alter(commit.make_directory, self._fd, entry.path, path=entry.path)
            return marker(entry.path)
        await self._require_writable(entry.path)
        file = await self._put(entry, content, expected)
        return await self._reported(file)

    async def _put(
        self, entry: Entry, content: Content | None, expected: Entry | None
    ) -> batch.File:
        file = batch.File(entry, expected)
        if entry.body is not None:
            await self._batches.write(file)
            return file
        assert content is not None
        call = self._caller(entry.path)
        return await Staging(call, self._budget, self._fd, file, self.nonce).write(content)

    async def admit(self, entry: Entry) -> None:
        await self._budget.turn(SMALL_BYTES, entry.size)

    async def _reported(self, file: batch.File) -> Entry:
        """The written entry of `file`, whose edits by other programs are logged."""
        path = file.entry.path
        if file.aside is not None:
            text = "%s was edited here while it was replaced: the edit is kept as %s"
            log.warning("conflict.kept", text, path, file.aside, path=path)
        if file.exchanged:
            text = "%s: another file has taken the place of the downloaded one; the path is retried"
            log.warning("pull.exchanged", text, path, path=path)
        try:
            return file.outcome()
        except OSError as error:
            raise await self._translated(error, path) from error

    async def touch(self, expected: Entry, source: Entry) -> Entry | None:
        """Give the file the source's mtime and mode. None for a file with another hard link,
        because every link would get both.

        Raises Changed, Unsteady.
        """
        if expected.kind is Kind.DIRECTORY:
            return expected
        stamps = source.mtime_ns, source.mode
        return await self._alter(commit.touch, self._fd, expected, *stamps, path=expected.path)

    async def mode_for(self, expected: Entry, source: Entry) -> int:
        """The source's mode; a file that pull did not write gets no new group or other bits."""
        more = source.mode & ~expected.mode & 0o077
        if not more or expected.kind is Kind.DIRECTORY:
            return source.mode
        is_own = await self._run(marks.is_own, self._fd, expected, self.nonce, path=expected.path)
        return source.mode if is_own else source.mode & ~more

    async def delete(self, expected: Entry, keep: Collection[str] = ()) -> None:
        """Remove the file if it still is `expected`; for a marker, the empty directory. Parents
        that become empty go as well, except those in `keep`. Raises Changed, Unsteady.
        """
        await self._alter(self._delete, expected, keep, path=expected.path)

    def _delete(self, expected: Entry, keep: Collection[str]) -> None:
        if expected.kind is Kind.DIRECTORY:
            parents.remove_emptied(self._fd, expected.path.rstrip("/"), keep=keep)
        else:
            commit.delete(self._fd, expected, self.nonce, keep)

    async def keep_conflict_copy(self, entry: Entry) -> tuple[str, Entry]:
        """Keep the file under a conflict name as well; returns the new path and the entry now.

        Raises Changed, Unsteady.
        """
        keep = commit.keep_conflict_copy
        return await self._alter(keep, self._fd, entry, self._prefix, path=entry.path)

    async def server_side_copy(self, origin: Entry, entry: Entry) -> Entry | None:
        """Always None: on a disk, a local copy instead of a transfer does not pay."""
        return None

    async def reach(self, known: str | None) -> None:
        """Does nothing, because `_translated` checks the root after a failed call."""

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


def _nothing(directory: str) -> bool:
    """The answer of a tree without exclusions: no directory is pruned."""
    return False


def _claimed(path: Path) -> tuple[Root, Claim]:
    root = Root(path)
    try:
        return root, Claim(root.fd, str(path))
    except BaseException:
        root.close()
        raise
