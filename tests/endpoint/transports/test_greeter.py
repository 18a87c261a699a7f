"""Crowds of connections that never finish their handshake."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.peers import PeerSettings
from proxystore_endpoint.secure import client_context

from tests.endpoint.peers.support import SETTINGS, Node, nodes, until

SHORT = Limits(handshake_timeout=1.5)


@contextlib.contextmanager
def crowd(node: Node, count: int, *, stalled: bool) -> Iterator[list[socket.socket]]:
    """Connect so many clients: half-open ones say nothing, stalled ones stop in the middle."""
    host, port = node.address.split(":")
    clients: list[socket.socket] = []
    try:
        for number in range(count):
            clients.append(socket.create_connection((host, int(port))))
            if stalled and number % 2:
                clients[-1].sendall(b"\x16\x03\x01\x02")  # the head of a TLS record, half of it
            elif stalled:
                sock = client_context().wrap_socket(clients[-1], do_handshake_on_connect=False)
                sock.settimeout(0)
                with contextlib.suppress(ssl.SSLWantReadError):
                    sock.do_handshake()  # sends its hello, and never reads the answer
                clients[-1] = sock
        yield clients
    finally:
        for client in clients:
            client.close()


async def hold(half_open: int, stalled: int, limits: Limits, settings: PeerSettings) -> float:
    """Have crowds wait; return how long the slowest request of a peer took meanwhile."""
    async with nodes(limits=limits, settings=settings) as (here, there):
        key = there.put(b"x" * 1000)
        assert await here.fetch(there, key) == b"x" * 1000
        with crowd(there, half_open, stalled=False), crowd(there, stalled, stalled=True):
            greeter = there.peers._greeter
            await until(lambda: greeter.guests >= (half_open + stalled) // 2, timeout=15)
            begun, slowest = time.monotonic(), 0.0
            while greeter.guests:
                asked = time.monotonic()
                assert await here.fetch(there, key) == b"x" * 1000
                slowest = max(slowest, time.monotonic() - asked)
                assert time.monotonic() - begun < 15
            late = Node(limits=limits, settings=settings)  # and a new peer gets in
            await late.peers.start()
            late.book.add(there.uuid, there.peers.addresses)
            there.grants.grant(late.uuid)
            assert await late.peers.exists(there.uuid, key)
            await late.close()
        return slowest


def test_half_open_and_stalled_clients_are_dropped() -> None:
    assert asyncio.run(hold(100, 50, SHORT, SETTINGS)) < 1.0


@pytest.mark.soak
def test_500_half_open_and_200_stalled_clients_are_dropped() -> None:
    assert asyncio.run(hold(500, 200, Limits(), PeerSettings())) < 1.0


def test_a_peer_gets_in_while_a_crowd_waits() -> None:
    async def run() -> None:
        settings = PeerSettings(max_handshakes=20)
        async with nodes(limits=Limits(), settings=settings) as (here, there):
            with crowd(there, 60, stalled=False):
                await until(lambda: there.peers._greeter.dropped >= 40)
                assert there.peers._greeter.guests <= 20
                assert await here.fetch(there, there.put(b"x")) == b"x"

    asyncio.run(run())


def test_clients_that_stall_after_tls_are_dropped() -> None:
    async def run() -> None:
        async with nodes(1, limits=SHORT) as (node,):
            host, port = node.address.split(":")

            def stall() -> int:
                with socket.create_connection((host, int(port))) as raw:
                    raw.settimeout(10)
                    with client_context().wrap_socket(raw) as sock:
                        count = 0
                        while data := sock.recv(65536):  # its hello, and then the end
                            count += len(data)
                        return count

            begun = time.monotonic()
            assert await asyncio.to_thread(stall) > 32
            assert time.monotonic() - begun < 5

    asyncio.run(run())


def test_running_out_of_descriptors_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with nodes() as (here, there):
            listener = there.peers._greeter._listener
            assert listener is not None
            accept, failures = type(listener).accept, [None] * 3

            def scarce(sock: socket.socket) -> object:
                if sock is listener and failures:
                    failures.pop()
                    raise OSError(24, "Too many open files")
                return accept(sock)

            monkeypatch.setattr(socket.socket, "accept", scarce)
            assert await here.fetch(there, there.put(b"x")) == b"x"
            assert not failures

    asyncio.run(run())
