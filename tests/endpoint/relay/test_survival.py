"""Endpoints outlive their relay, however it ends, and are back soon after it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from websockets.asyncio.server import serve

from tests.conftest import wait_until
from tests.endpoint.relay.support import RelayProcess, relay_process

CLIENTS = 4
BACK = 15.0  # seconds
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


def registered(relay: RelayProcess) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{relay.port}/health", timeout=10) as answer:
        clients: int = json.load(answer)["clients"]
        return clients


def back(relay: RelayProcess) -> float:
    """Seconds until all are registered again."""
    began = time.monotonic()
    assert wait_until(lambda: registered(relay) == CLIENTS, BACK)
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
