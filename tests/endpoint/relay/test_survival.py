"""Endpoints outlive their relay, however it ends, and are back soon after it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from proxystore_endpoint.identity import Identity
from websockets.asyncio.server import serve

from tests.conftest import wait_until
from tests.endpoint.relay.support import (
    RelayProcess,
    by_hand,
    client,
    registered,
    relay_process,
)

CLIENTS = 4
BACK = 15.0  # seconds
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
ENDPOINT = """
import asyncio, sys
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.relay.client import RelayClient

async def main():
    async with RelayClient(sys.argv[1], Identity.generate()):
        await asyncio.to_thread(sys.stdin.read)  # until it is told to end

asyncio.run(main())
"""


@contextlib.contextmanager
def endpoints(address: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are registered at a relay; at last they have to end by themselves."""
    processes = [
        subprocess.Popen([sys.executable, "-c", ENDPOINT, address], stdin=subprocess.PIPE)
        for _ in range(CLIENTS)
    ]
    try:
        yield processes
        assert [process.poll() for process in processes] == [None] * CLIENTS  # nobody exited
        for process in processes:
            process.communicate(b"", timeout=20)
        assert [process.returncode for process in processes] == [0] * CLIENTS
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def health(relay: RelayProcess) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{relay.port}/health", timeout=10) as answer:
        told: dict[str, int] = json.load(answer)
        return told


def back(relay: RelayProcess) -> float:
    """Seconds until all are registered again."""
    began = time.monotonic()
    assert wait_until(lambda: health(relay)["clients"] == CLIENTS, BACK)
    return time.monotonic() - began


def unavailable(port: int, seconds: float) -> None:
    """Answer 503 to everyone, as what stands in front of a relay does when that is gone."""

    def refuse(connection: object, request: object) -> object:
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")  # type: ignore[attr-defined]

    async def nothing(websocket: object) -> None:
        return

    async def run() -> None:
        async with serve(nothing, "127.0.0.1", port, process_request=refuse):
            await asyncio.sleep(seconds)

    asyncio.run(run())


def ordeal(relay: RelayProcess, kind: str, seconds: float) -> float:
    """End the relay, let time pass, start it again; return how long all took to be back."""
    status = relay.kill(signal.SIGTERM if kind == "term" else signal.SIGKILL)
    assert status == (0 if kind == "term" else -signal.SIGKILL)
    if kind == "503":
        unavailable(relay.port, seconds)
    else:
        time.sleep(seconds)  # the outage itself
    relay.start()
    return back(relay)


@pytest.mark.parametrize(("kind", "seconds"), [("kill", 0.0), ("term", 0.3), ("503", 1.0)])
def test_endpoints_outlive_their_relay(kind, seconds):
    with relay_process() as relay, endpoints(relay.url):
        back(relay)
        ordeal(relay, kind, seconds)


@pytest.mark.soak
def test_endpoints_outlive_fifty_ends_of_their_relay():
    rng = random.Random(8)
    taken = []
    with relay_process() as relay, endpoints(relay.url):
        back(relay)
        for number in range(50):
            kind = ("kill", "term", "503")[number % 3]
            taken.append(ordeal(relay, kind, rng.uniform(0, 5)))
    print(f"back after {max(taken):.1f} s at most, {sum(taken) / 50:.1f} s on average")


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["kill", "503"])
def test_endpoints_outlive_a_long_outage(kind):
    with relay_process() as relay, endpoints(relay.url):
        back(relay)
        print(f"back after {ordeal(relay, kind, 70.0):.1f} s")


@pytest.mark.soak
def test_endpoints_outlive_a_relay_that_hangs():
    with relay_process() as relay, endpoints(relay.url):
        back(relay)
        for _ in range(3):
            relay.signal(signal.SIGSTOP)
            time.sleep(30.0)  # longer than the silence that either side bears
            relay.signal(signal.SIGCONT)
            back(relay)


async def crowd(relay: RelayProcess, half_open: int, stalled: int) -> tuple[float, float]:
    """Connect strangers that stop half way, and clients that read nothing.

    Returns:
        The seconds until the last of them was dropped, and the slowest percentile of small
        messages meanwhile.
    """
    async with contextlib.AsyncExitStack() as stack:
        one, _, _ = await stack.enter_async_context(client(relay.url))
        _, identity, inbox = await stack.enter_async_context(client(relay.url))
        for number in range(half_open):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
            sock.sendall((b"", b"GET / HTTP/1.1\r\n", HANDSHAKE)[number % 3])
        for _ in range(stalled):
            websocket = await stack.enter_async_context(by_hand(relay.url))
            await registered(websocket, Identity.generate())
            websocket.transport.pause_reading()
        began = time.monotonic()
        near = await one.open_circuit(identity.uuid)
        _, far = await inbox.circuits.get()
        taken = []
        while (await asyncio.to_thread(health, relay))[
            "connections"
        ] > 3:  # our two, and the one that asks
            assert time.monotonic() - began < 60
            for _ in range(50):
                start = time.monotonic()
                await near.send(bytes(1000))
                await far.receive()
                taken.append(time.monotonic() - start)
                await asyncio.sleep(0.002)
        assert one.registrations == 1
        taken.sort()
        return time.monotonic() - began, taken[int(len(taken) * 0.99)]


@pytest.mark.soak
def test_half_open_and_stalled_clients_are_dropped_and_others_are_served():
    with relay_process() as relay:
        dropped, slow = asyncio.run(crowd(relay, 500, 200))
    print(f"all dropped after {dropped:.1f} s; others' p99 {slow * 1000:.0f} ms")
    assert dropped < 15.0
    assert slow < 0.1
