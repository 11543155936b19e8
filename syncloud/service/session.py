"""A session: the composed parts of one sync, and the notes that outlive them in the state."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import log
from ..aws.session import Aws
from ..config.settings import Settings
from ..core.model import Hint, Tag
from ..engine.loop import Engine
from ..errors import HostUnavailable
from ..local import replace
from ..local.tree import LocalTree
from ..s3.tree import S3Tree
from ..state import notes, store
from ..state.notes import DirectoryId, Resume
from .steps import Steps

_MISSING_HINT = "mount the disk again, or put the directory back; the daemon retries"
_BROKEN_HINT = "the daemon opens the state again, and rebuilds a damaged state"


@dataclass(slots=True)
class Session:
    """The composed parts of one sync, shared by a daemon and a single pass."""

    pair: store.Pair
    settings: Settings
    aws: Aws
    state: store.State
    local: LocalTree
    remote: S3Tree
    engine: Engine
    steps: Steps
    verified: float = field(default=0.0, init=False)
    """Time of the last listing of both sides, kept over restarts; seconds since the epoch."""
    _mounts: Mapping[str, DirectoryId] | None = field(default=None, init=False)

    @property
    def role(self) -> str:
        return self.pair.role

    # The first listing

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

    # Notes in the state

    async def note_verified(self) -> None:
        """Keep the time of the last full listing over restarts. After a disk failure, the next call
        retries.
        """
        last = self.engine.stats.last_verify
        if last > self.verified:
            with contextlib.suppress(HostUnavailable):
                await self.steps.finish(self.state.notes.set, notes.VERIFIED, last)
                self.verified = last

    async def note_mounts(self) -> None:
        """Keep the mounts below the directory over restarts. After a disk failure, the next call
        retries.
        """
        kept = self.local.places.dump()
        if kept != self._mounts:
            with contextlib.suppress(HostUnavailable):
                await self.steps.run(self.state.notes.set, notes.MOUNTS, kept)
                self._mounts = kept

    def trouble_or_note(self) -> tuple[HostUnavailable | None, Resume | None]:
        """A failure of the directory or the state, and the pending note of `syncloud resume`.
        Blocking.
        """
        if missing := self.local.missing():
            return HostUnavailable(missing, hint=_MISSING_HINT), None
        if broken := self.state.broken():
            return HostUnavailable(broken, hint=_BROKEN_HINT), None
        with contextlib.suppress(HostUnavailable):  # the next look reports the failure
            return None, self.state.notes.take(notes.RESUME)
        return None, None

    def resume(self, note: Resume) -> None:
        """Apply a note of `syncloud resume`."""
        log.warning("service.resumed", "resumed by hand (%s)", note)
        self.engine.resume(allow_deletes=note is Resume.ALLOW_DELETES)

    # Leftovers of a crash

    def recover(self) -> None:
        """Clean up a pulled directory after a crash: delete our leftovers, keep others as conflict
        copies.

        Blocking: run in a thread.
        """
        for parent, paths in itertools.groupby(self.local.leftovers(), _parent):
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
            text = "%s looks like a leftover of a crash, and stays: %s"
            log.warning("leftover.stays", text, path, error.strerror, path=path, error=error)
            return False
        if aside is not None:
            text = "%s was left by a crash and is not ours: kept as %s"
            log.warning("conflict.kept", text, path, aside, path=path)
        return aside is not None


def _parent(path: str) -> str:
    return replace.split(path)[0]


def _first(memory: store.State) -> str | None:
    """A path that the source should still have, or None."""
    with contextlib.closing(memory.reader()) as reader:
        row = next(reader.rows(), None)
    return row.path if row is not None and not row.source_absent else None
