"""Endpoints without their outer shell: an identity, a storage, and peers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.grants import Grants
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.membership import ALL_RIGHTS
from proxystore_endpoint.peers import AddressBook, Fetched, Peers, PeerSettings
from proxystore_endpoint.storage import Storage

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


def noise(nbytes: int) -> bytes:
    """Bytes of which no two parts are the same."""
    block = os.urandom(min(nbytes, 1 << 20))
    return (
        b"".join(index.to_bytes(8, "big") + block[8:] for index in range(-(-nbytes // (1 << 20))))[
            :nbytes
        ]
        if nbytes > 8
        else block
    )
