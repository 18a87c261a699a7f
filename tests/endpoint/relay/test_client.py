"""An endpoint's side of the relay: circuits, and coming back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from http import HTTPStatus
from uuid import uuid4

import pytest
from proxystore_endpoint.exceptions import (
    EndpointConfigError,
    MessageTooLargeError,
    PathError,
    PipeClosedError,
    RelayError,
    RelayLimitError,
    RelayMessageError,
    RelayRefusedError,
    RelayReplacedError,
    RelayUnreachableError,
    UnknownDestinationError,
)
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import KIB, MAX_CIRCUIT_MESSAGE, MAX_SIGNAL, MIB
from proxystore_endpoint.pipes import Pipe
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay.auth import SharedSecret
from proxystore_endpoint.relay.backoff import Backoff
from proxystore_endpoint.relay.client import RelayClient
from proxystore_endpoint.relay.limits import RelayLimits
from proxystore_endpoint.relay.pipe import MESSAGE
from proxystore_endpoint.relay.server import RelayServer
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from tests.endpoint.relay.support import (
    asynchronous,
    by_hand,
    client,
    eventually,
    mutated,
    registered,
    relay_process,
)


@contextlib.asynccontextmanager
async def two(**options: object) -> AsyncIterator[tuple]:
    """A relay and two clients with a circuit between them, both ends."""
    async with (
        RelayServer(limits=RelayLimits(**options)) as relay,  # type: ignore[arg-type]
        client(relay.url) as (one, _, _),
        client(relay.url) as (_, identity, inbox),
    ):
        near = await one.open_circuit(identity.uuid)
        _, far = await inbox.circuits.get()
        yield relay, one, inbox, near, far


@asynchronous
async def test_signals():
    async with (
        RelayServer() as relay,
        client(relay.url) as (one, first, first_inbox),
        client(relay.url) as (other, second, second_inbox),
    ):
        await one.signal(second.uuid, {"type": "offer", "sdp": "v=0 ü"})
        assert await second_inbox.signals.get() == (
            first.uuid,
            {"type": "offer", "sdp": "v=0 ü"},
        )
        for number in range(50):
            await other.signal(first.uuid, {"number": number})
        got = [(await first_inbox.signals.get())[1]["number"] for _ in range(50)]
        assert got == list(range(50))
        with pytest.raises(UnknownDestinationError) as unknown:
            await one.signal(uuid4(), {})
        assert unknown.value.address == relay.url
        with pytest.raises(RelayMessageError):
            await one.signal(second.uuid, {"a": "x" * MAX_SIGNAL})


@asynchronous
async def test_too_many_signals_are_a_limit():
    async with (
        RelayServer(limits=RelayLimits(signals=1.0)) as relay,
        client(relay.url) as (one, identity, _),
    ):
        with pytest.raises(RelayLimitError, match="rate"):
            for _ in range(10):
                await one.signal(identity.uuid, {})


@asynchronous
async def test_a_handler_that_fails_ends_nothing():
    async def fail(source: object, message: object) -> None:
        raise RuntimeError("handler")

    async with (
        RelayServer() as relay,
        client(relay.url, on_signal=fail, on_circuit=fail) as (one, first, _),
        client(relay.url) as (other, _, _),
    ):
        await other.signal(first.uuid, {})
        pipe = await other.open_circuit(first.uuid)
        await pipe.send(b"x")
        await other.signal(first.uuid, {})
        assert await eventually(lambda: one.connected and one.registrations == 1)


@asynchronous
async def test_a_handler_outlives_the_relay_and_not_the_client():
    begun, goon, done, ended = (asyncio.Event() for _ in range(4))

    async def handle(source: object, message: dict) -> None:
        begun.set()
        try:
            await goon.wait()
            done.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with RelayServer() as relay:
        async with client(relay.url, on_signal=handle) as (one, identity, _):
            await one.signal(identity.uuid, {})
            await begun.wait()
            await relay.close()
            assert await one.wait_disconnected(5)
            goon.set()
            await done.wait()
            assert not ended.is_set()
        assert ended.is_set()


@asynchronous
async def test_a_circuit_is_a_pipe():
    async with two() as (_, _, _, near, far):
        assert isinstance(near, Pipe)
        assert (near.kind, near.max_message) == ("relay", MESSAGE)
        for body in (b"", b"x", os.urandom(1000), os.urandom(MESSAGE)):
            await near.send(body)
            await far.send(memoryview(body))
            assert await far.receive() == body
            got = await near.receive()
            assert got == body
            assert type(got) is bytes
        memory = bytearray(b"first")
        await near.send(memoryview(memory))
        memory[:] = b"other"
        assert await far.receive() == b"first"
        with pytest.raises(MessageTooLargeError):
            await near.send(bytes(MESSAGE + 1))


@asynchronous
async def test_a_relay_may_take_less_at_once():
    async with two(payload=1000) as (_, _, _, near, far):
        assert (near.max_message, far.max_message) == (1000, 1000)
        await near.send(bytes(1000))
        assert await far.receive() == bytes(1000)
        with pytest.raises(MessageTooLargeError):
            await near.send(bytes(1001))


@asynchronous
async def test_much_data_both_ways_on_many_circuits():
    async with (
        RelayServer() as relay,
        client(relay.url) as (one, _, _),
        client(relay.url) as (_, identity, inbox),
    ):
        pairs = []
        for _ in range(10):
            near = await one.open_circuit(identity.uuid)
            pairs.append((near, (await inbox.circuits.get())[1]))

        async def send(pipe: Pipe, mark: int) -> None:
            for number in range(60):
                await pipe.send(bytes([mark, number]) + bytes(60 * KIB))
            await pipe.close()

        async def check(pipe: Pipe, mark: int) -> None:
            for number in range(60):
                message = await pipe.receive()
                assert message[:2] == bytes([mark, number])
                assert len(message) == 60 * KIB + 2
            with pytest.raises(PipeClosedError):
                await pipe.receive()

        async with asyncio.TaskGroup() as group:
            for number, (near, far) in enumerate(pairs):
                pipes = (near, far) if number % 2 else (far, near)
                group.create_task(send(pipes[0], number))
                group.create_task(check(pipes[1], number))
        assert await eventually(lambda: relay.switch.held == 0)


@asynchronous
async def test_a_receiver_that_does_not_take_stops_only_its_own_senders():
    async with two() as (relay, one, inbox, near, far):
        sent = 0

        async def push() -> None:
            nonlocal sent
            while True:
                await near.send(bytes(64 * KIB))
                sent += 1

        pushing = asyncio.create_task(push())
        before = -1
        while before != sent:  # until it is stuck
            before = sent
            for _ in range(200):
                await asyncio.sleep(0.001)
        assert 0 < sent * 64 * KIB < 12 * MIB  # a window at the relay, one at the receiver
        assert relay.switch.held < 12 * MIB
        again = await one.open_circuit(near.peer)
        _, quick = await inbox.circuits.get()
        for _ in range(300):  # through the same two websockets
            await again.send(bytes(64 * KIB))
            assert len(await quick.receive()) == 64 * KIB
        for _ in range(sent):
            await far.receive()
        assert await eventually(lambda: sent > before)  # it goes on
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)


@asynchronous
async def test_what_was_sent_arrives_before_the_end():
    async with two() as (relay, _, _, near, far):
        for number in range(20):
            await near.send(b"%d" % number)
        await near.close()
        await near.close()
        assert [await far.receive() for _ in range(20)] == [b"%d" % n for n in range(20)]
        with pytest.raises(PipeClosedError, match="closed"):
            await far.receive()
        with pytest.raises(PipeClosedError):
            await far.send(b"x")
        with pytest.raises(PipeClosedError, match="this side"):
            await near.send(b"x")
        await far.close()
        assert await eventually(lambda: not relay.switch.circuits)


@asynchronous
async def test_close_wakes_who_waits():
    async with two() as (_, _, _, near, _):

        async def fill() -> None:
            while True:
                await near.send(bytes(MESSAGE))

        waiting = [asyncio.create_task(near.receive()), asyncio.create_task(fill())]
        assert await eventually(lambda: near._credit < MESSAGE)
        await near.close()
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, PipeClosedError)


@asynchronous
async def test_a_refused_circuit():
    async with (
        RelayServer() as relay,
        client(relay.url, on_circuit=None) as (_, identity, _),
        client(relay.url) as (one, own, _),
    ):
        with pytest.raises(PathError, match="refused"):
            await one.open_circuit(identity.uuid)
        with pytest.raises(PathError, match="refused"):
            await one.open_circuit(own.uuid)
        with pytest.raises(UnknownDestinationError):
            await one.open_circuit(uuid4())
        assert one.status.circuits == 0


@asynchronous
async def test_a_circuit_that_is_given_up():
    async with RelayServer() as relay, client(relay.url) as (one, _, _):
        identity = Identity.generate()
        async with by_hand(relay.url) as websocket:
            await registered(websocket, identity)
            with pytest.raises(PathError, match="did not answer"):
                await one.open_circuit(identity.uuid, timeout=0.2)
            incoming = m.decode_from_relay(await websocket.recv(decode=False))
            await websocket.send(m.encode(m.Accept(incoming.circuit, MIB)), text=True)
            closed = m.decode_from_relay(await websocket.recv(decode=False))
            assert closed == m.Closed(incoming.circuit, "given up")
            opening = asyncio.create_task(one.open_circuit(identity.uuid))
            incoming = m.decode_from_relay(await websocket.recv(decode=False))
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await websocket.send(m.encode(m.Accept(incoming.circuit, MIB)), text=True)
            closed = m.decode_from_relay(await websocket.recv(decode=False))
            assert closed == m.Closed(incoming.circuit, "given up")
        assert one.status.circuits == 0


@asynchronous
async def test_a_peer_that_goes_ends_its_circuits():
    async with RelayServer() as relay, client(relay.url) as (one, _, _):
        async with client(relay.url) as (_, identity, inbox):
            pipe = await one.open_circuit(identity.uuid)
            await inbox.circuits.get()
        with pytest.raises(PipeClosedError, match="gone"):
            await pipe.receive()
        assert one.connected


@asynchronous
async def test_without_a_relay_only_the_relay_fails():
    # Port 9 of this host: nobody listens there.
    async with RelayClient("ws://127.0.0.1:9", Identity.generate()) as lonely:
        assert not await lonely.wait_connected(0.1)
        for call in (lonely.signal(uuid4(), {}), lonely.open_circuit(uuid4(), 1)):
            with pytest.raises(RelayUnreachableError, match=r"127\.0\.0\.1:9"):
                await call
        assert not lonely.status.connected
        assert "127.0.0.1:9" in lonely.status.error


@asynchronous
async def test_it_comes_back_after_the_relay_was_killed():
    with relay_process() as relay:
        async with (
            client(relay.url) as (one, _, _),
            client(relay.url) as (other, identity, inbox),
        ):
            pipe = await one.open_circuit(identity.uuid)
            _, far = await inbox.circuits.get()
            waiting = asyncio.create_task(far.receive())
            relay.kill()
            with pytest.raises(PipeClosedError, match="relay"):
                await waiting
            with pytest.raises(PipeClosedError, match="relay"):
                await pipe.receive()
            assert await one.wait_disconnected(5)
            with pytest.raises(RelayUnreachableError):
                await one.open_circuit(identity.uuid)
            await asyncio.to_thread(relay.start)
            assert await one.wait_connected(10)
            assert await other.wait_connected(10)
            again = await one.open_circuit(identity.uuid)
            _, far = await inbox.circuits.get()
            await again.send(b"again")
            assert await far.receive() == b"again"
            assert (one.registrations, one.last_error) == (2, None)


@asynchronous
async def test_a_relay_that_hangs_counts_as_gone():
    with relay_process() as relay:
        options = {"ping_interval": 0.2, "dead_after": 0.6, "connect_timeout": 0.5}
        async with client(relay.url, **options) as (one, identity, _):
            relay.signal(signal.SIGSTOP)
            try:
                with pytest.raises((RelayUnreachableError, PathError)):
                    await one.signal(identity.uuid, {}, timeout=10)
                assert await one.wait_disconnected(5)
                assert await eventually(lambda: "does not answer" in str(one.last_error))
            finally:
                relay.signal(signal.SIGCONT)
            assert await one.wait_connected(10)


@asynchronous
async def test_a_relay_that_is_not_served_now():
    async def unavailable(connection: object, request: object) -> object:
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "come later\n")  # type: ignore[attr-defined]

    async def nothing(websocket: object) -> None:
        return

    async with serve(nothing, "127.0.0.1", 0, process_request=unavailable) as front:
        port = front.sockets[0].getsockname()[1]
        one = RelayClient(f"ws://127.0.0.1:{port}", Identity.generate(), backoff=Backoff(0.02, 0.1))
        await one.start()
        try:
            assert await eventually(lambda: "503" in str(one.last_error))
            front.close()
            await front.wait_closed()
            relay = RelayServer()
            await relay.start(port=port)
            try:
                assert await one.wait_connected(10)
            finally:
                await relay.close()
        finally:
            await one.close()


@pytest.mark.parametrize(
    "first",
    [b"garbage", b"{}", b"", m.encode(m.Pong(1)), m.encode(m.Goodbye("full"))],
    ids=repr,
)
@asynchronous
async def test_what_is_no_relay_is_said(first):
    async def strange(websocket: object) -> None:
        await websocket.send(first)  # type: ignore[attr-defined]
        await websocket.wait_closed()  # type: ignore[attr-defined]

    async with serve(strange, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        async with RelayClient(
            f"ws://127.0.0.1:{port}", Identity.generate(), backoff=Backoff(0.02, 0.1)
        ) as one:
            assert await eventually(lambda: isinstance(one.last_error, RelayError))
            before = one.last_error
            assert await eventually(lambda: one.last_error is not before)  # it tries again


@asynchronous
async def test_a_relay_that_sends_too_much_is_left():
    identity = Identity.generate()
    done = asyncio.Event()

    async def flood(websocket: object) -> None:
        send = websocket.send  # type: ignore[attr-defined]
        await send(m.encode(m.Challenge(bytes(32))))
        await websocket.recv()  # type: ignore[attr-defined]
        await send(m.encode(m.Welcome(identity.uuid)))
        await send(m.encode(m.Incoming(1, uuid4(), MIB)))
        with contextlib.suppress(ConnectionError, Exception):
            for _ in range(100):
                await send(m.encode_data(1, bytes(MAX_CIRCUIT_MESSAGE)))
        done.set()

    async def idle(source: object, pipe: Pipe) -> None:
        await done.wait()

    async with serve(flood, "127.0.0.1", 0, max_size=None) as other:
        port = other.sockets[0].getsockname()[1]
        async with RelayClient(
            f"ws://127.0.0.1:{port}", identity, on_circuit=idle, backoff=Backoff(5, 5)
        ) as one:
            assert await eventually(lambda: isinstance(one.last_error, RelayMessageError))
            assert "credit" in str(one.last_error)


async def play(frames: list[bytes], identity: Identity, websocket: object) -> None:
    """A relay that welcomes a client and then says something."""
    await websocket.send(m.encode(m.Challenge(bytes(32))))  # type: ignore[attr-defined]
    await websocket.recv()  # type: ignore[attr-defined]
    await websocket.send(m.encode(m.Welcome(identity.uuid)))  # type: ignore[attr-defined]
    for frame in frames:
        await websocket.send(frame)  # type: ignore[attr-defined]


@asynchronous
async def test_a_client_survives_a_relay_that_sends_garbage():
    identity, rng = Identity.generate(), random.Random(9)
    body = m.encode_body({"a": 1})
    right = [
        m.encode(message)
        for message in (
            *(m.Incoming(number, uuid4(), MIB) for number in range(3)),
            *(m.Closed(number, "x") for number in range(3)),
            *(m.Signalled(uuid4(), body), m.Pong(1), m.Result(1), m.Opened(1, 5, MIB)),
            *(m.Goodbye("replaced"), m.Challenge(bytes(32)), m.Welcome(identity.uuid)),
        )
    ]
    right += [m.encode_data(1, bytes(100)), m.encode_credit(1, 2**32 - 1)]
    joined = 0

    async def strange(websocket: object) -> None:
        nonlocal joined
        joined += 1
        frames = [
            rng.choice(right) if rng.random() < 0.3 else mutated(rng, right) for _ in range(200)
        ]
        with contextlib.suppress(ConnectionClosed):
            await play(frames, identity, websocket)
            await websocket.wait_closed()  # type: ignore[attr-defined]

    async def read(source: object, pipe: Pipe) -> None:
        with contextlib.suppress(PipeClosedError):
            while True:
                await pipe.receive()

    async with serve(strange, "127.0.0.1", 0) as other:
        address = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        quick = Backoff(0.001, 0.001, 0.001)
        async with RelayClient(address, identity, on_circuit=read, backoff=quick) as one:
            assert await eventually(lambda: joined >= 60, timeout=30)
            assert one.registrations >= 50


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([m.encode(m.Incoming(1, uuid4(), 1))] * 2, "twice"),
        ([m.encode(m.Welcome(uuid4()))], "twice"),
        ([b"\x01"], "shorter"),
    ],
    ids=["circuit", "welcome", "data"],
)
@asynchronous
async def test_a_relay_that_breaks_the_protocol_is_left(frames, text):
    identity, pipes = Identity.generate(), []

    async def strange(websocket: object) -> None:
        await play(frames, identity, websocket)
        await websocket.wait_closed()  # type: ignore[attr-defined]

    async def keep(source: object, pipe: Pipe) -> None:
        pipes.append(pipe)

    async with serve(strange, "127.0.0.1", 0) as other:
        address = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        async with RelayClient(address, identity, on_circuit=keep, backoff=Backoff(60, 60)) as one:
            assert await eventually(lambda: one.last_error is not None)
            assert isinstance(one.last_error, RelayMessageError)
            assert text in str(one.last_error)
            for pipe in pipes:
                with pytest.raises(PipeClosedError):
                    await pipe.receive()


@asynchronous
async def test_two_with_one_identity_do_not_throw_each_other_out_in_turn():
    identity = Identity.generate()
    async with RelayServer() as relay, client(relay.url, identity) as (older, _, _):
        async with client(relay.url, identity) as (newer, _, _):
            assert await eventually(lambda: isinstance(older.last_error, RelayReplacedError))
            # It keeps asking, and is told that the id is taken.
            counts = relay.switch.counts
            assert await eventually(lambda: counts["refused_taken"] >= 2)
            assert (newer.connected, newer.registrations) == (True, 1)
            assert counts["replaced"] == 1
        assert await older.wait_connected(10)  # the newer one left
        async with client(relay.url, identity):
            assert await eventually(lambda: not older.connected)


@asynchronous
async def test_wrong_credentials_are_said_and_tried_again():
    secret = SharedSecret(b"s" * 16)
    quick = Backoff(0.02, 0.1, refused=0.02)
    async with RelayServer(authenticator=secret) as relay:
        async with client(relay.url, auth=SharedSecret(b"s" * 16)) as (right, _, _):
            assert right.connected
        for auth, text in ((SharedSecret(b"t" * 16), "another one"), (None, "'secret'")):
            async with RelayClient(
                relay.url, Identity.generate(), auth=auth, backoff=quick
            ) as wrong:
                assert await eventually(lambda: isinstance(wrong.last_error, RelayRefusedError))
                assert text in str(wrong.last_error)
                assert not wrong.connected


@asynchronous
async def test_retry_does_not_wait():
    async with RelayServer() as relay:
        port = relay.port
        async with client(relay.url, backoff=Backoff(1000, 1000)) as (one, _, _):
            await relay.close()
            assert await one.wait_disconnected(5)
            async with RelayServer() as again:
                await again.close()
                await again.start(port=port)
                one.retry()
                assert await one.wait_connected(5)


@asynchronous
async def test_a_client_that_closes_is_gone():
    async with RelayServer() as relay:
        async with client(relay.url) as (one, _, _):
            assert len(relay.switch.ports) == 1
        assert not one.connected
        assert await eventually(lambda: not relay.switch.ports)
        await one.close()
        with pytest.raises(RelayUnreachableError):
            await one.signal(uuid4(), {})


@pytest.mark.parametrize(
    "address",
    ["", "relay.example.org", "http://relay.example.org", "wss://", "ws://h:99999", "wss://[::1"],
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(EndpointConfigError, match="wss://"):
        RelayClient(address, Identity.generate())


def test_backoff_is_quick_first_and_never_too_long():
    error = RelayUnreachableError("x")
    longest = Backoff(uniform=lambda low, high: high)
    waits = [longest.next(error) for _ in range(40)]
    assert waits[0] <= 0.5
    assert waits == sorted(waits)
    assert sum(waits[:4]) < 5
    assert max(waits) + 7.0 < 15.0  # with one more try that times out
    longest.reset()
    assert longest.next(error) == waits[0]
    refused = [longest.next(RelayRefusedError("x")) for _ in range(10)]
    assert refused[0] >= 15
    assert refused[-1] == 16 * refused[0]
    jittered = Backoff()
    assert len({jittered.next(error) for _ in range(20)}) == 20
