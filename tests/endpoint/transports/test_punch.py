"""What goes wrong with TCP connections that both sides begin.

On loopback they hardly ever meet: whoever comes first is refused at once. Where packets that
nobody asked for are dropped, they do: see `test_nat_endpoints`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import Any

import pytest
from proxystore_endpoint.exceptions import PathError, SignalingError
from proxystore_endpoint.transports import punch

HERE = "127.0.0.1"
OFFER = {"type": punch.OFFER, "session": "s", "host": HERE, "port": 9}


class Signal:
    """Signalling that keeps what is sent and gives what is put in."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.put_nowait(message)

    async def receive(self) -> dict[str, Any]:
        return await self.inbox.get()


def test_nobody_there() -> None:
    async def work() -> None:
        with pytest.raises(PathError, match="within"):
            await punch.offer(Signal(), HERE, timeout=0.2)
        with socket.socket() as unused:
            unused.bind((HERE, 0))
            offer = {**OFFER, "port": unused.getsockname()[1]}
            with pytest.raises(PathError, match="within"):
                await punch.answer(offer, Signal(), HERE, timeout=0.3)

    asyncio.run(work())


def test_it_does_not_meet_itself() -> None:
    async def work() -> None:
        signal = Signal()
        offering = asyncio.create_task(punch.offer(signal, HERE, timeout=0.5))
        message = await signal.sent.get()
        signal.inbox.put_nowait({**message, "type": punch.ANSWER})  # with our own address
        with pytest.raises(PathError, match="within"):
            await offering

    asyncio.run(work())


@pytest.mark.parametrize(
    "change",
    [
        {"type": punch.ANSWER},
        {"port": 0},
        {"port": "9"},
        {"host": "name.example"},
        {"host": ""},
        {"session": ""},
    ],
)
def test_malformed_offers_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SignalingError):
        asyncio.run(punch.answer({**OFFER, **change}, Signal(), HERE))


@pytest.mark.soak
def test_a_million_mutated_offers_are_read_or_refused() -> None:
    dice = random.Random(3)
    odd = [None, "", 0, -1, 70_000, [], {}, "::1", "\0", 1.5, True, "x" * 500, punch.OFFER]
    for _ in range(1_000_000):
        offer = {**OFFER, dice.choice(list(OFFER)): dice.choice(odd)}
        with contextlib.suppress(SignalingError):
            punch._read(offer, punch.OFFER)


@pytest.mark.parametrize(
    ("observed", "host"),
    [
        ("203.0.113.9:5", "203.0.113.9"),
        ("[2001:db8::7]:5", "2001:db8::7"),
        ("127.0.0.1:5", None),
        ("[::1]:5", None),
        ("", None),
        ("somewhere:5", None),
    ],
)
def test_address_outside(observed: str, host: str | None) -> None:
    assert punch.outside(observed) == host
