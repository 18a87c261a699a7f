"""TCP simultaneous open: a direct connection through NATs and firewalls that let nobody in.

Both sides connect to each other at once, from the ports that they told each other by signalling. To
each one's NAT or firewall the other's SYN then belongs to a connection that it has let out
(RFC 9293 section 3.5, RFC 5382 section 4.2; Ford, Srisuresh and Kegel 2005). It takes a NAT that
keeps the port, or a firewall without NAT; whether all else is right shows when it works.

```
offer   {"type": "punch-offer", "session": ..., "host": address outside, "port": ...}
answer  {"type": "punch-answer", the same}
```

The relay knows our address outside, so that this works where all UDP is blocked.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final

import msgspec

from proxystore_endpoint.exceptions import PathError, SignalingError
from proxystore_endpoint.transports.description import Signal
from proxystore_endpoint.transports.tcp import prepare

KIND: Final = "punch"
OFFER: Final = "punch-offer"
ANSWER: Final = "punch-answer"
TIMEOUT: Final = 5.0
"""Seconds until there is a connection, or there will be none."""
_TRY: Final = 1.0  # seconds for one attempt: longer than any round trip that is worth it
_PAUSE: Final = 0.05  # seconds after one that was refused: the other side had not begun


class _Place(msgspec.Struct, frozen=True):
    session: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    host: Annotated[str, msgspec.Meta(max_length=64)]
    port: Annotated[int, msgspec.Meta(gt=0, lt=65536)]

    def message(self, kind: str) -> dict[str, Any]:
        return {"type": kind, **msgspec.to_builtins(self)}


def outside(observed: str) -> str | None:
    """Return the host of an address `host:port` that others see us come from, if it is of use."""
    host = observed.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if address.is_loopback or address.is_link_local else str(address)


async def offer(signal: Signal, host: str, *, timeout: float = TIMEOUT) -> socket.socket:
    """Connect to a peer that gets our offer.

    Args:
        signal: Carries messages to the peer and back.
        host: Our address outside.
        timeout: Seconds for everything.

    Returns:
        A connected socket, not blocking. Who is at its other end is for the secure channel to
        find out.

    Raises:
        PathError: There is no way through.
        SignalingError: The peer's answer is malformed.
    """
    ours = _bind(host, 0)
    try:
        async with _limit(timeout):
            place = _Place(secrets.token_hex(8), host, ours.getsockname()[1])
            await signal.send(place.message(OFFER))
            while (message := await signal.receive()).get("session") != place.session:
                continue
            return await _connect(ours, host, _read(message, ANSWER))
    except BaseException:
        ours.close()
        raise


async def answer(
    offer: Mapping[str, Any], signal: Signal, host: str, *, timeout: float = TIMEOUT
) -> socket.socket:
    """Connect to a peer that sent an offer; arguments and errors as for `offer`."""
    theirs = _read(offer, OFFER)
    ours = _bind(host, 0)
    try:
        async with _limit(timeout):
            place = _Place(theirs.session, host, ours.getsockname()[1])
            await signal.send(place.message(ANSWER))
            return await _connect(ours, host, theirs)
    except BaseException:
        ours.close()
        raise


def _read(message: Mapping[str, Any], kind: str) -> _Place:
    if message.get("type") != kind:
        raise SignalingError(f"expected {kind}, got {str(message.get('type'))[:64]!r}")
    try:
        place = msgspec.convert(message, _Place)
        ipaddress.ip_address(place.host)
    except (msgspec.ValidationError, ValueError) as error:
        raise SignalingError(f"malformed {kind}: {error}") from error
    return place


@contextlib.asynccontextmanager
async def _limit(timeout: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise PathError(f"no connection within {timeout:g} s", kind=KIND) from error


def _bind(host: str, port: int) -> socket.socket:
    """Bind a socket of the family of an address, to a port of all our own ones."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # further attempts, same port
        prepare(sock)
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104 - no listener
    except OSError as error:
        sock.close()
        raise PathError(f"no port: {error.strerror}", kind=KIND) from error
    return sock


async def _connect(sock: socket.socket, host: str, theirs: _Place) -> socket.socket:
    """Try until it works, each time with a new socket at the same port."""
    loop = asyncio.get_running_loop()
    port = sock.getsockname()[1]
    while True:
        try:
            async with asyncio.timeout(_TRY):
                await loop.sock_connect(sock, (theirs.host, theirs.port))
            if sock.getsockname() != sock.getpeername():
                return sock
        except (OSError, TimeoutError):
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            sock.close()  # it met itself
        await asyncio.sleep(_PAUSE)
        sock = _bind(host, port)
