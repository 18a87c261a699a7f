"""A peer that dies or hangs in the middle of a transfer, as the sender and as the receiver."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
from proxystore_endpoint.exceptions import PeerError, PeerLostError, PeerUnreachableError
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.peers import PeerSettings

from tests.conftest import BASE
from tests.endpoint.peers.support import Node, nodes, noise, until

LIMITS = Limits(ping_interval=0.5, dead_after=1.5, handshake_timeout=3.0)
SETTINGS = PeerSettings(stall_timeout=3.0, lost_grace=1.0, connect_timeout=1.5)
LARGE = 400 << 20


class Child(NamedTuple):
    process: subprocess.Popen[str]
    uuid: UUID
    address: str
    keys: dict[str, str]

    def fetch(self, node: Node, key: str) -> None:
        """Have it fetch an object; return when it has begun."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("get", node.uuid, node.address, key, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "reserved\n"


@asynccontextmanager
async def child(node: Node, nbytes: int = 0) -> AsyncIterator[Child]:
    """A node in another process that knows, and is known to, this one."""
    memory = tempfile.mkdtemp(prefix="proxystore-test-child-", dir=BASE)  # it cannot tidy up
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("child.py")), str(nbytes), str(node.uuid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PROXYSTORE_SHM_ROOT": memory},
    )
    try:
        assert process.stdout is not None
        uuid, address, keys = json.loads(await asyncio.to_thread(process.stdout.readline))
        node.grants.grant(UUID(uuid))
        node.book.add(UUID(uuid), [address])
        yield Child(process, UUID(uuid), address, keys)
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(memory)


def stopped(pid: int) -> bool:
    """Whether a process is stopped: a signal takes its time."""
    return all(
        (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def sink(node: Node, key: str, begun: asyncio.Event) -> object:
    loop = asyncio.get_running_loop()

    def reserve(nbytes: int) -> object:
        loop.call_soon_threadsafe(begun.set)
        return node.storage.reserve(key, nbytes)

    return reserve


async def small_gets(here: Node, third: Node, while_waiting: asyncio.Task[object]) -> float:
    """Get small objects of a third party until the task is done; return the longest time."""
    key, longest = third.put(b"t"), 0.0
    while not while_waiting.done():
        begun = time.monotonic()
        assert await here.fetch(third, key) == b"t"
        longest = max(longest, time.monotonic() - begun)
        await asyncio.wait([while_waiting], timeout=0.01)
    return longest


async def lose_the_sender(how: signal.Signals, limits: Limits, settings: PeerSettings) -> float:
    async with (
        nodes(limits=limits, settings=settings) as (here, third),
        child(here, LARGE) as peer,
    ):
        begun = asyncio.Event()
        key = peer.keys["large"]
        get = asyncio.create_task(
            here.peers.get(peer.uuid, key, sink(here, key, begun))  # type: ignore[arg-type]
        )
        await begun.wait()
        os.kill(peer.process.pid, how)
        waiting = asyncio.create_task(here.peers.exists(peer.uuid, key))
        at = time.monotonic()
        longest = await small_gets(here, third, get)
        with pytest.raises(PeerLostError):
            await get
        with pytest.raises((PeerLostError, PeerUnreachableError)):
            await waiting
        took = time.monotonic() - at
        assert took < 15
        assert here.storage.usage().in_flight == 0
        assert longest < 2.0  # itself far less; this only must not wait for the dead
        return took


async def lose_the_receiver(how: signal.Signals, limits: Limits, settings: PeerSettings) -> None:
    async with nodes(limits=limits, settings=settings) as (here, third), child(here) as peer:
        here.grants.grant(peer.uuid, ["read"])  # type: ignore[list-item]
        key = here.put(noise(LARGE))
        await asyncio.to_thread(peer.fetch, here, key)
        os.kill(peer.process.pid, how)
        gone = asyncio.create_task(until(lambda: not here.peers._peer(peer.uuid).lanes, timeout=15))
        await small_gets(here, third, gone)
        await gone
        with pytest.raises(PeerError):
            await here.peers.exists(peer.uuid, key)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_sender_is_lost(how: signal.Signals) -> None:
    asyncio.run(lose_the_sender(how, LIMITS, SETTINGS))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_receiver_is_lost(how: signal.Signals) -> None:
    asyncio.run(lose_the_receiver(how, LIMITS, SETTINGS))


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_senders_and_receivers_are_lost_with_the_default_times(how: signal.Signals) -> None:
    for _ in range(10):
        asyncio.run(lose_the_sender(how, Limits(), PeerSettings()))
        asyncio.run(lose_the_receiver(how, Limits(), PeerSettings()))


def test_a_stopped_peer_that_goes_on_is_found_again() -> None:
    async def run() -> None:
        async with nodes(1, limits=LIMITS, settings=SETTINGS) as (here,), child(here) as peer:
            assert await here.peers.exists(peer.uuid, peer.keys["small"])
            os.kill(peer.process.pid, signal.SIGSTOP)
            await until(lambda: stopped(peer.process.pid))
            with pytest.raises(PeerError):
                await here.peers.exists(peer.uuid, peer.keys["small"])
            os.kill(peer.process.pid, signal.SIGCONT)
            assert await here.fetch(peer.uuid, peer.keys["small"]) == b"s" * 1000

    asyncio.run(run())
