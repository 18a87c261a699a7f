from __future__ import annotations

import asyncio
import socket

import pytest
from proxystore_endpoint.exceptions import PathError
from proxystore_endpoint.transports.tcp import dial, own_addresses


def test_dial_connects() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            sock = await dial("127.0.0.1", server.getsockname()[1], timeout=5)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            sock.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [("127.0.0.1", 1, "refused"), ("nowhere.invalid", 1, "tcp nowhere.invalid:1: .+")],
)
def test_dial_says_why_not(host: str, port: int, why: str) -> None:
    with pytest.raises(PathError, match=why) as caught:
        asyncio.run(dial(host, port, timeout=5))
    assert caught.value.kind == "tcp"


def test_dial_gives_up_in_time() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
            port = server.getsockname()[1]
            held: list[socket.socket] = []

            async def fill() -> None:
                while True:  # until its backlog is full
                    held.append(await dial("127.0.0.1", port, timeout=0.3))

            with pytest.raises(PathError, match=r"no answer in 0.3 s"):
                await fill()
            for sock in held:
                sock.close()

    asyncio.run(run())


def test_own_addresses_are_those_that_others_can_use() -> None:
    assert own_addresses("10.1.2.3", 80) == ["10.1.2.3:80"]
    assert own_addresses("fd00::1", 80) == ["[fd00::1]:80"]
    found = own_addresses("0.0.0.0", 80)
    assert found
    assert all(address.endswith(":80") and not address.startswith("0.") for address in found)
