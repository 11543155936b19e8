"""The composition root: builds state, trees and engine from settings, and closes them again.

push  source LocalTree  target S3Tree     hints WatchSource
pull  source S3Tree     target LocalTree  hints QueueSource
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Collection, Generator
from pathlib import Path

from .. import log
from ..aws.session import Aws
from ..config.settings import Settings
from ..core import names, sample
from ..core.filters import Filter
from ..core.interfaces import Direction, Tree
from ..core.model import Policy, Tag
from ..core.work_queue import WorkQueue
from ..engine.loop import Engine
from ..local import batch, rights
from ..local.owners import SameOwner
from ..local.tree import LocalTree
from ..s3 import multipart
from ..s3.transport import Transport
from ..s3.tree import S3Tree
from ..state import notes, store
from . import preflight, state_directory
from .session import Session
from .steps import CalledOff, Steps

ABORT_TIMEOUT_S = 5.0
"""Seconds that a stop waits for the cleanup of old uploads."""

Show = Callable[[str], None]


@contextlib.asynccontextmanager
async def open_session(
    role: str, settings: Settings, *, show: Show | None = None, steps: Steps | None = None
) -> AsyncIterator[Session]:
    """Open state and directory, create the clients, compose all parts, and close them at the end.

    With `show` the session is a dry run, which changes neither side nor the state. The callback
    gets one line per action.

    Raises ConfigurationError, BusyError, HostUnavailable and Unavailable, and CalledOff if `steps`
    are called off.
    """
    steps = steps or Steps()
    async with contextlib.AsyncExitStack() as stack:
        parts = _Parts(role, settings, show, steps)
        stack.push_async_callback(parts.close)
        sync, transport = await steps.run(parts.open)
        stack.push_async_callback(transport.close)
        if role == "push" and show is None:
            sync.remote.conditions = await preflight.capabilities(transport, sync)
            # A task, because no start waits for the cleanup.
            sweep = asyncio.create_task(multipart.abort_leftovers(sync.remote))
            stack.push_async_callback(_let_end, sweep)
        yield sync


async def _let_end(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task], timeout=ABORT_TIMEOUT_S)
    task.cancel()


class _Parts:
    """The parts of a session, made in the order of their needs and closed in the reverse order."""

    def __init__(self, role: str, settings: Settings, show: Show | None, steps: Steps) -> None:
        assert settings.directory is not None
        self._role = role
        self._settings = settings
        self._show = show
        self._steps = steps
        self._directory = settings.directory.absolute()
        self._opened = contextlib.ExitStack()

    @functools.cached_property
    def _filter(self) -> Filter:
        return Filter(self._settings.patterns)

    def open(self) -> tuple[Session, Transport]:
        """The blocking part of a start: disk, database and configuration."""
        settings = self._settings
        place = (str(self._directory), settings.bucket, settings.prefix)
        pair = store.Pair(self._role, *place)
        memory = self._state(pair)
        local = self._local(memory)
        aws = self._aws()
        transport = self._transport(aws)
        remote = self._remote(transport, aws, memory)
        engine = self._engine(local, remote, memory)
        sync = Session(pair, settings, aws, memory, local, remote, engine, self._steps)
        sync.verified = memory.get_note(notes.VERIFIED) or 0.0
        return sync, transport

    async def close(self) -> None:
        """Close everything, unless a step is abandoned: no descriptor may close while a thread uses
        it.
        """
        if not self._steps.abandoned:
            with contextlib.suppress(CalledOff):
                await self._steps.finish(self._opened.close)

    # State

    def _state(self, pair: store.Pair) -> store.State:
        place = self._settings.state_dir if self._show is None else self._copied_state()
        at = state_directory.opened(place)
        self._opened.callback(os.close, at)
        memory = store.State(place, pair, at)
        self._opened.callback(memory.close)
        if memory.rebuilt not in ("", "new"):
            text = "the state is rebuilt (%s); nothing is deleted because of that"
            log.warning("state.rebuilt", text, memory.rebuilt)
        return memory

    def _copied_state(self) -> Path:
        """A copy for a dry run, deleted at the end."""
        import tempfile  # here, because only a dry run needs the modules

        from ..state import inspect

        place = Path(self._opened.enter_context(tempfile.TemporaryDirectory()))
        inspect.copy(self._settings.state_dir, place)
        return place

    # The directory

    def _local(self, memory: store.State) -> LocalTree:
        if self._show is None:
            preflight.make_directory(self._role, self._directory, memory)
        local = self._local_tree(memory)
        self._opened.callback(local.close)
        preflight.require_state_outside(local.root, self._settings.state_dir, self._filter)
        preflight.recall_mounts(local, memory)
        preflight.require_same_root(local, memory)
        return local

    def _local_tree(self, memory: store.State) -> LocalTree:
        is_push = self._role == "push"
        is_deputy = is_push and not self._settings.any_owner and rights.reads_everything()
        return LocalTree(
            self._directory,
            nonce=_nonce(memory),
            ignored=self._filter.prunes,
            prefix=self._settings.prefix,
            known=functools.partial(_familiar, self._role, memory),
            owners=SameOwner if is_deputy else None,
        )

    # The bucket

    def _aws(self) -> Aws:
        settings = self._settings
        region, profile, endpoint = settings.region, settings.profile, settings.endpoint_url
        aws = Aws(region=region, profile=profile, endpoint_url=endpoint)
        self._opened.callback(aws.close)
        aws.require_credentials()
        return aws

    def _transport(self, aws: Aws) -> Transport:
        settings = self._settings
        owner = settings.expected_bucket_owner or ""
        return Transport(aws, settings.bucket, transfers=settings.transfers, owner=owner)

    def _remote(self, transport: Transport, aws: Aws, memory: store.State) -> S3Tree:
        settings = self._settings
        return S3Tree(
            transport,
            functools.partial(aws.client, "s3"),
            bucket=settings.bucket,
            prefix=settings.prefix,
            nonce=_nonce(memory),
            sends_checksum=settings.checksum != "none",
            uploads=memory,
            denied=_denied(settings) if self._role == "pull" else 0,
        )

    # The engine

    def _engine(self, local: LocalTree, remote: S3Tree, memory: store.State) -> Engine:
        settings = self._settings
        # Files that wait for the disk must not occupy transfer slots of the network.
        more = batch.ROOM if self._role == "pull" else 0
        return Engine(
            self._direction(local, remote),
            memory,
            WorkQueue(time.monotonic, min_interval=settings.min_interval),
            policy=_policy(settings),
            transfers=settings.transfers + more,
            path_filter=self._filter,
            loop=self._steps.loop,
        )

    def _direction(self, local: LocalTree, remote: S3Tree) -> Direction:
        if self._role == "push":
            return Direction.push(local, self._target(remote))
        return Direction.pull(remote, self._target(local))

    def _target(self, target: Tree) -> Tree:
        if self._show is None:
            return target
        from ..engine.dry_run import DryRunTree  # here, because only a dry run needs the module

        return DryRunTree(target, self._show)


def _policy(settings: Settings) -> Policy:
    delete, most = settings.delete, settings.max_delete
    return Policy(delete=delete, conflict=settings.conflict, max_delete=most)


def _denied(settings: Settings) -> int:
    """Mode bits that no pulled file may get: the umask, and world-write unless configured.

    Writers of the bucket control file contents, but must not grant write access on this host.
    """
    return rights.umask() | (0 if settings.world_writable else stat.S_IWOTH)


def _familiar(
    role: str, memory: store.State, under: str, beside: Collection[str]
) -> Generator[tuple[str, Tag], None, None]:
    """Files that the directory should contain, with their tags; see `mount_guard.Known`."""
    with contextlib.closing(memory.reader()) as reader:
        for row in sample.rows(reader, under, beside):
            yield row.path, row.source if role == "push" else row.target


def _nonce(memory: store.State) -> str:
    nonce = memory.get_note(notes.NONCE)
    if nonce is None:
        nonce = names.new_nonce()
        memory.set_note(notes.NONCE, nonce)
        memory.sync()  # durable, so that our marks stay ours after a power cut
    return nonce
