"""The composition root: settings become state, trees and engine, and are closed again.

push  source LocalTree  target S3Tree     hints WatchSource
pull  source S3Tree     target LocalTree  hints QueueSource
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from . import batch, commit, log, multipart, names, state
from .aws import Aws
from .config import Settings
from .crt import Crt
from .engine import Engine
from .errors import ConfigurationError, HostUnavailable
from .filters import Filter
from .hints import Coalescer
from .local import LocalTree
from .model import Hint, Policy
from .objects import Conditions
from .probe import probe
from .rehearsal import Rehearsal
from .s3 import S3Tree
from .steps import CalledOff, Steps
from .tree import Tree

PATIENCE = 5.0
"""Seconds that an end waits for the aborting of old uploads."""
_SAMPLE = 100
"""Base paths that are looked for where the root is another directory than it was."""


@dataclass(slots=True)
class Sync:
    """One composed sync: what a daemon and a single pass both need."""

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
    """When both sides were listed last, over restarts; seconds since the epoch."""
    _mounts: str = ""

    def first_look(self) -> Hint:
        """The listing that a start needs: the disk; the bucket where it is the source, or where the memory is not enough."""
        return Hint("", subtree=True, both=self.role == "pull" or self.verify_due())

    async def reach(self) -> None:
        """Prove that the bucket is there and answers us. A listing proves it; a pass without one asks for what it must have."""
        if not self.first_look().both:
            known = await self.steps.run(functools.partial(_known, self.state, "", most=1))
            await self.remote.reach(next(iter(known), None))

    def verify_due(self) -> bool:
        """Whether both sides have to be listed: the state is new, or the verify-interval is over."""
        return not 0 <= time.time() - self.verified < self.settings.verify_interval

    async def note_verified(self) -> None:
        """Remember the last listing of both sides over restarts; where the disk refuses, the next call does."""
        last = self.engine.counters.last_verify
        if last > self.verified:
            with contextlib.suppress(HostUnavailable):
                await self.steps.finish(self.state.notes.set, "verified", str(last))
                self.verified = last

    def missing_or_resumed(self) -> tuple[str | None, str | None]:
        """Why the directory is not there, and what `syncloud resume` has left. Blocking: for a thread."""
        missing, note = self.local.missing(), None
        if not missing:
            with contextlib.suppress(HostUnavailable):  # the next look finds it
                note = self.state.notes.take("resume")
        return missing, note

    def resume(self, note: str) -> None:
        """Follow what `syncloud resume` has left."""
        log.warning("service.resumed", "resumed by hand (%s)", note)
        self.engine.resume(allow_deletes=note == "allow-deletes")

    async def note_mounts(self) -> None:
        """Remember over restarts what is mounted below the directory; where the disk refuses, the next call does."""
        kept = self.local.places.kept()
        if kept != self._mounts:
            with contextlib.suppress(HostUnavailable):
                await self.steps.run(self.state.notes.set, "mounts", kept)
                self._mounts = kept

    def recover(self) -> None:
        """Clean up what a crash has left in a pulled directory: ours goes, anything else is kept under a conflict name.

        Blocking: for a thread.
        """
        for path in self._leftovers():
            parent, _ = commit.split(path)
            with contextlib.closing(self.state.reader()) as reader:
                known = frozenset(row.target[:3] for row in reader.rows(parent))
            aside = self.local.recover(path, known)
            if aside is not None:
                log.warning("conflict.kept", "%s was left by a crash and is not ours: kept as %s", path, aside, path=path)

    def _leftovers(self) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError):
            yield from self.local.leftovers()


@contextlib.asynccontextmanager
async def composed(
    role: str, settings: Settings, *, say: Callable[[str], None] | None = None, steps: Steps | None = None
) -> AsyncIterator[Sync]:
    """Open state and directory, make the clients, put the parts together; close all of it again.

    With `say` nothing is changed, on neither side nor in the state: the lines it gets tell what would be done.
    Raises ConfigurationError, BusyError, HostUnavailable, Unavailable, and CalledOff where `steps` are called off.
    """
    steps = steps or Steps()
    async with contextlib.AsyncExitStack() as stack:
        opened = contextlib.ExitStack()
        stack.push_async_callback(_close, steps, opened)
        sync, crt = await steps.run(_open, role, settings, say, steps, opened)
        stack.push_async_callback(crt.close)
        if role == "push" and say is None:
            sync.remote.conditions = await _conditions(crt, sync)
            sweep = asyncio.create_task(multipart.abort_leftovers(sync.remote))  # no start waits for that
            stack.push_async_callback(_let_end, sweep)
        yield sync


def _open(
    role: str, settings: Settings, say: Callable[[str], None] | None, steps: Steps, opened: contextlib.ExitStack
) -> tuple[Sync, Crt]:
    """All that a start asks of the disk, the database and the configuration. Blocking. `opened` closes what was opened."""
    assert settings.directory is not None
    directory = settings.directory.absolute()
    pair = state.Pair(role, str(directory), settings.bucket, settings.prefix)
    place = settings.state_dir if say is None else Path(opened.enter_context(tempfile.TemporaryDirectory()))
    if say is not None:
        state.copy(settings.state_dir, place)
    memory = state.State(place, pair)
    opened.callback(memory.close)
    if memory.rebuilt not in ("", "new"):
        log.warning("state.rebuilt", "the state is rebuilt (%s); nothing is deleted because of that", memory.rebuilt)
    chosen = Filter(settings.patterns)
    _require_directory(role, directory, memory, make=say is None)
    _require_state_outside(directory, settings.state_dir, chosen)
    local = _directory(directory, settings, memory, chosen)
    opened.callback(local.close)
    _require_same_root(local, memory)
    _recall_mounts(local, memory)
    aws = Aws(region=settings.region, profile=settings.profile, endpoint_url=settings.endpoint_url)
    opened.callback(aws.close)
    aws.require_credentials()
    crt = Crt(aws, settings.bucket, transfers=settings.transfers)
    remote = _bucket(crt, aws, settings, memory)
    source: Tree = local if role == "push" else remote
    target: Tree = remote if role == "push" else local
    engine = _engine(source, target if say is None else Rehearsal(target, say), memory, settings, chosen, steps.loop)
    sync = Sync(role, settings, pair, directory, aws, memory, local, remote, engine, steps)
    sync.verified = float(memory.get_meta("verified") or 0)
    return sync, crt


async def _close(steps: Steps, opened: contextlib.ExitStack) -> None:
    """Where a thread is left in a step, everything stays open until the process ends: no descriptor is closed under it."""
    if not steps.abandoned:
        with contextlib.suppress(CalledOff):
            await steps.finish(opened.close)


def _directory(directory: Path, settings: Settings, memory: state.State, chosen: Filter) -> LocalTree:
    known = functools.partial(_known, memory)
    return LocalTree(directory, nonce=_nonce(memory), ignored=chosen.prunes, prefix=settings.prefix, known=known)


def _recall_mounts(local: LocalTree, memory: state.State) -> None:
    local.places.recall(memory.get_meta("mounts") or "{}")
    local.places.look()
    local.places.take_news()
    memory.set_meta("mounts", local.places.kept())


def _bucket(crt: Crt, aws: Aws, settings: Settings, memory: state.State) -> S3Tree:
    return S3Tree(
        crt,
        functools.partial(aws.client, "s3"),
        bucket=settings.bucket,
        prefix=settings.prefix,
        nonce=_nonce(memory),
        with_checksum=settings.checksum != "none",
        uploads=memory,
    )


async def _let_end(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task], timeout=PATIENCE)
    task.cancel()


def _engine(
    source: Tree, target: Tree, memory: state.State, settings: Settings, chosen: Filter, loop: asyncio.AbstractEventLoop
) -> Engine:
    return Engine(
        source,
        target,
        memory,
        Coalescer(time.monotonic, min_interval=settings.min_interval),
        policy=Policy(delete=settings.delete, conflict=settings.conflict, max_delete=settings.max_delete),
        # What has come and waits for the disk keeps no other from the wire.
        transfers=settings.transfers + (batch.ROOM if isinstance(source, S3Tree) else 0),
        excluded=chosen.excludes,
        loop=loop,
    )


def _require_directory(role: str, directory: Path, memory: state.State, *, make: bool) -> None:
    """push needs its directory; pull makes it on the first run only: an unmounted disk is not an empty mirror."""
    if directory.exists():
        return
    if role == "pull" and make and memory.get_meta("root") is None:
        try:
            directory.mkdir(parents=True)
        except OSError as error:
            raise HostUnavailable(f"cannot make {directory}: {error.strerror}") from error
        return
    raise HostUnavailable(f"{directory} is not there", hint="make it, or mount what it is on")


def _require_state_outside(directory: Path, state_dir: Path, chosen: Filter) -> None:
    """A state that is synced itself would change with every file that is, without end."""
    try:
        inside = state_dir.resolve().relative_to(directory.resolve())
    except ValueError:
        return
    if not chosen.excludes(str(inside / "state.sqlite")):
        raise ConfigurationError(
            f"the state directory {state_dir} is inside of {directory}, which is to be synced",
            hint="choose another one with --state-dir, or exclude it",
        )


def _known(memory: state.State, under: str, *, most: int = _SAMPLE) -> list[str]:
    """Some paths below the folder `under` (or everything) that should be there."""
    with contextlib.closing(memory.reader()) as reader:
        return [row.path for row in itertools.islice(reader.rows(under), most) if not row.absent]


def _require_same_root(local: LocalTree, memory: state.State) -> None:
    """Another directory under the old name, with none of the files in it, is a disk that is not mounted."""
    known, now = memory.get_meta("root"), local.identity()
    if known not in (None, now) and memory.count() and not any((local.root / path).exists() for path in _known(memory, "")):
        raise HostUnavailable(
            f"{local.root} is not the directory it was, and holds none of its files",
            hint="mount the disk; if it is meant to start anew, move the state directory away",
        )
    memory.set_meta("root", now)


def _nonce(memory: state.State) -> str:
    nonce = memory.get_meta("nonce")
    if nonce is None:
        nonce = names.new_nonce()
        memory.set_meta("nonce", nonce)
        memory.sync()  # what is marked with it must be known as ours after a power cut, too
    return nonce


async def _conditions(crt: Crt, sync: Sync) -> Conditions:
    """AWS obeys all conditions; any other store is probed once."""
    bucket, steps = sync.settings.bucket, sync.steps
    host = sync.aws.s3_address(bucket).host
    if host.partition(":")[0].endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return Conditions()
    name = f"conditions {host} {bucket}"
    known = await steps.run(sync.state.notes.get, name)
    if known is None:
        known = json.dumps(asdict(await steps.wait_for(probe(crt, bucket, sync.settings.prefix))))
        await steps.run(sync.state.notes.set, name, known)
    return Conditions(**json.loads(known))
