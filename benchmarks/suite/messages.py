"""As much of SQS as syncloud uses: long polls, batches, JSON.

The queue is in this process, so that the time is known at which a message left.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType


class Queue:
    """One queue. A message that was received stays invisible; one that was deleted is gone."""

    def __init__(self) -> None:
        queue = self

        class Handler(_Handler):
            owner = queue

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.endpoint}/000000000000/bench"
        self.counts: Counter[str] = Counter()
        self.left_at: dict[str, float] = {}
        """By a message's body, the monotonic time at which its answer was on its way."""
        self._waiting: deque[str] = deque()
        self._held: dict[str, str] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def send(self, body: str) -> None:
        with self._changed:
            self._waiting.append(body)
            self._changed.notify()

    @property
    def empty(self) -> bool:
        """Nothing waits, and nothing that was received is left."""
        return not (self._waiting or self._held)

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        self.counts[operation] += 1
        if operation == "ReceiveMessage":
            return self._receive(
                asked.get("WaitTimeSeconds", 0), asked.get("MaxNumberOfMessages", 1)
            )
        entries = asked.get("Entries", [])
        if operation == "DeleteMessageBatch":
            for entry in entries:
                self._held.pop(entry["ReceiptHandle"], None)
        return {"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []}

    def _receive(self, wait: float, most: int) -> dict[str, Any]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, wait)
            bodies = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        messages = [
            {"MessageId": uuid.uuid4().hex, "ReceiptHandle": uuid.uuid4().hex, "Body": body}
            for body in bodies
        ]
        self._held |= {message["ReceiptHandle"]: message["Body"] for message in messages}
        return {"Messages": messages} if messages else {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    owner: Queue

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told = self.owner.answer(self.headers["x-amz-target"].rpartition(".")[2], asked)
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-type", "application/x-amz-json-1.0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        now = time.monotonic()
        self.owner.left_at |= {message["Body"]: now for message in told.get("Messages", ())}
        self.wfile.flush()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing is logged."""
