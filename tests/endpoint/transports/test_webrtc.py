"""The WebRTC pipe between two ends in one process, over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from aioice import ice
from aiortc import RTCSctpTransport
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxystore_endpoint.exceptions import (
    EndpointConfigError,
    MessageTooLargeError,
    PathError,
    PipeClosedError,
    SignalingError,
)
from proxystore_endpoint.pipes import Pipe
from proxystore_endpoint.transports import datachannel, description, sctp, webrtc
from proxystore_endpoint.transports.datachannel import MAX_MESSAGE, PART, WINDOW, DataChannelPipe

LIMIT = 30.0  # seconds for a test's work; it takes a fraction
IPV6_HEADERS = 48  # bytes of IPv6 and UDP

Datagrams = list[bytes]


class Signal:
    """One side's view of signalling that needs no network."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.other: Signal | None = None
        self.sent: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if self.other is not None:
            self.other.inbox.put_nowait(message)

    async def receive(self) -> dict[str, Any]:
        return await self.inbox.get()


def signals() -> tuple[Signal, Signal]:
    one, two = Signal(), Signal()
    one.other, two.other = two, one
    return one, two


async def connect() -> tuple[DataChannelPipe, DataChannelPipe]:
    one, two = signals()

    async def answer() -> DataChannelPipe:
        return await webrtc.answer(await two.receive(), two, [])

    left, right = await asyncio.gather(webrtc.offer(one, []), answer())
    return left, right


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[DataChannelPipe, DataChannelPipe]]:
    left, right = await connect()
    try:
        yield left, right
    finally:
        await asyncio.gather(left.close(), right.close())


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine; no task may be left when it is over."""

    async def all_of_it() -> None:
        async with asyncio.timeout(LIMIT):
            await work()
        for _ in range(3):  # cancelled tasks end in the next turns
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(all_of_it())


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice leaves loopback out, which is all that a test may use."""
    monkeypatch.setattr(ice, "get_host_addresses", lambda **_: ["127.0.0.1"])


@pytest.fixture
def datagrams(monkeypatch: pytest.MonkeyPatch) -> Datagrams:
    """Every datagram that is sent."""
    seen: Datagrams = []
    send = ice.StunProtocol.send_data

    async def record(self: ice.StunProtocol, data: bytes, addr: tuple[str, int]) -> None:
        seen.append(data)
        await send(self, data, addr)

    monkeypatch.setattr(ice.StunProtocol, "send_data", record)
    return seen


@pytest.fixture
def bad_link(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """A link that loses, doubles and swaps datagrams once the DTLS handshake is over."""
    dice = random.Random(5)
    send = ice.StunProtocol.send_data
    held: list[tuple[ice.StunProtocol, bytes, tuple[str, int]]] = []

    async def carry(self: ice.StunProtocol, data: bytes, addr: tuple[str, int]) -> None:
        chance = dice.random()
        if chance < 0.02:
            return
        if chance < 0.04 and not held:
            held.append((self, data, addr))
            return
        await send(self, data, addr)
        if chance < 0.06:
            await send(self, data, addr)
        if held:
            await send(*held.pop())

    monkeypatch.setattr(ice.StunProtocol, "send_data", carry)
    return dice


def test_is_a_pipe() -> None:
    async def work() -> None:
        async with pair() as (left, _):
            assert isinstance(left, Pipe)
            assert (left.kind, left.max_message) == ("webrtc", MAX_MESSAGE)

    run(work)


def test_messages_keep_their_bounds_and_order() -> None:
    sizes = [0, 1, PART - 1, PART, PART + 1, 3 * PART, 0, MAX_MESSAGE, 2]
    messages = [random.Random(n).randbytes(n) for n in sizes]

    async def work() -> None:
        async with pair() as (left, right):

            async def send_all(pipe: DataChannelPipe) -> None:
                for message in messages:
                    await pipe.send(message)

            async def receive_all(pipe: DataChannelPipe) -> list[bytes]:
                return [await pipe.receive() for _ in messages]

            _, _, here, there = await asyncio.gather(
                send_all(left), send_all(right), receive_all(left), receive_all(right)
            )
            assert here == there == messages

    run(work)


def test_memory_may_change_after_send() -> None:
    async def work() -> None:
        async with pair() as (left, right):
            memory = bytearray(b"a" * 100_000)
            await left.send(memoryview(memory))
            memory[:] = b"b" * 100_000
            assert await right.receive() == b"a" * 100_000

    run(work)


def test_too_large_a_message_is_refused() -> None:
    async def work() -> None:
        async with pair() as (left, right):
            with pytest.raises(MessageTooLargeError) as caught:
                await left.send(bytes(MAX_MESSAGE + 1))
            assert caught.value.limit == MAX_MESSAGE
            await left.send(b"next")
            assert await right.receive() == b"next"

    run(work)


def test_sender_waits_for_a_reader_and_goes_on() -> None:
    message = bytes(100_000)
    total = 3 * WINDOW // len(message)

    async def work() -> None:
        async with pair() as (left, right):
            sent = 0

            async def send_all() -> None:
                nonlocal sent
                for _ in range(total):
                    await left.send(message)
                    sent += 1

            sending = asyncio.create_task(send_all())
            quiet, seen = 0, -1
            while quiet < 20:  # until nothing moves any more
                await asyncio.sleep(0.02)
                quiet, seen = (quiet + 1, seen) if right._held == seen else (0, right._held)
            assert not sending.done()
            assert sent * len(message) <= WINDOW
            assert right._held <= WINDOW
            for _ in range(total):
                assert len(await right.receive()) == len(message)
            await sending

    run(work)


def test_all_arrives_over_a_bad_link(bad_link: random.Random) -> None:
    messages = [bad_link.randbytes(bad_link.randrange(60_000)) for _ in range(60)]

    async def work() -> None:
        async with pair() as (left, right):

            async def send_all() -> None:
                for message in messages:
                    await left.send(message)

            sending = asyncio.create_task(send_all())
            assert [await right.receive() for _ in messages] == messages
            await sending

    run(work)


@pytest.mark.parametrize("plain_side", ["offerer", "answerer", "both"])
def test_tuned_and_plain_understand_each_other(
    plain_side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[type] = []

    def make(dtls: Any, port: int, window: int) -> RTCSctpTransport:
        offerer = dtls.transport.role == "controlling"
        plain = plain_side in ("both", "offerer" if offerer else "answerer")
        transport = RTCSctpTransport(dtls, port) if plain else sctp.make_sctp(dtls, port, window)
        made.append(type(transport))
        return transport

    monkeypatch.setattr(datachannel, "make_sctp", make)
    message = random.Random(1).randbytes(500_000)

    async def work() -> None:
        async with pair() as (left, right):
            for one, two in ((left, right), (right, left)):
                sending = asyncio.create_task(one.send(message))
                assert await two.receive() == message
                await sending

    run(work)
    assert len([kind for kind in made if kind is RTCSctpTransport]) == 1 + (plain_side == "both")


def test_this_aiortc_can_be_tuned() -> None:
    async def work() -> None:
        async with pair() as (left, right):
            assert isinstance(left._sctp, sctp.TunedSctpTransport)
            assert isinstance(right._sctp, sctp.TunedSctpTransport)

    run(work)


def test_an_unknown_aiortc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sctp, "_FIELDS", (*sctp._FIELDS, "_not_there"))

    async def work() -> None:
        async with pair() as (left, right):
            assert type(left._sctp) is RTCSctpTransport
            await left.send(b"x" * 50_000)
            assert len(await right.receive()) == 50_000

    run(work)


def test_packets_fit_the_smallest_mtu_of_ipv6(datagrams: Datagrams) -> None:
    async def work() -> None:
        async with pair() as (left, right):
            sending = asyncio.create_task(left.send(bytes(300_000)))
            await right.receive()
            await sending

    run(work)
    assert max(map(len, datagrams)) + IPV6_HEADERS <= 1280
    assert len(datagrams) > 250


def test_what_was_sent_arrives_before_the_end() -> None:
    async def work() -> None:
        left, right = await connect()
        for number in range(50):
            await left.send(bytes([number]) * 5000)
        closing = asyncio.create_task(left.close())
        for number in range(50):
            assert await right.receive() == bytes([number]) * 5000
        with pytest.raises(PipeClosedError, match="peer closed"):
            await right.receive()
        with pytest.raises(PipeClosedError):
            await right.send(b"late")
        await closing
        await right.close()

    run(work)


def test_close_ends_those_who_wait_and_may_be_called_again() -> None:
    async def work() -> None:
        left, right = await connect()
        waiting = asyncio.create_task(left.receive())

        async def send_for_ever() -> None:
            while True:
                await left.send(bytes(100_000))

        stuck = asyncio.create_task(send_for_ever())
        while left._credit > 100_000:
            await asyncio.sleep(0.01)
        await asyncio.gather(left.close(), left.close(), right.close())
        await left.close()
        for task in (waiting, stuck):
            with pytest.raises(PipeClosedError):
                await task

    run(work)


def test_a_peer_that_is_gone_does_not_hold_up_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datachannel, "CLOSE_TIMEOUT", 0.05)

    async def work() -> None:
        left, right = await connect()

        async def swallow(data: bytes, addr: tuple[str, int]) -> None:
            """Lose everything."""

        for protocol in (
            *left._gatherer._connection._protocols,
            *right._gatherer._connection._protocols,
        ):
            protocol.send_data = swallow
        await left.send(b"into the void")
        await asyncio.gather(left.close(), right.close())

    run(work)


def test_a_peer_that_ignores_the_window_is_cut_off() -> None:
    async def work() -> None:
        async with pair() as (left, right):
            left._credit = 10 * WINDOW

            async def flood() -> None:
                while True:
                    await left.send(bytes(MAX_MESSAGE))

            with pytest.raises(PipeClosedError):
                await flood_until_closed(flood, right)

    async def flood_until_closed(
        flood: Callable[[], Awaitable[None]], victim: DataChannelPipe
    ) -> None:
        task = asyncio.ensure_future(flood())
        await victim._ended.wait()
        assert victim._held <= WINDOW + PART
        await victim.close()
        await task

    run(work)


@pytest.mark.parametrize("junk", [b"", b"\x07what", b"\x02\x00", b"\x02" + bytes(9)])
def test_a_peer_that_talks_nonsense_is_cut_off(junk: bytes) -> None:
    async def work() -> None:
        async with pair() as (left, right):
            assert left._channel is not None
            left._channel.send(junk)
            with pytest.raises(PipeClosedError, match="may not"):
                await right.receive()

    run(work)


def test_wrong_certificate_is_refused() -> None:
    async def work() -> None:
        one, two = signals()

        async def answer() -> None:
            message = await two.receive()
            message["fingerprints"] = {"sha-256": ":".join(["00"] * 32)}
            with pytest.raises(PathError, match="DTLS"):
                await webrtc.answer(message, two, [])

        async def offer() -> None:
            with pytest.raises(PathError):
                await webrtc.offer(one, [], timeout=1.0)

        await asyncio.gather(answer(), offer())

    run(work)


def test_nobody_answers() -> None:
    async def work() -> None:
        with pytest.raises(PathError, match="within"):
            await webrtc.offer(Signal(), [], timeout=0.2)

    run(work)


def test_answerer_gives_up_when_the_offerer_is_gone() -> None:
    async def work() -> None:
        one, two = signals()
        offering = asyncio.create_task(webrtc.offer(one, [], timeout=60))
        message = await two.receive()
        offering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await offering
        with pytest.raises(PathError, match="within"):
            await webrtc.answer(message, two, [], timeout=0.5)

    run(work)


def test_refusal_is_told() -> None:
    async def work() -> None:
        one, two = signals()
        offering = asyncio.create_task(webrtc.offer(one, []))
        message = await two.receive()
        await two.send({"session": "another", "type": webrtc.ANSWER})  # ignored
        await two.send(webrtc.refusal(message, "strangers get nothing"))
        with pytest.raises(PathError, match="strangers get nothing"):
            await offering

    run(work)


def test_silent_servers_do_not_hold_up_the_offer() -> None:
    async def work() -> None:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in "ab"]
            for one in silent:
                one.bind(("127.0.0.1", 0))
            stun, turn = (f"127.0.0.1:{one.getsockname()[1]}" for one in silent)
            servers = webrtc.IceServers([f"stun:{stun}", f"turn:{turn}"])
            signal = Signal()
            offering = asyncio.create_task(webrtc.offer(signal, servers, timeout=60.0))
            async with asyncio.timeout(4.5):  # aioice alone waits 5 s
                while not signal.sent:
                    await asyncio.sleep(0.02)
            offering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await offering

    run(work)


def test_offers_hold_small_signals() -> None:
    async def work() -> None:
        signal = Signal()
        with pytest.raises(PathError):
            await webrtc.offer(signal, [], timeout=0.3)
        (message,) = signal.sent
        assert message["type"] == webrtc.OFFER
        assert "127.0.0.1" in message["candidates"][0]
        assert set(message["fingerprints"]) >= {"sha-256"}

    run(work)


@pytest.mark.parametrize(
    "url", ["http://x", "stun:", "stun:a:b", "stun:a:70000", "turn:", "stuns:a"]
)
def test_malformed_servers_are_told(url: str) -> None:
    with pytest.raises(EndpointConfigError):
        webrtc.IceServers([url])


GOOD = {
    "type": webrtc.OFFER,
    "session": "abc",
    "username": "abcd",
    "password": "p" * 22,
    "candidates": ["0 1 udp 1 127.0.0.1 9 typ host"],
    "fingerprints": {"sha-256": "00"},
    "port": 5000,
    "max_message": 65536,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(changes=st.dictionaries(st.sampled_from(sorted(GOOD)), JSON, min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_offer_is_answered_or_refused(changes: dict[str, Any]) -> None:
    async def work() -> None:
        with contextlib.suppress(SignalingError, PathError):
            await webrtc.answer({**GOOD, **changes}, Signal(), [], timeout=0.01)

    asyncio.run(work())


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_million_mutated_offers_are_read_or_refused() -> None:
    dice = random.Random(1)
    good = json.dumps(GOOD).encode()
    for _ in range(1_000_000):
        text = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            text[dice.randrange(len(text))] = dice.randrange(32, 127)
        with contextlib.suppress(ValueError):  # is no JSON at all
            message = json.loads(text)
            if isinstance(message, dict):
                with contextlib.suppress(SignalingError, PathError):
                    description.read(message, webrtc.OFFER)


@pytest.mark.parametrize(
    "candidate",
    [
        "",
        "x",
        "0 1 udp 1 ::::: 9 typ host",
        "0 9 tcp x y z",
        "0 1 udp 1 name.local 9 typ host",
        "0 2 udp 1 127.0.0.1 9 typ host",
        "0 1 udp 1 127.0.0.1 0 typ host",
        "0 1 tcp 1 127.0.0.1 9 typ host",
    ],
)
def test_odd_candidates_are_left_out(candidate: str) -> None:
    assert datachannel._read_candidate(candidate) is None

    async def work() -> None:
        offer = {**GOOD, "candidates": [candidate]}
        with pytest.raises(PathError, match="no pair"):
            await webrtc.answer(offer, Signal(), [], timeout=5.0)

    run(work)
