"""Signalling between peers, carried by the relay: addresses, and WebRTC's offers and answers.

Messages are JSON objects with a `type`: `addresses` (`addresses`: list of `host:port`,
`reply`: whether an answer is wanted), `webrtc` and `punch` (`session`: text, `message`: an object
of that transport). Others are ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from proxystore_endpoint.exceptions import EndpointError, PathError
from proxystore_endpoint.peers.types import Relay
from proxystore_endpoint.pipes import Pipe
from proxystore_endpoint.transports import punch, webrtc

_log = logging.getLogger(__name__)

_QUEUE: Final = 64  # messages of one session that may wait
_SESSIONS: Final = 64  # that others may have open with us
_REMEMBERED: Final = 1024  # peers whose last addresses we know the time of
_PAUSE: Final = 2.0  # seconds between two answers to one peer's addresses


class Signal:
    """Signalling of one session: what the transport of a kind sends and receives by."""

    def __init__(self, relay: Relay, to: UUID, session: str, kind: str) -> None:
        self._relay = relay
        self._to = to
        self._kind = kind
        self._session = session
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_QUEUE)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message to the other side."""
        await self._relay.signal(
            self._to, {"type": self._kind, "session": self._session, "message": dict(message)}
        )

    async def receive(self) -> dict[str, Any]:
        """Return the next message of the other side."""
        return await self._queue.get()

    def feed(self, message: dict[str, Any]) -> None:
        """Take a message that came."""
        if not self._queue.full():  # else the other side does not keep to the protocol
            self._queue.put_nowait(message)


class Signals:
    """Sends and takes signalling messages.

    Args:
        relay: The relay, or None.
        known: Whether a peer may signal to us.
        addresses: Our own TCP addresses.
        learned: Called with the addresses that a peer told.
        accepted: Called with each pipe that a peer made to us.
        punched: Called with each connected socket that a peer and we made together.
        ice_servers: For WebRTC.
    """

    def __init__(
        self,
        relay: Callable[[], Relay | None],
        *,
        known: Callable[[UUID], bool],
        addresses: Callable[[], list[str]],
        learned: Callable[[UUID, list[str]], None],
        accepted: Callable[[UUID, Pipe], Awaitable[None]],
        punched: Callable[[UUID, socket.socket], Awaitable[None]],
        ice_servers: tuple[Any, ...] = (),
    ) -> None:
        self._relay = relay
        self._known = known
        self._addresses = addresses
        self._learned = learned
        self._accepted = accepted
        self._punched = punched
        self._ice_servers = webrtc.IceServers(ice_servers)  # remembers which one answers
        self._sessions: dict[tuple[UUID, str], Signal] = {}
        self._answered: dict[UUID, float] = {}

    def _need(self) -> Relay:
        relay = self._relay()
        if relay is None:
            raise PathError("relay: none is configured", kind="relay")
        return relay

    async def tell_addresses(self, to: UUID, *, reply: bool) -> None:
        """Tell a peer where we are, so that it may connect to us; its answer tells where it is."""
        message = {"type": "addresses", "addresses": self._addresses(), "reply": reply}
        try:
            await self._need().signal(to, message)
        except EndpointError as error:
            _log.debug("no signal to %s: %s", to, error)

    async def offer(self, to: UUID, timeout: float) -> Pipe:
        """Make a data channel to a peer.

        Raises:
            PathError: It cannot be made.
        """
        with self._session(to, webrtc.KIND) as signal:
            return await webrtc.offer(signal, self._ice_servers, timeout=timeout)

    async def punch(self, to: UUID, timeout: float) -> socket.socket:
        """Connect to a peer by TCP while it connects to us.

        Raises:
            PathError: It is not possible.
        """
        with self._session(to, punch.KIND) as signal:
            return await punch.offer(signal, self._outside(), timeout=timeout)

    def _outside(self) -> str:
        host = punch.outside(self._need().status.observed)
        if host is None:
            raise PathError("the relay does not see where we are", kind=punch.KIND)
        return host

    @contextlib.contextmanager
    def _session(self, to: UUID, kind: str, session: str | None = None) -> Iterator[Signal]:
        key = (to, secrets.token_hex(8) if session is None else session)
        signal = self._sessions[key] = Signal(self._need(), *key, kind)
        try:
            yield signal
        finally:
            del self._sessions[key]

    async def take(self, source: UUID, message: Mapping[str, Any]) -> None:
        """Take a message from a peer. Malformed ones, and strangers', are dropped."""
        if not self._known(source):
            _log.debug("signal of %s dropped: not known here", source)
            return
        kind = message.get("type")
        if kind == "addresses":
            await self._take_addresses(source, message)
        elif kind in (webrtc.KIND, punch.KIND):
            await self._take_session(source, kind, message)

    async def _take_addresses(self, source: UUID, message: Mapping[str, Any]) -> None:
        addresses = message.get("addresses")
        if not isinstance(addresses, list):
            return
        found = [text for text in addresses[:16] if isinstance(text, str) and len(text) <= 256]
        now = time.monotonic()
        if now - self._answered.get(source, 0.0) < _PAUSE:
            return
        if len(self._answered) > _REMEMBERED:
            self._answered.clear()
        self._answered[source] = now
        self._learned(source, found)
        if message.get("reply") is True:
            await self.tell_addresses(source, reply=False)

    async def _take_session(self, source: UUID, kind: str, message: Mapping[str, Any]) -> None:
        session, inner = message.get("session"), message.get("message")
        if not isinstance(session, str) or len(session) > 64 or not isinstance(inner, dict):
            return
        if signal := self._sessions.get((source, session)):
            signal.feed(inner)
            return
        if len(self._sessions) >= _SESSIONS:
            _log.info("offer of %s dropped: too many sessions", source)
            return
        try:
            with self._session(source, kind, session) as signal:
                if kind == punch.KIND:
                    made = await punch.answer(inner, signal, self._outside())
                    await self._punched(source, made)
                else:
                    pipe = await webrtc.answer(inner, signal, self._ice_servers)
                    await self._accepted(source, pipe)
        except EndpointError as error:
            _log.debug("no %s with %s: %s", kind, source, error)
