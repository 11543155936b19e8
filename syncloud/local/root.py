"""The directory that is synced: found once, and from then on a descriptor, below which everything is done.

Its path is only asked whether it still leads there. Where others can exchange what is on the way (`exposed`), the identity of
what is found decides whether it is the directory that was synced before (`compose`), not its name.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..errors import ConfigurationError, HostUnavailable
from . import syscalls
from .way import HINT, Untrusted, Way


class Root:
    """The directory `path`, open as `fd`; with `make` it is made where it is missing. `exposed` is that of its `Way`;
    `newly_made`, whether `fd` is surely the directory that was made, and not one that was given its name at once.

    Raises HostUnavailable where it is not there, or a link of others is on the way; ConfigurationError where it is no
    directory.
    """

    def __init__(self, path: Path, *, make: bool = False) -> None:
        self.path = path
        try:
            with Way(path, make=0o775 if make else None) as way:
                self.exposed = way.exposed
                self.fd = way.directory()
            self.newly_made = way.since is not None and self._is_born(way.since)
        except Untrusted as error:
            raise HostUnavailable(f"{path}: {error.filename} is {error.strerror}", hint=HINT, code="ELOOP") from error
        except NotADirectoryError as error:
            raise ConfigurationError(f"{path} is not a directory", hint="name a directory") from error
        except FileNotFoundError as error:
            raise HostUnavailable(f"{path} is not there", hint="make it, or mount what it is on") from error
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "")
            raise HostUnavailable(f"{path} cannot be opened: {error.strerror}", code=code) from error

    def _is_born(self, since: int) -> bool:
        """Others may have exchanged what was made before it was opened, for anything of their folder. But they can give no
        directory of ours an owner or a time of birth, so an older one, with or without files, is not taken.
        """
        try:
            with os.scandir(self.fd) as files:
                is_empty = next(files, None) is None
            return is_empty and os.fstat(self.fd).st_uid == os.geteuid() and syscalls.birth(self.fd) >= since
        except OSError:  # a kernel that does not tell
            return False

    def missing(self) -> str | None:
        """Why the path does not lead to the directory that was opened any more (unmounted, renamed, replaced), or None.

        While it is open, no other directory gets its numbers.
        """
        ours = os.fstat(self.fd)
        try:
            now = os.stat(self.path)
        except OSError as error:
            return f"{self.path} cannot be seen: {error.strerror}"
        if (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino):
            return f"{self.path} is another directory now"
        return None

    def close(self) -> None:
        os.close(self.fd)
