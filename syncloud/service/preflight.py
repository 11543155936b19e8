"""The checks of a start: the right directory, a state outside of it, and the store's conditions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from ..core.filters import Filter
from ..errors import ConfigurationError, HostUnavailable
from ..local import identity, mountinfo
from ..local.identity import Identity
from ..local.root import Root
from ..local.tree import LocalTree
from ..local.way import trusted
from ..s3.capabilities import probe
from ..s3.objects import StoreCapabilities
from ..s3.transport import Transport
from ..state import notes
from ..state.notes import Resume
from ..state.store import State
from .session import Session

_AWS = (".amazonaws.com", ".amazonaws.com.cn")
_FIRST_HINT = (
    "check that the directory is the right one, then confirm with syncloud resume INSTANCE"
)
_OTHER_HINT = "put the former directory back, or confirm the new one with syncloud resume INSTANCE"
_EMPTY_HINT = (
    "mount the disk; if the files are gone for good, confirm with "
    "syncloud resume INSTANCE --allow-deletes"
)


# The directory


def make_directory(role: str, directory: Path, memory: State) -> None:
    """Create the directory of a pull, on the first run only, because an unmounted disk is no empty
    mirror.

    The new directory's identity is recorded at once, if the file system provides one. In an exposed
    place, only a known directory needs no `resume`.
    """
    if role == "pull" and memory.get_note(notes.ROOT) is None:
        with contextlib.closing(Root(directory, make=True)) as root:
            made = identity.of(root.fd) if root.newly_made else Identity()
            if made.is_proven_by(made):
                memory.set_note(notes.ROOT, made)


def require_state_outside(root: Root, state_dir: Path, chosen: Filter) -> None:
    """Refuse a state inside the synced directory, because each sync would change the state without
    end.
    """
    try:
        inside = state_dir.resolve().relative_to(mountinfo.path_of(root.fd))
    except ValueError:
        return
    if not chosen.excludes(str(inside / "state.sqlite")):
        text = f"the state directory {state_dir} is inside of {root.path}, which is to be synced"
        hint = "choose another one with --state-dir, or exclude the state directory"
        raise ConfigurationError(text, hint=hint)


def recall_mounts(local: LocalTree, memory: State) -> None:
    """Compare the mounts below the directory with the recorded ones, and record the present."""
    local.places.load(memory.get_note(notes.MOUNTS) or {})
    local.places.look(accept=_is_meant(memory))
    local.places.consume_change()
    memory.set_note(notes.MOUNTS, local.places.dump())


def require_same_root(local: LocalTree, memory: State) -> None:
    """Refuse a replaced root directory until an operator confirms the change.

    A different directory without any known file counts as an unmounted disk.
    """
    kept, now = memory.get_note(notes.ROOT), local.places.root()
    before = Identity(*kept) if kept is not None else None
    if local.root.exposed is not None and memory.get_note(notes.RESUME) is None:
        _require_known(local.root, before, now)
    if before is not None and not _is_meant(memory) and (reason := local.places.doubt_root(before)):
        raise HostUnavailable(f"{local.root.path} {reason}", hint=_EMPTY_HINT)
    memory.set_note(notes.ROOT, now)


def _require_known(root: Root, before: Identity | None, now: Identity) -> None:
    """Refuse an unproven directory in an exposed place, where other users could replace the
    directory.

    A different directory is refused whatever its contents, and so is an unknown directory of root
    or our user.
    """
    others = f"others may change {root.exposed}"
    if before is None and os.fstat(root.fd).st_uid in trusted():
        text = f"{root.path} belongs to root or to this user, and {others}"
        raise HostUnavailable(text, hint=_FIRST_HINT)
    if before is not None and before.is_refuted_by(now):
        text = f"{root.path} is another directory than it was, and {others}"
        raise HostUnavailable(text, hint=_OTHER_HINT)


def _is_meant(memory: State) -> bool:
    """Whether the operator has confirmed the present tree by `syncloud resume --allow-deletes`. A
    later `Session.resume` applies the note.
    """
    return memory.get_note(notes.RESUME) is Resume.ALLOW_DELETES


# The store


async def capabilities(transport: Transport, sync: Session) -> StoreCapabilities:
    """The conditional requests that the store obeys.

    AWS obeys all conditions. Any other store is probed once, and again if deletions are now wanted
    but were refused to the first probe.
    """
    bucket, host = sync.settings.bucket, sync.aws.s3_address(sync.settings.bucket).host
    if host.partition(":")[0].endswith(_AWS):
        return StoreCapabilities()
    note = notes.conditions(host, bucket)
    kept = await sync.steps.run(sync.state.notes.get, note)
    known = _known(kept)
    if known is None or (known.untried and sync.settings.delete):
        known = await sync.steps.wait_for(probe(transport, bucket, sync.settings.prefix))
        await sync.steps.run(sync.state.notes.set, note, asdict(known))
    return known


def _known(kept: Mapping[str, bool] | None) -> StoreCapabilities | None:
    """The recorded capabilities; None without any, or with one that this version does not know."""
    names = {one.name for one in fields(StoreCapabilities)}
    return StoreCapabilities(**kept) if kept is not None and kept.keys() <= names else None
