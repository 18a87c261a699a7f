"""Endpoints without their outer shell: an identity, a storage, and peers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from proxystore_endpoint.grants import Grants
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.membership import ALL_RIGHTS
from proxystore_endpoint.peers import AddressBook, Fetched, Peers, PeerSettings
from proxystore_endpoint.storage import Storage

from proxystore_core.exceptions import MissingReason

QUICK = Limits(handshake_timeout=2.0, ping_interval=0.3, dead_after=1.0)
SETTINGS = PeerSettings(
    connect_timeout=2.0, stall_timeout=2.0, lost_grace=0.6, upgrade_after=(0.3,), head_start=0.3
)


class Node:
    """An identity with storage and peers, listening on the loopback interface."""

    def __init__(
        self,
        *,
        limits: Limits = QUICK,
        settings: PeerSettings = SETTINGS,
        identity: Identity | None = None,
        **options: Any,
    ) -> None:
        self.identity = Identity.generate() if identity is None else identity
        self.grants = Grants()
        self.book = AddressBook()
        self.storage = Storage(str(self.uuid))
        self.peers = Peers(
            self.identity,
            self.grants,
            self.storage,
            self.book,
            limits=limits,
            settings=settings,
            **options,
        )

    @property
    def uuid(self) -> UUID:
        return self.identity.uuid

    @property
    def address(self) -> str:
        return self.peers.addresses[0]

    async def close(self) -> None:
        await self.peers.close()
        self.storage.close()

    def put(self, data: bytes, key: str | None = None) -> str:
        key = str(uuid4()) if key is None else key
        self.storage.put(key, [data])
        return key

    async def fetch(self, other: Node | UUID, key: str, **options: Any) -> bytes | MissingReason:
        """Get an object of a peer, publish it here as a copy, and return its bytes."""
        peer = other.uuid if isinstance(other, Node) else other
        found = await self.peers.get(
            peer, key, lambda nbytes: self.storage.reserve(key, nbytes, origin=str(peer)), **options
        )
        if not isinstance(found, Fetched):
            return found
        found.reservation.publish()
        copy = self.storage.open(key, origin=str(peer))
        assert copy is not None
        assert copy.nbytes == found.nbytes
        return bytes(copy.view)


def meet(*nodes: Node, rights: Iterable[Any] = ALL_RIGHTS, addresses: bool = True) -> None:
    """Let all of them in at each other, and tell them where the others are."""
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.grants.grant(other.uuid, rights)
                if addresses:
                    node.book.add(other.uuid, other.peers.addresses)


@asynccontextmanager
async def nodes(count: int = 2, *, known: bool = True, **options: Any) -> AsyncIterator[list[Node]]:
    """Start some nodes that know each other."""
    made = [Node(**options) for _ in range(count)]
    try:
        for node in made:
            await node.peers.start("127.0.0.1", 0)
        if known:
            meet(*made)
        yield made
    finally:
        await asyncio.gather(*(node.close() for node in made))


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


def noise(nbytes: int) -> bytes:
    """Bytes of which no two parts are the same."""
    mib = 1 << 20
    block = os.urandom(min(nbytes, mib))
    if nbytes <= mib:
        return block
    parts = [index.to_bytes(8, "big") + block[8:] for index in range(-(-nbytes // mib))]
    return b"".join(parts)[:nbytes]


class Forwarder:
    """Passes TCP connections on to an address, and cuts or holds them when told."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.passed = 0  # bytes from the target
        self.cut_at: int | None = None
        self.cuts = 0
        self.connections = 0
        self.pause = 0.0  # seconds between two pieces, of at most 64 KiB

    async def __aenter__(self) -> Forwarder:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(back)
        for work in (self._pump(reader, back, False), self._pump(there, writer, True)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self.open.wait()
                if self.pause:
                    await asyncio.sleep(self.pause)
                if counted:
                    if self.cut_at is not None and self.passed + len(data) > self.cut_at:
                        writer.write(data[: self.cut_at - self.passed])
                        await writer.drain()
                        self.passed, self.cut_at = self.cut_at, None
                        self.cuts += 1
                        self.cut()
                        return
                    self.passed += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # cut: what this is for
        finally:
            writer.transport.abort()
