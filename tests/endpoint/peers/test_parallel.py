"""One object over several lanes, as where the round trip is long."""

from __future__ import annotations

import asyncio
import random

import pytest
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.peers import PeerSettings

from proxystore_core.exceptions import MissingReason
from tests.endpoint.peers.support import nodes, noise
from tests.endpoint.peers.test_cuts import forwarded

MIB = 1 << 20
FAR = PeerSettings(parallel_rtt=0.0, lost_grace=2.5)  # every peer counts as far


@pytest.mark.parametrize("nbytes", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 60 * MIB + 12345])
def test_the_parts_make_the_object(nbytes: int) -> None:
    async def run() -> None:
        async with nodes(settings=FAR, limits=Limits()) as (here, there):
            data = noise(nbytes)
            assert await here.fetch(there, there.put(data)) == data
            assert here.storage.usage().in_flight == 0

    asyncio.run(run())


def test_lanes_are_added_where_one_is_slow() -> None:
    """Each connection passes 20 MB/s at most: with more of them it is faster."""

    async def run() -> None:
        async with forwarded(settings=FAR, limits=Limits()) as (here, there, forwarder):
            forwarder.pause = 0.003  # for each 64 KiB
            data = noise(40 * MIB)
            assert await here.fetch(there, there.put(data)) == data
            assert forwarder.connections >= 2

    asyncio.run(run())


def test_a_missing_object_is_missing() -> None:
    async def run() -> None:
        async with nodes(settings=FAR, limits=Limits()) as (here, there):
            key = "11111111-1111-4111-8111-111111111111"
            assert await here.fetch(there, key) is MissingReason.UNKNOWN

    asyncio.run(run())


def test_cut_lanes_are_replaced() -> None:
    async def run() -> None:
        random.seed(3)
        async with forwarded(settings=FAR, limits=Limits()) as (here, there, forwarder):
            data = noise(40 * MIB)
            key = there.put(data)
            for _ in range(8):
                forwarder.passed, forwarder.cut_at = 0, random.randrange(30 * MIB)
                assert await here.fetch(there, key) == data
                here.storage.evict(key, origin=str(there.uuid))
            assert forwarder.cuts >= 7
            assert here.storage.usage().in_flight == 0

    asyncio.run(run())
