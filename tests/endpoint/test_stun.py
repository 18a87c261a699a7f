"""STUN messages: ours against aioice's, and against whatever may come."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Iterator

import pytest
from aioice import stun as reference
from hypothesis import given
from hypothesis import strategies as st
from proxystore_endpoint import stun

TRANSACTION = bytes(range(12))


def reply(**attributes: object) -> bytes:
    """Return a success as aioice writes it."""
    return bytes(
        reference.Message(
            message_method=reference.Method.BINDING,
            message_class=reference.Class.RESPONSE,
            transaction_id=TRANSACTION,
            attributes={name.replace("_", "-"): value for name, value in attributes.items()},
        )
    )


@pytest.mark.parametrize(
    ("ip", "port", "flags"),
    [(False, False, None), (True, False, 4), (False, True, 2), (True, True, 6)],
)
def test_requests_are_read_by_another_library(ip: bool, port: bool, flags: int | None) -> None:
    data = stun.encode_request(TRANSACTION, change_ip=ip, change_port=port)
    message = reference.parse_message(data)
    assert message.message_method is reference.Method.BINDING
    assert message.message_class is reference.Class.REQUEST
    assert message.transaction_id == TRANSACTION
    assert message.attributes.get("CHANGE-REQUEST") == flags


@pytest.mark.parametrize("address", [("203.0.113.9", 50000), ("2001:db8::7", 1)])
def test_addresses_of_another_library_are_read(address: tuple[str, int]) -> None:
    other = ("198.51.100.1", 3479)
    for data in (
        reply(XOR_MAPPED_ADDRESS=address, OTHER_ADDRESS=other),
        reply(MAPPED_ADDRESS=address, CHANGED_ADDRESS=other),
        reply(SOFTWARE="odd", MAPPED_ADDRESS=("1.2.3.4", 5), XOR_MAPPED_ADDRESS=address) + b"",
    ):
        read = stun.decode_success(data)
        assert read is not None
        assert read[:2] == (TRANSACTION, address)
        assert read[2] in (other, None)


def test_other_messages_are_dropped() -> None:
    request = stun.encode_request(TRANSACTION)
    good = reply(XOR_MAPPED_ADDRESS=("203.0.113.9", 5))
    assert stun.decode_success(good) is not None
    for data in (
        b"",
        request,
        good[:-1],
        good + b"\0",
        good[:4] + b"\0\0\0\0" + good[8:],
        reply(),
        reply(ERROR_CODE=(500, "no")),
    ):
        assert stun.decode_success(data) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_dropped(tail: bytes) -> None:
    header = reply(XOR_MAPPED_ADDRESS=("203.0.113.9", 5))[:20]
    stun.decode_success(tail)
    stun.decode_success(header[:2] + len(tail).to_bytes(2) + header[4:] + tail)


def mutate(count: int) -> int:
    """Read mutations of good answers; return how many were still good."""
    rng = random.Random(count)
    other = ("203.0.113.9", 5)
    good = [
        reply(XOR_MAPPED_ADDRESS=("2001:db8::7", 1), OTHER_ADDRESS=other),
        reply(SOFTWARE="odd", MAPPED_ADDRESS=other, XOR_MAPPED_ADDRESS=other),
    ]
    read = 0
    for _ in range(count):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 255, rng.randrange(256)))
        cut = rng.randrange(len(data)) if rng.random() < 0.2 else len(data)
        read += stun.decode_success(bytes(data[:cut])) is not None
    return read


def test_mutated_answers_never_raise() -> None:
    assert 2_000 < mutate(10_000) < 9_000


@pytest.mark.soak
def test_a_million_mutated_answers_never_raise() -> None:
    mutate(1_000_000)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("stun:a.example", ("a.example", 3478)),
        ("stun:a.example:19302", ("a.example", 19302)),
        ("192.0.2.1:5", ("192.0.2.1", 5)),
        ("stun:[2001:db8::1]:99", ("2001:db8::1", 99)),
    ],
)
def test_urls(url: str, address: tuple[str, int]) -> None:
    assert stun.parse_url(url) == address


@pytest.mark.parametrize("url", ["", "stun:", "turn:a", "stuns:a", "stun:a:0", "stun:a:x", "a/b"])
def test_bad_urls_are_told(url: str) -> None:
    with pytest.raises(ValueError, match=r"STUN server is|A port is"):
        stun.parse_url(url)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as end:
        end.bind(("127.0.0.1", 0))
        end.settimeout(5)
        yield end


def test_requests_are_repeated_and_strangers_ignored(silent: socket.socket) -> None:
    """The first request is "lost", then somebody guesses, then the answer comes."""

    async def work() -> stun.Answer | None:
        asking = await stun.StunSocket.open("127.0.0.1")
        loop = asyncio.get_running_loop()

        def server() -> None:
            first, _ = silent.recvfrom(100)
            again, source = silent.recvfrom(100)
            assert first == again
            silent.sendto(reply(XOR_MAPPED_ADDRESS=("203.0.113.66", 6)), source)
            answer = bytearray(reply(XOR_MAPPED_ADDRESS=("203.0.113.9", 5)))
            answer[8:20] = again[8:20]  # the transaction; it masks IPv6 addresses only
            silent.sendto(answer, source)

        serving = loop.run_in_executor(None, server)
        try:
            answer = await asking.ask(silent.getsockname(), 5.0)
            await serving
            assert not asking._waiting
            return answer
        finally:
            asking.close()
            await asyncio.sleep(0)

    answer = asyncio.run(work())
    assert answer is not None
    assert answer.mapped == ("203.0.113.9", 5)
    assert answer.source == silent.getsockname()


def test_no_answer_within_the_time(silent: socket.socket) -> None:
    async def work() -> None:
        address = silent.getsockname()
        assert await stun.first_to_answer([address], 0.2) is None
        assert await stun.first_to_answer([], 0.2) is None
        assert await stun.first_to_answer([("no..name", 3478)], 0.2) is None
        asking = await stun.StunSocket.open("127.0.0.1")
        with contextlib.closing(asking):
            assert await asking.ask(address, 0.1) is None
        await asyncio.sleep(0)

    asyncio.run(work())
