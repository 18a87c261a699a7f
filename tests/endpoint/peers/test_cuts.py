"""Transfers that are cut go on, and what they bring is whole."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from proxystore_endpoint.exceptions import PeerLostError
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.membership import ALL_RIGHTS

from tests.endpoint.peers.support import Forwarder, Node, nodes, noise, until

MIB = 1 << 20
LIMITS = Limits(handshake_timeout=5.0)


@asynccontextmanager
async def forwarded(**options: Any) -> AsyncIterator[tuple[Node, Node, Forwarder]]:
    """Two nodes, of which one reaches the other only through a forwarder."""
    async with (
        nodes(known=False, **options) as (here, there),
        Forwarder(there.address) as forwarder,
    ):
        here.book.add(there.uuid, [forwarder.address])
        here.grants.grant(there.uuid, [])
        there.grants.grant(here.uuid, ALL_RIGHTS)
        there.peers._addresses.clear()  # it must not tell of a better way
        yield here, there, forwarder


async def cut_randomly(cuts: int, nbytes: int, seed: int) -> None:
    """Cut each of some transfers at a random byte: each is whole within 15 s, little sent twice."""
    random.seed(seed)
    async with forwarded(limits=LIMITS) as (here, there, forwarder):
        data = noise(nbytes)
        key = there.put(data)
        assert await here.fetch(there, key) == data
        done = 0
        while done < cuts:
            here.storage.evict(key, origin=str(there.uuid))
            sent = sum(status.bytes_sent for status in there.peers.status())
            before = forwarder.cuts
            forwarder.passed, forwarder.cut_at = 0, random.randrange(nbytes)
            begun = time.monotonic()
            assert await here.fetch(there, key) == data
            assert time.monotonic() - begun < 15
            forwarder.cut_at = None
            again = sum(status.bytes_sent for status in there.peers.status()) - sent - nbytes
            assert again <= 2 * MIB * (forwarder.cuts - before)
            done += forwarder.cuts - before
        assert here.peers.status()[0].resumed >= cuts


def test_cut_transfers_go_on() -> None:
    asyncio.run(cut_randomly(12, 12 * MIB, 1))


@pytest.mark.soak
def test_cut_transfers_go_on_200_times() -> None:
    asyncio.run(cut_randomly(200, 32 * MIB, 2))


def test_a_transfer_that_is_cut_over_and_over_gets_there() -> None:
    async def run() -> None:
        async with forwarded(limits=LIMITS) as (here, there, forwarder):
            data = noise(20 * MIB)
            key = there.put(data)
            await here.peers.connect(there.uuid)

            async def cutter() -> None:
                while True:
                    forwarder.passed, forwarder.cut_at = 0, 2 * MIB
                    await until(lambda: forwarder.cut_at is None)

            task = asyncio.create_task(cutter())
            assert await here.fetch(there, key) == data
            task.cancel()
            assert forwarder.cuts >= 5

    asyncio.run(run())


def test_a_silent_connection_is_given_up_and_replaced() -> None:
    """Nothing is cut, only nothing comes any more; another connection works."""

    async def run() -> None:
        limits = Limits(ping_interval=0.3, dead_after=0.8)
        async with forwarded(limits=limits) as (here, there, silent):
            data = noise(30 * MIB)
            key = there.put(data)
            await here.peers.connect(there.uuid)
            task = asyncio.create_task(here.fetch(there, key))
            await until(lambda: silent.passed >= 4 * MIB)
            silent.open.clear()
            address = there.peers._greeter.address
            assert address is not None
            here.book.add(there.uuid, [f"127.0.0.1:{address[1]}"])
            assert await task == data
            assert here.peers.status()[0].resumed
            silent.open.set()

    asyncio.run(run())


def test_a_peer_that_stays_away_fails_the_transfer() -> None:
    async def run() -> None:
        async with forwarded() as (here, there, forwarder):
            key = there.put(noise(20 * MIB))
            await here.peers.connect(there.uuid)
            forwarder.passed, forwarder.cut_at = 0, 5 * MIB
            task = asyncio.create_task(here.fetch(there, key))
            await until(lambda: forwarder.cut_at is None)
            forwarder._host = "127.0.0.255"  # nobody there
            forwarder._port = 1
            begun = time.monotonic()
            with pytest.raises(PeerLostError, match="was lost"):
                await task
            assert time.monotonic() - begun < 15
            assert here.storage.usage().in_flight == 0

    asyncio.run(run())


def test_an_object_that_changed_meanwhile_is_not_mixed() -> None:
    async def run() -> None:
        async with forwarded(limits=LIMITS) as (here, there, forwarder):
            key = there.put(noise(20 * MIB))
            await here.peers.connect(there.uuid)
            forwarder.passed, forwarder.cut_at = 0, 5 * MIB
            task = asyncio.create_task(here.fetch(there, key))
            await until(lambda: forwarder.cut_at is None)
            there.put(noise(21 * MIB), key)
            with pytest.raises(Exception, match="changed while it was fetched"):
                await task
            assert here.storage.usage().in_flight == 0

    asyncio.run(run())


def test_a_cut_put_is_sent_again() -> None:
    async def run() -> None:
        async with forwarded(limits=LIMITS) as (here, there, forwarder):
            data = noise(8 * MIB)
            await here.peers.connect(there.uuid)
            key = "11111111-1111-4111-8111-111111111111"
            task = asyncio.create_task(here.peers.put(there.uuid, key, memoryview(data)))
            peer = there.peers._peer(here.uuid)
            await until(lambda: peer.received)
            forwarder.cut()
            assert (await task).nbytes == len(data)
            found = there.storage.open(key)
            assert found is not None
            assert found.view == data
            assert there.storage.usage().in_flight == 0

    asyncio.run(run())
