"""What requests are signed with: botocore's credentials, for both stacks, renewed without a restart.

One thread asks the slow sources (the metadata service, a credential process), so that awscrt's event loop never waits for
them: it takes what is at hand. Credentials that renew themselves are botocore's affair; a file that somebody writes anew is
read again here.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from awscrt.auth import AwsCredentialsProvider

from .errors import CredentialsError

_FILES = ("shared-credentials-file", "config-file")
"""botocore's names for where credentials come from that know no end."""


class Process(subprocess.Popen[bytes]):
    """A credential process that has an end: botocore waits for it under a lock which every client needs."""

    PATIENCE = 60.0
    """Seconds; somebody may be asked for a code."""

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002
        """What it has written. Where it does not end it is killed, which botocore takes for a failure with these words."""
        try:
            return super().communicate(input, timeout or self.PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a disk or a debugger may hold it
                self.wait(5)
            for pipe in (self.stdout, self.stderr):  # what it has begun itself may have them still
                if pipe is not None:
                    pipe.close()
            return b"", f"the credential process gave no answer within {self.PATIENCE:.0f} s".encode()


class Credentials:
    """`find` looks for botocore's credentials, the same every time; `afresh` reads the files anew."""

    LOOK = 20.0
    """Seconds between two looks. botocore renews 15 minutes before the end, so most looks only read the clock."""
    RETRY = (1.0, 60.0)
    """Seconds after the first failure, doubling up to the second."""

    def __init__(self, find: Callable[[], Any], *, afresh: Callable[[], Any] = lambda: None) -> None:
        self._find = find
        self._afresh = afresh
        self._source: Any = None
        self._held: AwsCredentialsProvider | None = None
        self._problem = "not looked for yet"
        self._failures = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look once, which can take seconds on an unreachable metadata service, and keep looking in a thread. Once."""
        if self._thread is None:
            pause = self.refresh()
            self._thread = threading.Thread(target=self._keep, args=(pause,), name="credentials", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def check(self) -> None:
        """Raise CredentialsError if there is nothing that can sign a request now."""
        if self._problem:
            raise CredentialsError(self._problem)

    def provider(self) -> AwsCredentialsProvider:
        """For awscrt. It signs with expired credentials too: `check` says so before, the server after."""
        if self._held is None:
            raise CredentialsError(self._problem)
        return self._held

    def _keep(self, pause: float) -> None:
        while not self._stop.wait(pause):
            pause = self.refresh()

    def refresh(self) -> float:
        """One look. Returns the seconds until the next."""
        problem = self._look()
        self._failures = self._failures + 1 if problem else 0
        self._problem = problem if self._held is None or self._expired() else ""
        first, most = self.RETRY
        if problem:
            return min(most, first * 2.0 ** min(self._failures - 1, 10))
        return first if self._expired(within=self.LOOK) else self.LOOK  # their end is not to be found out by a refusal

    def _look(self) -> str:
        try:
            self._source = self._source or self._find()
            if self._source is None:
                return "no AWS credentials were found"
            if self._source.method in _FILES:
                self._read_again()
            frozen = self._source.get_frozen_credentials()
        except Exception as error:  # noqa: BLE001 - a credential process, the metadata service: anything can come
            return f"the AWS credentials {'have expired and ' if self._expired() else ''}cannot be renewed: {error}"
        # No expiration: awscrt would refuse to sign after it, and whether it is over is for `check` and the server to say.
        self._held = AwsCredentialsProvider.new_static(frozen.access_key, frozen.secret_key, frozen.token)
        return "the AWS credentials have expired" if self._expired() else ""

    def _read_again(self) -> None:
        """Somebody may have written the file anew. boto3's clients hold this very object, so it is changed in place."""
        found = self._afresh()
        if found is not None and found.method in _FILES:
            new = found.get_frozen_credentials()
            self._source.access_key, self._source.secret_key, self._source.token = new.access_key, new.secret_key, new.token

    def _expired(self, within: float = 0.0) -> bool:
        """Of a source that knows an end (botocore's RefreshableCredentials); static ones do not. `within` is in seconds."""
        ends = getattr(self._source, "refresh_needed", None)
        return bool(ends is not None and ends(refresh_in=within))
