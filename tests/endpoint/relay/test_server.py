"""A relay that listens: registration, strangers, silence, pages."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
import urllib.error
import urllib.request
from contextlib import AsyncExitStack

import pytest
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import KIB, MIB
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay.client import RelayClient
from proxystore_endpoint.relay.limits import RelayLimits
from proxystore_endpoint.relay.server import RelayServer
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from tests.endpoint.relay.rig import BODY
from tests.endpoint.relay.support import (
    QUICK,
    asynchronous,
    by_hand,
    client,
    eventually,
    mutated,
    registered,
    self_signed,
)


def get(url: str) -> tuple[int, str, str]:
    """Status, type and body that an HTTP request gets."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.headers["Content-Type"], response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"] or "", error.read().decode()


@asynchronous
async def test_a_right_registration_is_welcome():
    identity = Identity.generate()
    async with RelayServer() as relay, by_hand(relay.url) as websocket:
        welcome = await registered(websocket, identity)
        assert isinstance(welcome, m.Welcome)
        assert welcome.uuid == identity.uuid
        assert welcome.address == f"127.0.0.1:{websocket.local_address[1]}"
        assert list(relay.switch.ports) == [identity.uuid]


VICTIM = Identity.generate()
WRONG = {
    "stolen id": {"uuid": VICTIM.uuid},
    "stolen id and key": {"uuid": VICTIM.uuid, "public_key": VICTIM.public_key},
    "another nonce": {"nonce": bytes(32)},
    "another relay": {"signed_audience": "evil:443"},
    "no signature": {"signature": b""},
    "zeros": {"signature": bytes(64)},
    "no key": {"public_key": bytes(32)},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
@asynchronous
async def test_a_wrong_registration_is_refused(changes):
    async with RelayServer() as relay, by_hand(relay.url) as websocket:
        async with client(relay.url, VICTIM) as (victim, _, _):
            goodbye = await registered(websocket, Identity.generate(), **changes)
            assert isinstance(goodbye, m.Goodbye)
            assert goodbye.reason == "refused"
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
            assert victim.connected  # nobody took its place
            assert list(relay.switch.ports) == [VICTIM.uuid]
        assert relay.switch.counts["refused_refused"] == 1


@asynchronous
async def test_a_registration_cannot_be_replayed():
    identity = Identity.generate()
    async with RelayServer() as relay:
        async with by_hand(relay.url) as websocket:
            challenge = m.decode_from_relay(await websocket.recv(decode=False))
            signed = m.registration(
                challenge.nonce, identity.uuid, identity.public_key, "127.0.0.1:1"
            )
            signature = identity.sign(signed)
        async with by_hand(relay.url) as websocket:
            goodbye = await registered(websocket, identity, signature=signature)
            assert goodbye.reason == "refused"


@asynchronous
async def test_a_relay_with_names_refuses_signatures_for_others():
    async with RelayServer(names=["relay.example.org", "127.0.0.1"]) as relay:
        for audience, right in (
            ("relay.example.org:443", True),
            ("RELAY.example.org:8700", True),
            ("127.0.0.1:5", True),
            ("evil.example.org:443", False),
            ("", False),
        ):
            async with by_hand(relay.url) as websocket:
                answer = await registered(websocket, Identity.generate(), audience=audience)
                assert isinstance(answer, m.Welcome if right else m.Goodbye), audience
        async with client(relay.url) as (made, _, _):  # ours signs what it dialled
            assert made.connected


@pytest.mark.parametrize(
    "first",
    [m.encode(m.Ping(1)), b"{}", b"garbage", b"", m.encode_data(1, b"x"), b'{"type":"future"}'],
    ids=repr,
)
@asynchronous
async def test_who_does_not_register_first_has_to_go(first):
    async with RelayServer() as relay, by_hand(relay.url) as websocket:
        await websocket.recv()
        await websocket.send(first)
        goodbye = m.decode_from_relay(await websocket.recv(decode=False))
        assert goodbye.reason == "protocol"
        with pytest.raises(ConnectionClosed):
            await websocket.recv()


@asynchronous
async def test_the_older_registration_is_told_that_it_is_replaced():
    identity = Identity.generate()
    async with (
        RelayServer() as relay,
        by_hand(relay.url) as older,
        by_hand(relay.url) as newer,
        by_hand(relay.url) as patient,
    ):
        await registered(older, identity)
        assert isinstance(await registered(newer, identity), m.Welcome)
        goodbye = m.decode_from_relay(await older.recv(decode=False))
        assert goodbye.reason == "replaced"
        with pytest.raises(ConnectionClosed):
            await older.recv()
        taken = await registered(patient, identity, replace=False)
        assert taken.reason == "taken"


@asynchronous
async def test_who_breaks_the_protocol_is_told_and_others_live_on():
    async with RelayServer() as relay, client(relay.url) as (good, identity, inbox):
        async with by_hand(relay.url) as websocket:
            await registered(websocket, Identity.generate())
            await websocket.send(b"\x01")
            goodbye = m.decode_from_relay(await websocket.recv(decode=False))
            assert goodbye.reason == "protocol"
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
        async with by_hand(relay.url) as websocket:
            await registered(websocket, Identity.generate())
            with pytest.raises(ConnectionClosed):  # over the size of a message
                await websocket.send(bytes(MIB))
                await websocket.recv()
        async with client(relay.url) as (other, _, _):
            await other.signal(identity.uuid, {"still": "there"})
            assert (await inbox.signals.get())[1] == {"still": "there"}
        assert good.registrations == 1
        assert await eventually(lambda: len(relay.switch.ports) == 1)


async def soil(count: int, seed: int) -> None:
    """Send garbage at a relay on many connections, registered and not."""
    rng = random.Random(seed)
    async with (
        RelayServer(limits=RelayLimits(messages=1e9, opens=1e9)) as relay,
        client(relay.url) as (good, identity, inbox),
        client(relay.url) as (other, another, _),
    ):
        frames = [
            m.encode(m.Signal(1, another.uuid, BODY)),
            m.encode(m.Open(2, identity.uuid, MIB)),
            m.encode(m.Close(1)),
            m.encode(m.Accept(1, 1)),
            m.encode_data(1, bytes(3000)),
            m.encode_credit(1, 5000),
        ]
        sent = connections = 0
        while sent < count:
            connections += 1
            async with by_hand(relay.url) as websocket:
                try:
                    if rng.random() < 0.9:
                        await registered(websocket, Identity.generate())
                    for _ in range(rng.randrange(200)):
                        await websocket.send(mutated(rng, frames))
                        sent += 1
                except ConnectionClosed:
                    continue
        assert connections > 20
        await other.signal(identity.uuid, {"still": "there"})
        while (await inbox.signals.get())[1] != {"still": "there"}:
            continue
        assert (good.registrations, other.registrations) == (1, 1)
        assert await eventually(lambda: len(relay.switch.ports) == 2)


@asynchronous
async def test_a_relay_survives_garbage():
    await soil(3_000, seed=6)


@pytest.mark.soak
def test_a_relay_survives_much_garbage():
    asyncio.run(soil(200_000, seed=7))


@asynchronous
async def test_half_open_connections_are_dropped():
    async with RelayServer(limits=QUICK) as relay:
        sockets = []
        try:
            for number in range(60):
                sock = socket.create_connection(("127.0.0.1", relay.port))
                sock.setblocking(False)
                sockets.append(sock)
                if number % 3 == 1:
                    sock.send(b"GET / HTTP/1.1\r\nHost: x\r\nUpgr")
                elif number % 3 == 2:  # a websocket that never registers
                    sock.send(
                        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                    )
            assert await eventually(lambda: relay.connections == 60)
            async with client(relay.url) as (made, _, _):  # others are served meanwhile
                assert made.connected
            assert await eventually(lambda: relay.connections == 0)
        finally:
            for sock in sockets:
                sock.close()


@asynchronous
async def test_silent_and_stalled_clients_are_dropped():
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(RelayServer(limits=QUICK))
        sender, _, _ = await stack.enter_async_context(client(relay.url, ping_interval=0.3))
        silent = await stack.enter_async_context(by_hand(relay.url))
        await registered(silent, Identity.generate())
        stalled = await stack.enter_async_context(by_hand(relay.url, max_queue=1))
        identity = Identity.generate()
        await registered(stalled, identity)
        assert len(relay.switch.ports) == 3

        async def stall() -> None:
            # It gives credit and pings, but reads nothing.
            while True:
                await stalled.send(m.encode_credit(1, MIB))
                await asyncio.sleep(0.2)

        opening = asyncio.create_task(sender.open_circuit(identity.uuid, 5))
        incoming = m.decode_from_relay(await stalled.recv(decode=False))
        await stalled.send(m.encode(m.Accept(incoming.circuit, MIB)), text=True)
        pipe = await opening
        staller = asyncio.create_task(stall())
        try:
            with pytest.raises(ConnectionError):
                while True:
                    await pipe.send(bytes(64 * KIB))
            counts = relay.switch.counts
            assert await eventually(lambda: counts["cut_silent"] + counts["cut_stalled"] == 2)
            assert counts["cut_stalled"] == 1
            assert sender.connected
        finally:
            staller.cancel()
            await asyncio.gather(staller, return_exceptions=True)


@asynchronous
async def test_idle_clients_stay():
    async with (
        RelayServer(limits=QUICK) as relay,
        client(relay.url, ping_interval=0.3, dead_after=1.2) as (made, _, _),
    ):
        (connection,) = relay._connections
        assert await eventually(lambda: connection.heard - connection.born > 2 * QUICK.silence)
        assert made.connected
        assert made.registrations == 1
        assert made.status.rtt is not None


@asynchronous
async def test_too_many_connections():
    limits = RelayLimits(connections=5, unregistered=3)
    async with RelayServer(limits=limits) as relay, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(client(relay.url))
        idle = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(2)]
        try:
            assert await eventually(lambda: relay.connections == 5)
            with pytest.raises((OSError, WebSocketException)):
                async with by_hand(relay.url, open_timeout=2) as websocket:
                    await websocket.recv()
            assert relay.switch.counts["cut_connections"] >= 1
        finally:
            for sock in idle:
                sock.close()


@asynchronous
async def test_idle_strangers_do_not_keep_others_out():
    async with RelayServer(limits=RelayLimits(unregistered=10)) as relay:
        idle = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(30)]
        try:
            assert await eventually(lambda: relay.switch.counts["cut_unregistered"] == 20)
            async with client(relay.url) as (made, _, _):
                assert made.registrations == 1
        finally:
            for sock in idle:
                sock.close()


@asynchronous
async def test_a_stranger_may_send_little():
    async with RelayServer() as relay, by_hand(relay.url) as websocket:
        await websocket.recv()
        with pytest.raises(ConnectionClosed):
            await websocket.send(bytes(100 * KIB))
            await websocket.recv()
        assert relay.switch.counts["cut_early"] == 1


@asynchronous
async def test_a_fast_sender_is_slowed_and_not_dropped():
    limits = RelayLimits(nbytes=4 * MIB, silence=1.0)
    async with (
        RelayServer(limits=limits) as relay,
        client(relay.url, ping_interval=0.2) as (sender, _, _),
        client(relay.url, ping_interval=0.2) as (_, identity, inbox),
    ):
        pipe = await sender.open_circuit(identity.uuid)
        _, other = await inbox.circuits.get()
        began = asyncio.get_running_loop().time()

        async def send() -> None:
            for _ in range(160):
                await pipe.send(bytes(64 * KIB))

        sending = asyncio.create_task(send())
        for _ in range(160):
            await other.receive()
        await sending
        assert asyncio.get_running_loop().time() - began > 1.0  # 10 MiB, 4 of them at once
        assert (sender.connected, sender.registrations) == (True, 1)


@asynchronous
async def test_browsers_are_refused():
    async with RelayServer() as relay:
        with pytest.raises(InvalidStatus) as refused:
            async with by_hand(relay.url, origin="https://evil.example.org"):
                pass
        assert refused.value.response.status_code == 403


@asynchronous
async def test_health_and_metrics():
    async with RelayServer() as relay, client(relay.url) as (made, identity, inbox):
        await made.signal(identity.uuid, {})
        await inbox.signals.get()
        base = relay.url.replace("ws", "http")
        status, kind, body = await asyncio.to_thread(get, f"{base}/health")
        assert (status, kind) == (200, "application/json")
        health = json.loads(body)
        assert health["status"] == "ok"
        assert health["clients"] == 1
        status, kind, body = await asyncio.to_thread(get, f"{base}/metrics?x=1")
        assert status == 200
        assert kind.startswith("text/plain; version=0.0.4")
        lines = body.splitlines()
        assert "proxystore_relay_clients 1" in lines
        assert "proxystore_relay_signals_total 1" in lines
        assert str(identity.uuid) not in body
        names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
        values = {line.split()[0].partition("{")[0] for line in lines if line[0] != "#"}
        assert values <= names
        status, _, _ = await asyncio.to_thread(get, f"{base}/")
        assert status == 426  # upgrade required


@asynchronous
async def test_tls(tmp_path):
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with RelayServer(ssl_context=context) as relay:
        url = f"wss://localhost:{relay.port}"
        async with (
            client(url, ssl_context=trusting) as (one, _, _),
            client(url, ssl_context=trusting) as (_, identity, inbox),
        ):
            pipe = await one.open_circuit(identity.uuid)
            _, other = await inbox.circuits.get()
            body = os.urandom(60_000)
            for _ in range(20):
                await pipe.send(body)
                assert await other.receive() == body
        async with RelayClient(url, Identity.generate()) as suspicious:
            assert await eventually(lambda: suspicious.last_error is not None)
            assert "certificate" in str(suspicious.last_error)
            assert not suspicious.connected


@asynchronous
async def test_tls_handshakes_that_stall_are_dropped(tmp_path):
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with RelayServer(limits=QUICK, ssl_context=context) as relay:
        sockets = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(5)]
        try:
            for sock in sockets:
                sock.send(b"\x16\x03\x01\x02\x00\x01")
                sock.settimeout(0)

            def dropped() -> bool:
                for sock in sockets:
                    try:
                        if sock.recv(100):
                            return False
                    except BlockingIOError:
                        return False
                    except ConnectionResetError:
                        continue
                return True

            assert await eventually(dropped)
        finally:
            for sock in sockets:
                sock.close()


@asynchronous
async def test_a_relay_that_closes_says_goodbye():
    async with RelayServer() as relay, by_hand(relay.url) as websocket:
        await registered(websocket, Identity.generate())
        closing = asyncio.create_task(relay.close())
        goodbye = m.decode_from_relay(await websocket.recv(decode=False))
        assert goodbye.reason == "shutdown"
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        await closing
