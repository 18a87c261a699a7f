from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import pytest
from proxystore_endpoint.exceptions import (
    PeerLostError,
    PeerRefusedError,
    PeerResponseError,
    PeerTimeoutError,
)
from proxystore_endpoint.membership import Right
from proxystore_endpoint.peers import PeerSettings, RemoteStat
from proxystore_endpoint.storage import Storage

from proxystore_core.exceptions import MissingReason, ObjectTooLargeError
from tests.endpoint.peers.support import Node, meet, nodes, noise


@pytest.mark.parametrize("nbytes", [0, 1, 1000, 65_536, 262_144, 3_000_001])
def test_get_brings_the_object(nbytes: int) -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            data = noise(nbytes)
            assert await here.fetch(there, there.put(data)) == data
            assert await there.fetch(here, here.put(data)) == data  # over the same connection
            assert len(there.peers.status()) == 1

    asyncio.run(run())


def test_get_says_why_there_is_no_object() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            assert await here.fetch(there, str(uuid4())) is MissingReason.UNKNOWN
            key = there.put(b"x")
            there.storage.evict(key)
            assert await here.fetch(there, key) is MissingReason.EVICTED
            assert await here.peers.stat(there.uuid, key) is MissingReason.EVICTED

    asyncio.run(run())


def test_small_objects_that_are_asked_for_again_are_those_of_now() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            key = there.put(b"one")
            for data in (b"one", b"one", b"two", b"two"):
                if data == b"two":
                    there.put(data, key)
                here.storage.evict(key, origin=str(there.uuid))
                assert await here.fetch(there, key) == data
            there.storage.evict(key)
            assert await here.fetch(there, key) is MissingReason.EVICTED
            keys = [there.put(str(n).encode()) for n in range(300)]
            for _ in range(2):
                for number, one in enumerate(keys):
                    assert await here.fetch(there, one) == str(number).encode()

    asyncio.run(run())


def test_get_tells_when_the_object_expires() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            key = str(uuid4())
            there.storage.put(key, [b"x" * 10], ttl=60)
            found = await here.peers.get(there.uuid, key, lambda n: here.storage.reserve(key, n))
            assert not isinstance(found, MissingReason)
            assert found.expires_in is not None
            assert 50 < found.expires_in <= 60
            found.reservation.abandon()

    asyncio.run(run())


def test_small_operations() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            key, peer = there.put(b"abc"), there.uuid
            assert await here.peers.exists(peer, key)
            stat = await here.peers.stat(peer, key)
            assert isinstance(stat, RemoteStat)
            assert (stat.nbytes, stat.durability, stat.expires_in) == (3, "memory", None)
            assert await here.peers.list(peer) == [key]
            assert await here.peers.evict(peer, key)
            assert not await here.peers.evict(peer, key)
            assert not await here.peers.exists(peer, key)
            assert await here.peers.list(peer) == []

    asyncio.run(run())


def test_list_of_more_keys_than_one_answer_has() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            keys = sorted(there.put(b"x") for _ in range(1200))
            assert await here.peers.list(there.uuid) == keys

    asyncio.run(run())


@pytest.mark.parametrize("nbytes", [0, 1, 3_000_001])
def test_put_stores_at_the_peer(nbytes: int) -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            key, data = str(uuid4()), noise(nbytes)
            stored = await here.peers.put(there.uuid, key, memoryview(data), ttl=60)
            assert (stored.nbytes, stored.durability) == (nbytes, "memory")
            found = there.storage.open(key)
            assert found is not None
            assert bytes(found.view) == data
            assert found.expires_in is not None
            assert found.expires_in <= 60

    asyncio.run(run())


def test_put_over_the_limit_is_refused_by_name() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            there.storage.close()
            small = Storage(str(there.uuid), object_limit=1000)
            there.storage = there.peers._provider = small
            with pytest.raises(ObjectTooLargeError, match="limit"):
                await here.peers.put(there.uuid, str(uuid4()), memoryview(bytes(1 << 20)))
            assert await here.peers.list(there.uuid) == []

    asyncio.run(run())


def test_many_requests_at_once() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            data = {there.put(body := noise(2000 + n)): body for n in range(600)}
            found = await asyncio.gather(*(here.fetch(there, key) for key in data))
            assert list(found) == list(data.values())

    asyncio.run(run())


def test_small_requests_pass_large_ones() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            large, small = there.put(noise(64 << 20)), there.put(b"x" * 100)
            done = asyncio.create_task(here.fetch(there, large))
            count = 0
            while not done.done():
                assert await here.fetch(there, small) == b"x" * 100
                count += 1
            assert count > 3
            assert len(await done) == 64 << 20  # type: ignore[arg-type]

    asyncio.run(run())


def test_a_sink_that_fails_is_the_callers_error() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            key = there.put(b"x" * 1000)

            def sink(nbytes: int) -> object:
                raise ObjectTooLargeError("no", nbytes=nbytes, limit=1)

            with pytest.raises(ObjectTooLargeError):
                await here.peers.get(there.uuid, key, sink)  # type: ignore[arg-type]
            assert await here.fetch(there, key) == b"x" * 1000

    asyncio.run(run())


def test_a_cancelled_get_gives_its_room_back() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            key = there.put(noise(64 << 20))
            reserved = asyncio.Event()
            loop = asyncio.get_running_loop()

            def sink(nbytes: int) -> object:
                loop.call_soon_threadsafe(reserved.set)
                return here.storage.reserve(key, nbytes)

            task = asyncio.create_task(here.peers.get(there.uuid, key, sink))  # type: ignore[arg-type]
            await reserved.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert here.storage.usage().in_flight == 0
            assert await here.peers.exists(there.uuid, key)

    asyncio.run(run())


def test_rights_are_checked_for_each_request() -> None:
    async def run() -> None:
        async with nodes(known=False) as (here, there):
            meet(here, there, rights=[Right.READ])
            key, peer = there.put(b"x"), there.uuid
            assert await here.fetch(there, key) == b"x"
            for ask in (
                here.peers.evict(peer, key),
                here.peers.list(peer),
                here.peers.put(peer, str(uuid4()), memoryview(b"y" * 3_000_000)),
            ):
                with pytest.raises(PeerRefusedError, match="no right"):
                    await ask
            assert there.storage.exists(key)
            there.grants.grant(here.uuid, [])
            with pytest.raises(PeerRefusedError, match="no right to read"):
                await here.fetch(there, key)

    asyncio.run(run())


def test_a_key_that_is_none_is_told() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            with pytest.raises(PeerResponseError) as caught:
                await here.peers.exists(there.uuid, "../secret")
            assert caught.value.status == "bad_request"
            assert caught.value.peer == there.uuid

    asyncio.run(run())


def test_every_request_has_a_deadline() -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            key = there.put(b"x")
            await here.peers.connect(there.uuid)
            (lane,) = there.peers._lanes
            assert lane.post(lambda: time.sleep(0.5))  # a peer that is slow to answer
            begun = time.monotonic()
            with pytest.raises(PeerTimeoutError):
                await here.peers.exists(there.uuid, key, timeout=0.2)
            assert time.monotonic() - begun < 0.5
            assert await here.peers.exists(there.uuid, key)

    asyncio.run(run())


def test_closing_fails_what_waits() -> None:
    async def run() -> None:
        settings = PeerSettings(lost_grace=0.2, connect_timeout=1.0)
        async with nodes(settings=settings) as (here, there):
            key = there.put(noise(64 << 20))
            reserved = asyncio.Event()
            loop = asyncio.get_running_loop()

            def sink(nbytes: int) -> object:
                loop.call_soon_threadsafe(reserved.set)
                return here.storage.reserve(key, nbytes)

            task = asyncio.create_task(here.peers.get(there.uuid, key, sink))  # type: ignore[arg-type]
            await reserved.wait()
            await there.peers.close()
            with pytest.raises(PeerLostError):
                await task
            assert here.storage.usage().in_flight == 0

    asyncio.run(run())


def test_status_says_what_goes_on() -> None:
    async def run() -> None:
        async with nodes(agent="test/1") as (here, there):
            await here.fetch(there, there.put(bytes(1000)))
            (status,) = here.peers.status()
            assert (status.uuid, status.path, status.agent) == (there.uuid, "tcp", "test/1")
            assert (status.bytes_received, status.bytes_sent) == (1000, 0)
            assert status.paths == {"tcp": "connected"}
            assert status.version == 1
            (lane,) = status.lanes
            assert (lane.kind, lane.outbound, lane.remote) == ("tcp", True, there.address)

    asyncio.run(run())


def test_nodes_close_twice_and_unstarted() -> None:
    async def run() -> None:
        node = Node()
        await node.close()
        async with nodes() as (here, there):
            await here.peers.connect(there.uuid)
            await here.peers.close()

    asyncio.run(run())
