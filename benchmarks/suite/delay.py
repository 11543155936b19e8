"""A relay that is far away: requests arrive later.

Start it by `python -m benchmarks.suite.delay PORT UPSTREAM_PORT MILLISECONDS`. Only the way to the
server is held up, so each request costs that time once, whatever its answer's size. Nothing is
throttled.
"""

from __future__ import annotations

import argparse
import asyncio


class _Side(asyncio.Protocol):
    """One end of a connection; what comes goes to `other` after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        for data in self._early:
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.other.send, data)
        else:
            self.other.send(data)

    def send(self, data: bytes) -> None:
        if self.transport is None:
            self._early.append(data)
        else:
            self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Client(_Side):
    """The end that a client has connected to."""

    def __init__(self, upstream: int, delay: float) -> None:
        super().__init__(delay)
        self._upstream = upstream
        self.other = _Side(0.0)
        self.other.other = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connect = asyncio.get_running_loop().create_connection(
            self._partner, "127.0.0.1", self._upstream
        )
        self._connecting = asyncio.ensure_future(connect)

    def _partner(self) -> _Side:
        assert self.other is not None
        return self.other


async def _serve(port: int, upstream: int, milliseconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Client(upstream, milliseconds / 1000), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite.delay", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("upstream", type=int)
    parser.add_argument("milliseconds", type=float)
    asyncio.run(_serve(**vars(parser.parse_args())))
