"""The composition root: builds state, trees and engine from settings, and closes them again.

push  source LocalTree  target S3Tree     hints WatchSource
pull  source S3Tree     target LocalTree  hints QueueSource
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import log
from ..aws.session import Aws
from ..config.parser import Settings
from ..core import names, sample
from ..core.filters import Filter
from ..core.interfaces import Direction, Tree
from ..core.model import Hint, Policy, Tag
from ..core.work_queue import WorkQueue
from ..engine.dry_run import DryRunTree
from ..engine.loop import Engine
from ..errors import ConfigurationError, HostUnavailable
from ..local import batch, identity, mountinfo, replace, rights
from ..local.owners import SameOwner
from ..local.root import Root
from ..local.tree import LocalTree
from ..local.way import trusted
from ..s3 import multipart
from ..s3.capabilities import probe
from ..s3.objects import StoreCapabilities
from ..s3.transport import Transport
from ..s3.tree import S3Tree
from ..state import store as state
from . import state_directory
from .steps import CalledOff, Steps

ABORT_TIMEOUT_S = 5.0
"""Seconds that a stop waits for the cleanup of old uploads."""


@dataclass(slots=True)
class Session:
    """The composed parts of one sync, shared by a daemon and a single pass."""

    role: str
    settings: Settings
    pair: state.Pair
    directory: Path
    aws: Aws
    state: state.State
    local: LocalTree
    remote: S3Tree
    engine: Engine
    steps: Steps
    verified: float = 0.0
    """Time of the last listing of both sides, kept over restarts; seconds since the epoch."""
    _mounts: str = ""

    def first_look(self) -> Hint:
        """The hint for a start's listing: always the source, and the target if needed.

        A pull always lists both sides. A push lists the bucket only if `verify_due()`.
        """
        return Hint("", subtree=True, check_target=self.role == "pull" or self.verify_due())

    async def reach(self) -> None:
        """Prove that the bucket exists and is accessible.

        A listing of the bucket is a proof. A start without such a listing requests a known object.
        """
        if not self.first_look().check_target:
            await self.remote.reach(await self.steps.run(_first, self.state))

    def verify_due(self) -> bool:
        """Whether a listing of both sides is due: new state, expired verify-interval, or a clock
        set back.
        """
        return not 0 <= time.time() - self.verified < self.settings.verify_interval

    async def note_verified(self) -> None:
        """Keep the time of the last full listing over restarts. After a disk failure, the next call
        retries.
        """
        last = self.engine.stats.last_verify
        if last > self.verified:
            with contextlib.suppress(HostUnavailable):
                await self.steps.finish(self.state.notes.set, "verified", str(last))
                self.verified = last

    def trouble_or_note(self) -> tuple[HostUnavailable | None, str | None]:
        """A failure of the directory or the state, and the pending note of `syncloud resume`.
        Blocking.
        """
        if missing := self.local.missing():
            return HostUnavailable(
                missing, hint="mount it again, or put it back; it is waited for"
            ), None
        if broken := self.state.broken():
            return HostUnavailable(
                broken, hint="the daemon opens it anew, and builds it anew where it has to"
            ), None
        with contextlib.suppress(HostUnavailable):  # the next look reports the failure
            return None, self.state.notes.take("resume")
        return None, None

    def resume(self, note: str) -> None:
        """Apply a note of `syncloud resume`."""
        log.warning("service.resumed", "resumed by hand (%s)", note)
        self.engine.resume(allow_deletes=note == "allow-deletes")

    async def note_mounts(self) -> None:
        """Keep the mounts below the directory over restarts. After a disk failure, the next call
        retries.
        """
        kept = self.local.places.dump()
        if kept != self._mounts:
            with contextlib.suppress(HostUnavailable):
                await self.steps.run(self.state.notes.set, "mounts", kept)
                self._mounts = kept

    def recover(self) -> None:
        """Clean up a pulled directory after a crash: delete our leftovers, keep others as conflict
        copies.

        Blocking: run in a thread.
        """
        for parent, paths in itertools.groupby(
            self.local.leftovers(), lambda path: replace.split(path)[0]
        ):
            with contextlib.closing(self.state.reader()) as reader:
                known = {row.target[:3]: row.crc for row in reader.rows(parent)}
            kept = 0
            for path in paths:
                kept += self._recover(path, known, kept)

    def _recover(self, path: str, known: Mapping[Tag, int | None], kept: int) -> bool:
        """Whether the leftover was kept under a conflict name.

        A leftover that resists cleanup stays, because hidden names are never published and block
        nothing.
        """
        try:
            aside = self.local.recover(path, known, kept)
        except FileNotFoundError:
            return False
        except OSError as error:
            text = "%s looks like left by a crash, and stays: %s"
            log.warning("leftover.stays", text, path, error.strerror, path=path, error=error)
            return False
        if aside is not None:
            log.warning(
                "conflict.kept",
                "%s was left by a crash and is not ours: kept as %s",
                path,
                aside,
                path=path,
            )
        return aside is not None


@contextlib.asynccontextmanager
async def open_session(
    role: str,
    settings: Settings,
    *,
    say: Callable[[str], None] | None = None,
    steps: Steps | None = None,
) -> AsyncIterator[Session]:
    """Open state and directory, create the clients, compose all parts, and close them at the end.

    With `say` the session is a dry run, which changes neither side nor the state. The callback gets
    one line per action.

    Raises ConfigurationError, BusyError, HostUnavailable and Unavailable, and CalledOff if `steps`
    are called off.
    """
    steps = steps or Steps()
    async with contextlib.AsyncExitStack() as stack:
        opened = contextlib.ExitStack()
        stack.push_async_callback(_close, steps, opened)
        sync, crt = await steps.run(_open, role, settings, say, steps, opened)
        stack.push_async_callback(crt.close)
        if role == "push" and say is None:
            sync.remote.conditions = await _conditions(crt, sync)
            # A task, because no start waits for the cleanup.
            sweep = asyncio.create_task(multipart.abort_leftovers(sync.remote))
            stack.push_async_callback(_let_end, sweep)
        yield sync


def _open(
    role: str,
    settings: Settings,
    say: Callable[[str], None] | None,
    steps: Steps,
    opened: contextlib.ExitStack,
) -> tuple[Session, Transport]:
    """The blocking part of a start: disk, database and configuration. `opened` collects the
    cleanup.
    """
    assert settings.directory is not None
    directory = settings.directory.absolute()
    pair = state.Pair(role, str(directory), settings.bucket, settings.prefix)
    place = (
        settings.state_dir
        if say is None
        else Path(opened.enter_context(tempfile.TemporaryDirectory()))
    )
    if say is not None:
        from ..state import inspect  # here, because only a dry run needs the module

        inspect.copy(settings.state_dir, place)
    at = state_directory.opened(place)
    opened.callback(os.close, at)
    memory = state.State(place, pair, at)
    opened.callback(memory.close)
    if memory.rebuilt not in ("", "new"):
        log.warning(
            "state.rebuilt",
            "the state is rebuilt (%s); nothing is deleted because of that",
            memory.rebuilt,
        )
    chosen = Filter(settings.patterns)
    if say is None:
        _make_directory(role, directory, memory)
    local = _directory(role, directory, settings, memory, chosen)
    opened.callback(local.close)
    _require_state_outside(local.root, settings.state_dir, chosen)
    _recall_mounts(local, memory)
    _require_same_root(local, memory)
    aws = Aws(region=settings.region, profile=settings.profile, endpoint_url=settings.endpoint_url)
    opened.callback(aws.close)
    aws.require_credentials()
    crt = Transport(
        aws,
        settings.bucket,
        transfers=settings.transfers,
        owner=settings.expected_bucket_owner or "",
    )
    remote = _bucket(role, crt, aws, settings, memory)
    engine = _engine(
        _direction(role, local, remote, say),
        memory,
        settings,
        chosen,
        steps.loop,
    )
    sync = Session(role, settings, pair, directory, aws, memory, local, remote, engine, steps)
    sync.verified = memory.understood("verified", float, 0.0)
    return sync, crt


async def _close(steps: Steps, opened: contextlib.ExitStack) -> None:
    """Close everything, unless a step is abandoned: no descriptor may close while a thread uses
    it.
    """
    if not steps.abandoned:
        with contextlib.suppress(CalledOff):
            await steps.finish(opened.close)


def _directory(
    role: str, directory: Path, settings: Settings, memory: state.State, chosen: Filter
) -> LocalTree:
    known = functools.partial(_familiar, role, memory)
    is_deputy = role == "push" and not settings.any_owner and rights.reads_everything()
    return LocalTree(
        directory,
        nonce=_nonce(memory),
        ignored=chosen.prunes,
        prefix=settings.prefix,
        known=known,
        owners=SameOwner if is_deputy else None,
    )


def _recall_mounts(local: LocalTree, memory: state.State) -> None:
    memory.understood("mounts", local.places.load, None)
    local.places.look(accept=_is_meant(memory))
    local.places.consume_change()
    memory.set_meta("mounts", local.places.dump())


def _bucket(role: str, crt: Transport, aws: Aws, settings: Settings, memory: state.State) -> S3Tree:
    return S3Tree(
        crt,
        functools.partial(aws.client, "s3"),
        bucket=settings.bucket,
        prefix=settings.prefix,
        nonce=_nonce(memory),
        sends_checksum=settings.checksum != "none",
        uploads=memory,
        denied=_denied(settings) if role == "pull" else 0,
    )


def _denied(settings: Settings) -> int:
    """Mode bits that no pulled file may get: the umask, and world-write unless configured.

    Writers of the bucket control file contents, but must not grant write access on this host.
    """
    return rights.umask() | (0 if settings.world_writable else stat.S_IWOTH)


async def _let_end(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task], timeout=ABORT_TIMEOUT_S)
    task.cancel()


def _direction(
    role: str, local: Tree, remote: Tree, say: Callable[[str], None] | None
) -> Direction:
    source, target = (local, remote) if role == "push" else (remote, local)
    target = target if say is None else DryRunTree(target, say)
    return Direction.push(source, target) if role == "push" else Direction.pull(source, target)


def _engine(
    direction: Direction,
    memory: state.State,
    settings: Settings,
    chosen: Filter,
    loop: asyncio.AbstractEventLoop,
) -> Engine:
    return Engine(
        direction,
        memory,
        WorkQueue(time.monotonic, min_interval=settings.min_interval),
        policy=Policy(
            delete=settings.delete, conflict=settings.conflict, max_delete=settings.max_delete
        ),
        # Files that wait for the disk must not occupy transfer slots of the network.
        transfers=settings.transfers + (batch.ROOM if isinstance(direction.source, S3Tree) else 0),
        path_filter=chosen,
        loop=loop,
    )


def _make_directory(role: str, directory: Path, memory: state.State) -> None:
    """Create the directory of a pull, on the first run only, because an unmounted disk is no empty
    mirror.

    The new directory's identity is recorded at once, if the file system provides one. In an exposed
    place, only a known directory needs no `resume`.
    """
    if role == "pull" and memory.get_meta("root") is None:
        with contextlib.closing(Root(directory, make=True)) as root:
            made = identity.of(root.fd) if root.newly_made else identity.Identity()
            if made.is_proven_by(made):
                memory.set_meta("root", json.dumps(made.encode()))


def _require_state_outside(root: Root, state_dir: Path, chosen: Filter) -> None:
    """Refuse a state inside the synced directory, because each sync would change the state without
    end.
    """
    try:
        inside = state_dir.resolve().relative_to(mountinfo.path_of(root.fd))
    except ValueError:
        return
    if not chosen.excludes(str(inside / "state.sqlite")):
        raise ConfigurationError(
            f"the state directory {state_dir} is inside of {root.path}, which is to be synced",
            hint="choose another one with --state-dir, or exclude it",
        )


def _first(memory: state.State) -> str | None:
    """A path that the source should still have, or None."""
    with contextlib.closing(memory.reader()) as reader:
        return next(
            (row.path for row in itertools.islice(reader.rows(), 1) if not row.source_absent), None
        )


def _familiar(
    role: str, memory: state.State, under: str, beside: Collection[str]
) -> Generator[tuple[str, Tag], None, None]:
    """Files that the directory should contain, with their tags; see `mount_guard.Known`."""
    with contextlib.closing(memory.reader()) as reader:
        for row in sample.rows(reader, under, beside):
            yield row.path, row.source if role == "push" else row.target


def _require_same_root(local: LocalTree, memory: state.State) -> None:
    """Refuse a replaced root directory until an operator confirms the change.

    A different directory without any known file counts as an unmounted disk. In an exposed
    place, other users could replace the directory. A different directory is then refused whatever
    its contents, and so is an unknown directory of root or our user.
    """
    kept, now, note = memory.get_meta("root"), local.places.root(), memory.get_meta("resume")
    before = identity.parse(kept) if kept is not None else now
    if (
        note is None
        and kept is None
        and local.root.exposed is not None
        and os.fstat(local.root.fd).st_uid in trusted()
    ):
        text = f"{local.root.path} belongs to root or to this user, and others may change {local.root.exposed}"
        raise HostUnavailable(
            text, hint="look whether it is the one you mean; then syncloud resume INSTANCE says so"
        )
    if note is None and local.root.exposed is not None and before.is_refuted_by(now):
        text = f"{local.root.path} is another directory than it was, and others may change {local.root.exposed}"
        raise HostUnavailable(
            text, hint="put it back; if it is meant, syncloud resume INSTANCE says so"
        )
    if kept is not None and not _is_meant(memory) and (reason := local.places.doubt_root(before)):
        hint = "mount the disk; if the files are gone for good, syncloud resume INSTANCE --allow-deletes says so"
        raise HostUnavailable(f"{local.root.path} {reason}", hint=hint)
    memory.set_meta("root", json.dumps(now.encode()))


def _is_meant(memory: state.State) -> bool:
    """Whether the operator has confirmed the present tree by `syncloud resume --allow-deletes`. A
    later `Session.resume` applies the note.
    """
    return memory.get_meta("resume") == "allow-deletes"


def _nonce(memory: state.State) -> str:
    nonce = memory.get_meta("nonce")
    if nonce is None:
        nonce = names.new_nonce()
        memory.set_meta("nonce", nonce)
        memory.sync()  # durable, so that our marks stay ours after a power cut
    return nonce


async def _conditions(crt: Transport, sync: Session) -> StoreCapabilities:
    """The conditional requests that the store obeys.

    AWS obeys all conditions. Any other store is probed once, and again if deletions are now wanted
    but were refused to the first probe.
    """
    bucket, steps = sync.settings.bucket, sync.steps
    host = sync.aws.s3_address(bucket).host
    if host.partition(":")[0].endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return StoreCapabilities()
    name = f"conditions {host} {bucket}"
    kept = await steps.run(sync.state.notes.get, name)
    known = StoreCapabilities(**json.loads(kept)) if kept is not None else None
    if known is None or (known.untried and sync.settings.delete):
        known = await steps.wait_for(probe(crt, bucket, sync.settings.prefix))
        await steps.run(sync.state.notes.set, name, json.dumps(asdict(known)))
    return known
