"""STUN binding requests over UDP (RFC 8489), with what RFC 5780 adds to learn of a NAT.

```
0       type: 0x0001 request, 0x0101 success, 0x0111 error
2       length of what follows the header
4       magic cookie 0x2112A442
8       transaction id, 12 bytes
20      attributes: u16 type, u16 length, value, padding to 4 bytes
```
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

STUN_PORT = 3478
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_COOKIE = 0x2112A442
_REQUEST, _SUCCESS = 0x0001, 0x0101
_MAPPED, _CHANGE, _XOR_MAPPED, _OTHER = 0x0001, 0x0003, 0x0020, 0x802C
_OLD_OTHER = 0x0005  # CHANGED-ADDRESS of RFC 3489, which servers still send
_CHANGE_IP, _CHANGE_PORT = 0x04, 0x02
_RETRY = 0.25  # seconds until the first repetition, doubled each time

Address = tuple[str, int]


class Answer(NamedTuple):
    """What a STUN server says.

    Attributes:
        mapped: Our address as the server sees it.
        other: Its second address, if it has one: then it can tell how a NAT filters.
        source: Where the answer came from.
        rtt: Seconds that it took.
    """

    mapped: Address
    other: Address | None
    source: Address
    rtt: float


def encode_request(
    transaction: bytes, *, change_ip: bool = False, change_port: bool = False
) -> bytes:
    """Return a binding request.

    Args:
        transaction: 12 random bytes.
        change_ip: Ask for the answer from the server's other IP address.
        change_port: Ask for the answer from its other port.
    """
    flags = _CHANGE_IP * change_ip | _CHANGE_PORT * change_port
    body = struct.pack("!HHI", _CHANGE, 4, flags) if flags else b""
    return _HEADER.pack(_REQUEST, len(body), _COOKIE, transaction) + body


def decode_success(data: bytes) -> tuple[bytes, Address, Address | None] | None:
    """Read a success; return its transaction, our address and the server's other one.

    Whatever else it is, and whatever its bytes are, the result is `None`.
    """
    if len(data) < _HEADER.size:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind != _SUCCESS or cookie != _COOKIE or length != len(data) - _HEADER.size:
        return None
    found = dict(_attributes(data))
    mask = data[4:20]
    mapped = _address(found.get(_XOR_MAPPED), mask) or _address(found.get(_MAPPED))
    other = _address(found.get(_OTHER)) or _address(found.get(_OLD_OTHER))
    return (transaction, mapped, other) if mapped else None


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = _HEADER.size
    while at + _ATTRIBUTE.size <= len(data):
        kind, length = _ATTRIBUTE.unpack_from(data, at)
        at += _ATTRIBUTE.size
        if at + length <= len(data):
            yield kind, data[at : at + length]
        at += length + -length % 4


def _address(value: bytes | None, mask: bytes = bytes(16)) -> Address | None:
    """Read (XOR-)MAPPED-ADDRESS: a zero, family, port, IPv4 or IPv6 address."""
    if value is None or len(value) not in (8, 20) or value[1] != (1 if len(value) == 8 else 2):
        return None
    port = int.from_bytes(value[2:4]) ^ int.from_bytes(mask[:2])
    host = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    return str(ipaddress.ip_address(host)), port


def parse_url(url: str) -> Address:
    """Take `stun:host[:port]`, or just `host[:port]`, apart.

    Raises:
        ValueError: It is neither, or wants TLS (`stuns:`), which is of no use here.
    """
    text = url.removeprefix("stun:")
    host, _, port = text.partition("]:") if text.startswith("[") else text.partition(":")
    host = host.strip("[]")
    if not host or (port and not port.isdecimal()) or "/" in text:
        raise ValueError(f"A STUN server is stun:host or stun:host:port, not {url!r}.")
    if port and not 0 < int(port) < 65536:
        raise ValueError(f"A port is a number from 1 to 65535, not {port}.")
    return host, int(port or STUN_PORT)


async def resolve(servers: Iterable[Address], timeout: float) -> dict[Address, Address | None]:
    """Return the IPv4 address of each server, `None` for names that have none.

    Args:
        servers: Names or addresses, and ports.
        timeout: Seconds for all of them.
    """
    loop = asyncio.get_running_loop()

    async def one(host: str, port: int) -> Address | None:
        with contextlib.suppress(OSError, UnicodeError):
            family, kind = socket.AF_INET, socket.SOCK_DGRAM
            found = await loop.getaddrinfo(host, port, family=family, type=kind)
            return str(found[0][4][0]), port
        return None

    tasks = {server: asyncio.create_task(one(*server)) for server in dict.fromkeys(servers)}
    if not tasks:
        return {}
    _, late = await asyncio.wait(tasks.values(), timeout=timeout)
    for task in late:
        task.cancel()
    return {server: None if task in late else task.result() for server, task in tasks.items()}


class StunSocket(asyncio.DatagramProtocol):
    """A UDP socket that asks STUN servers; use `StunSocket.open()`, and close it."""

    _transport: asyncio.DatagramTransport  # from `open`

    def __init__(self) -> None:
        self._waiting: dict[bytes, asyncio.Future[tuple[Address, Address | None, Address]]] = {}

    @classmethod
    async def open(cls, host: str = "0.0.0.0", port: int = 0) -> StunSocket:  # noqa: S104 - asks only
        """Bind a socket.

        Raises:
            OSError: The address is not ours, or taken.
        """
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            cls, local_addr=(host, port), family=socket.AF_INET
        )
        protocol._transport = transport
        return protocol

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take an answer to a request of ours; drop all else."""
        read = decode_success(data)
        if read is None:
            return
        transaction, mapped, other = read
        future = self._waiting.get(transaction)
        if future is not None and not future.done():
            future.set_result((mapped, other, addr[:2]))

    def error_received(self, exc: Exception) -> None:
        """Ignore what ICMP says: another try may get through, and the deadline is short."""

    @property
    def address(self) -> Address:
        """Where the socket is bound."""
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    async def ask(
        self,
        server: Address,
        timeout: float,
        *,
        change_ip: bool = False,
        change_port: bool = False,
    ) -> Answer | None:
        """Ask a server for our address; repeat while there is time, for UDP loses packets.

        Returns:
            Its answer, or `None` if there was none within `timeout` seconds.
        """
        loop = asyncio.get_running_loop()
        transaction = secrets.token_bytes(12)
        future = self._waiting[transaction] = loop.create_future()
        request = encode_request(transaction, change_ip=change_ip, change_port=change_port)
        begin = sent = loop.time()
        pause = _RETRY
        try:
            while (left := begin + timeout - sent) > 0:
                self._transport.sendto(request, server)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(pause, left)):
                        mapped, other, source = await asyncio.shield(future)
                        return Answer(mapped, other, source, loop.time() - sent)
                pause, sent = pause * 2, loop.time()
        finally:
            del self._waiting[transaction]
            future.cancel()
        return None

    def close(self) -> None:
        """Close the socket."""
        self._transport.close()


async def first_to_answer(servers: Iterable[Address], timeout: float) -> Address | None:
    """Ask servers side by side; return the address of the first that answers, if any does.

    Args:
        servers: Names or addresses, and ports.
        timeout: Seconds until none is as good as there.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    resolved = await resolve(servers, timeout)
    found = {address for address in resolved.values() if address is not None}
    if not found:
        return None
    asking = await StunSocket.open()
    try:
        left = max(0.05, deadline - loop.time())
        tasks = [asyncio.create_task(asking.ask(server, left)) for server in found]
        try:
            for done in asyncio.as_completed(tasks):
                if (answer := await done) is not None:
                    return answer.source
        finally:
            for task in tasks:
                task.cancel()
        return None
    finally:
        asking.close()
