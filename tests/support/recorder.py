"""A count of requests where they arrive.

A user would pay for this number, whatever number the client assumes.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from tests.support.proxy import Proxy, Request

if TYPE_CHECKING:
    from types import TracebackType


class Recorder:
    """A proxy before `upstream` that remembers every request."""

    def __init__(self, upstream: str) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._answers: list[tuple[Request, int]] = []
        self._proxy = Proxy(upstream, self)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._proxy.close()

    @property
    def endpoint(self) -> str:
        return self._proxy.endpoint

    def before(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def after(self, request: Request, status: int) -> None:
        with self._lock:
            self._answers.append((request, status))

    def requests(self) -> list[Request]:
        """Since the last `reset`, in the order of their arrival."""
        with self._lock:
            return list(self._requests)

    def answers(self) -> list[tuple[Request, int]]:
        """The requests that were answered since the last `reset`, with the answers' HTTP status."""
        with self._lock:
            return list(self._answers)

    def counts(self) -> Counter[tuple[str, str]]:
        """Requests by (service, operation), like ("s3", "PutObject"), since the last `reset`."""
        return Counter((request.service, request.operation) for request in self.requests())

    def reset(self) -> None:
        with self._lock:
            self._requests.clear()
            self._answers.clear()
