"""WebRTC: a path through NATs, where neither side has a port that the other can reach.

Both sides tell each other their addresses over a relay's signalling and then send at the same
time, so that each NAT takes the other's packets for answers (ICE, RFC 8445). That works between
NATs with endpoint-independent mapping (see `nat`); else it takes a TURN server, or the relay.

How fast it is: see `sctp`. The packets of aiortc's SCTP, in Python, are the limit, and then loss.
A path that neither port nor relay can give is its use; direct TCP is ten times faster.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from proxystore_endpoint.exceptions import PathError
from proxystore_endpoint.transports.description import (
    ANSWER,
    KIND,
    OFFER,
    Description,
    Signal,
    read,
    read_session,
    refusal,
)
from proxystore_endpoint.transports.ice import IceServer, IceServers

if TYPE_CHECKING:
    from proxystore_endpoint.transports.datachannel import DataChannelPipe

__all__ = [
    "ANSWER",
    "KIND",
    "OFFER",
    "IceServers",
    "Signal",
    "answer",
    "offer",
    "read_session",
    "refusal",
]

TIMEOUT: Final = 15.0
"""Seconds until there is a connection, or there will be none."""

Servers = IceServers | Sequence[IceServer | str] | None


async def offer(
    signal: Signal, ice_servers: Servers = None, *, timeout: float = TIMEOUT
) -> DataChannelPipe:
    """Connect to a peer that gets our offer.

    Args:
        signal: Carries messages to the peer and back; those of other sessions are ignored.
        ice_servers: STUN and TURN servers; `None` for public ones, empty for none. An
            `IceServers` remembers which one answers.
        timeout: Seconds for everything.

    Returns:
        An open pipe. Who is at its other end is for the secure channel inside to find out.

    Raises:
        PathError: There is no way through, or the peer refused.
        SignalingError: The peer's answer is malformed.
    """
    return await _within(timeout, _offer, signal, _servers(ice_servers))


async def answer(
    offer: Mapping[str, Any],
    signal: Signal,
    ice_servers: Servers = None,
    *,
    timeout: float = TIMEOUT,
) -> DataChannelPipe:
    """Connect to a peer that sent an offer; it learns our addresses, so ask first who it is.

    Args:
        offer: Its message, of the type `OFFER`.
        signal: Carries our answer back.
        ice_servers: As for `offer`.
        timeout: Seconds for everything.

    Raises:
        PathError: There is no way through.
        SignalingError: The offer is malformed.
    """
    remote = read(offer, OFFER)
    return await _within(timeout, _answer, signal, _servers(ice_servers), remote)


def _servers(given: Servers) -> IceServers:
    return given if isinstance(given, IceServers) else IceServers(given)


async def _offer(pipe: DataChannelPipe, signal: Signal) -> None:
    session = secrets.token_hex(8)
    await signal.send((await pipe.gather(session)).message(OFFER))
    while (message := await signal.receive()).get("session") != session:
        continue
    await pipe.connect(read(message, ANSWER))


async def _answer(pipe: DataChannelPipe, signal: Signal, remote: Description) -> None:
    await signal.send((await pipe.gather(remote.session)).message(ANSWER))
    await pipe.connect(remote)


async def _within(
    timeout: float,
    connect: Any,
    signal: Signal,
    servers: IceServers,
    *remote: Description,
) -> DataChannelPipe:
    """Make a pipe and connect it; whatever goes wrong, nothing of it is left."""
    pipe: DataChannelPipe | None = None
    try:
        async with asyncio.timeout(timeout):
            # In a thread: it reads hundreds of files, and others use this loop.
            library, stun = await asyncio.gather(
                asyncio.to_thread(
                    importlib.import_module, "proxystore_endpoint.transports.datachannel"
                ),
                servers.choose_stun(),
            )
            pipe = library.DataChannelPipe(stun, servers.turn, controlling=not remote)
            await connect(pipe, signal, *remote)
            return pipe
    except BaseException as error:
        if pipe is not None:
            await pipe.close()
        if isinstance(error, TimeoutError):
            raise PathError(f"no connection within {timeout:g} s", kind=KIND) from error
        raise
