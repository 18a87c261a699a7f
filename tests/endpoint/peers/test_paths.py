"""Paths through a real relay, and their replacement by better ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from proxystore_endpoint.exceptions import PeerUnreachableError
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.peers import PeerSettings

from tests.endpoint.peers.support import Node, meet, noise, until
from tests.endpoint.relay.support import RelayProcess, client, relay_process

SETTINGS = PeerSettings(
    connect_timeout=3.0, head_start=0.1, upgrade_after=(0.2,), stall_timeout=14.0
)


@asynccontextmanager
async def at_relay(
    count: int = 2, *, listen: bool = False, known: bool = True, **options: Any
) -> AsyncIterator[tuple[list[Node], RelayProcess]]:
    """Some nodes that reach each other by a relay alone, unless they tell of an address."""
    options = {"limits": Limits(), "settings": SETTINGS, "webrtc": False, **options}
    with relay_process() as relay:
        async with AsyncExitStack() as stack:
            made = []
            for _ in range(count):
                node = Node(**options)
                stack.push_async_callback(node.close)
                await node.peers.start("127.0.0.1" if listen else None)
                node.peers.relay, _, _ = await stack.enter_async_context(
                    client(
                        relay.url,
                        node.identity,
                        on_signal=node.peers.on_signal,
                        on_circuit=node.peers.on_circuit,
                    )
                )
                made.append(node)
            if known:
                meet(*made, addresses=False)
            yield made, relay


def test_objects_come_through_the_relay() -> None:
    async def run() -> None:
        async with at_relay() as ((here, there), _):
            for nbytes in (0, 1000, 5_000_001):
                data = noise(nbytes)
                assert await here.fetch(there, there.put(data)) == data
                assert await there.fetch(here, here.put(data)) == data
            (status,) = here.peers.status()
            assert status.path == "relay"
            assert status.paths["tcp"] == "no address known"
            assert status.paths["webrtc"] == "switched off"

    asyncio.run(run())


def test_a_direct_path_replaces_the_relayed_one() -> None:
    async def run() -> None:
        async with at_relay(listen=True) as ((here, there), _):
            assert await here.peers.connect(there.uuid) in ("relay", "tcp")
            await until(lambda: here.peers.status()[0].path == "tcp")
            data = noise(3_000_000)
            assert await here.fetch(there, there.put(data)) == data
            peer = here.peers._peer(there.uuid)
            assert sum(n.connection.bytes_received for n in peer.lanes if n.kind == "tcp") >= 3e6

    asyncio.run(run())


def test_an_address_that_does_not_answer_costs_nothing_but_the_head_start() -> None:
    async def run() -> None:
        async with at_relay() as ((here, there), _):
            here.book.add(there.uuid, ["127.0.0.1:1"])
            assert await here.peers.connect(there.uuid) == "relay"
            assert "refused" in here.peers.status()[0].paths["tcp"]

    asyncio.run(run())


def test_direct_links_outlive_the_relay() -> None:
    async def run() -> None:
        async with at_relay(listen=True) as ((here, there), relay):
            meet(here, there)
            key = there.put(b"x")
            assert await here.fetch(there, key) == b"x"
            relay.kill()
            assert here.peers.relay is not None
            await until(lambda: not here.peers.relay.connected)  # type: ignore[union-attr]
            here.storage.evict(key, origin=str(there.uuid))
            assert await here.fetch(there, key) == b"x"
            assert here.peers.status()[0].path == "tcp"

    asyncio.run(run())


def test_a_transfer_outlives_a_short_absence_of_the_relay() -> None:
    async def run() -> None:
        async with at_relay() as ((here, there), relay):
            data = noise(60_000_000)
            key = there.put(data)
            await here.peers.connect(there.uuid)
            task = asyncio.create_task(here.fetch(there, key))
            await until(lambda: here.peers.status()[0].bytes_received > 2_000_000)
            relay.kill()
            begun = time.monotonic()
            await asyncio.to_thread(relay.start)
            assert await task == data
            assert time.monotonic() - begun < 15
            assert here.peers.status()[0].resumed

    asyncio.run(run())


def test_nobody_there_is_told_for_each_path() -> None:
    async def run() -> None:
        async with at_relay(1) as ((here,), _):
            stranger = uuid4()
            here.book.add(stranger, ["127.0.0.1:1"])
            with pytest.raises(PeerUnreachableError) as caught:
                await here.peers.exists(stranger, "k")
            assert set(caught.value.paths) == {"tcp", "punch", "webrtc", "relay"}
            assert "refused" in caught.value.paths["tcp"]
            assert str(stranger) in caught.value.paths["relay"]

    asyncio.run(run())


def test_strangers_at_the_relay_get_nothing() -> None:
    async def run() -> None:
        async with at_relay(known=False, listen=True) as ((here, stranger), _):
            here.book.add(uuid4(), [])  # it knows somebody, but not them
            await stranger.peers._signals.tell_addresses(here.uuid, reply=True)
            with pytest.raises(PeerUnreachableError):
                await stranger.peers.exists(here.uuid, "k")
            assert here.peers.status() == []
            assert stranger.uuid not in here.book

    asyncio.run(run())


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": 7},
        {"type": "addresses", "addresses": 5},
        {"type": "addresses", "addresses": [1, None, "x", "127.0.0.1:99999", "a" * 999]},
        {"type": "webrtc", "session": 3, "message": {}},
        {"type": "webrtc", "session": "s", "message": []},
        {"type": "webrtc", "session": "s", "message": {"type": "offer", "sdp": "no"}},
    ],
)
def test_malformed_signals_change_nothing(message: dict[str, Any]) -> None:
    async def run() -> None:
        async with at_relay() as ((here, there), _):
            assert there.peers.relay is not None
            await there.peers.relay.signal(here.uuid, message)
            assert await here.fetch(there, there.put(b"x")) == b"x"
            assert here.peers._tasks.failures == 0

    asyncio.run(run())
