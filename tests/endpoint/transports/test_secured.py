from __future__ import annotations

import asyncio
import os
import random
import socket

import pytest
from proxystore_endpoint.exceptions import PipeClosedError
from proxystore_endpoint.transports.secured import Bridge


class MemoryPipe:
    """One end of a pipe in memory; `gate` holds up who sends."""

    kind = "relay"
    max_message = 10_000

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue(4)
        self.closed = asyncio.Event()
        self.largest = 0
        self.other: MemoryPipe = self

    async def send(self, message: bytes | memoryview) -> None:
        if self.closed.is_set():
            raise PipeClosedError("closed")
        self.largest = max(self.largest, len(message))
        await self.other.inbox.put(bytes(message))

    async def receive(self) -> bytes:
        getting = asyncio.ensure_future(self.inbox.get())
        closing = asyncio.ensure_future(self.closed.wait())
        await asyncio.wait([getting, closing], return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if getting.done():
            return getting.result()
        getting.cancel()
        raise PipeClosedError("closed")

    async def close(self) -> None:
        self.closed.set()
        self.other.closed.set()


def pair() -> tuple[MemoryPipe, MemoryPipe]:
    one, two = MemoryPipe(), MemoryPipe()
    one.other, two.other = two, one
    return one, two


async def read(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    parts = []
    while count:
        parts.append(await loop.sock_recv(sock, count))
        assert parts[-1]
        count -= len(parts[-1])
    return b"".join(parts)


def test_bytes_go_through_both_ways_in_pieces_that_fit() -> None:
    async def run() -> None:
        pipes = pair()
        bridges = [Bridge(pipe) for pipe in pipes]
        tasks = [asyncio.create_task(bridge.run()) for bridge in bridges]
        loop, (one, two) = asyncio.get_running_loop(), (bridge.socket for bridge in bridges)
        data = os.urandom(3_000_000)

        async def write(sock: socket.socket) -> None:
            rest = memoryview(data)
            while rest:
                size = random.randrange(1, 100_000)
                await loop.sock_sendall(sock, rest[:size])
                rest = rest[size:]

        found = await asyncio.gather(
            read(one, len(data)), read(two, len(data)), write(one), write(two)
        )
        assert found[:2] == [data, data]
        assert max(pipe.largest for pipe in pipes) <= MemoryPipe.max_message
        one.close()
        await asyncio.gather(*tasks)
        assert await loop.sock_recv(two, 1) == b""
        two.close()

    asyncio.run(run())


def test_a_full_pipe_holds_up_who_writes() -> None:
    async def run() -> None:
        pipe, _ = pair()
        bridge = Bridge(pipe)
        task = asyncio.create_task(bridge.run())
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await loop.sock_sendall(bridge.socket, bytes(50_000_000))
        bridge.socket.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert pipe.closed.is_set()

    asyncio.run(run())


def test_a_closed_pipe_ends_the_stream() -> None:
    async def run() -> None:
        pipe, other = pair()
        bridge = Bridge(pipe)
        task = asyncio.create_task(bridge.run())
        await other.close()
        await task
        assert await asyncio.get_running_loop().sock_recv(bridge.socket, 1) == b""
        bridge.socket.close()

    asyncio.run(run())
