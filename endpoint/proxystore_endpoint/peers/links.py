"""How an endpoint and its peers get together: who is let in, and where others are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import msgspec

from proxystore_endpoint.exceptions import EndpointError, PathError, WireError
from proxystore_endpoint.grants import Grants
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import DEFAULT, Limits
from proxystore_endpoint.peers.addresses import AddressBook, format_address
from proxystore_endpoint.peers.paths import Maker, Paths
from proxystore_endpoint.peers.peer import Peer
from proxystore_endpoint.peers.serving import Serving
from proxystore_endpoint.peers.signals import Signals
from proxystore_endpoint.peers.supervise import Tasks
from proxystore_endpoint.peers.types import (
    PeerSettings,
    Relay,
)
from proxystore_endpoint.pipes import Pipe
from proxystore_endpoint.storage.types import Provider
from proxystore_endpoint.transports import punch
from proxystore_endpoint.transports.greeter import Greeter
from proxystore_endpoint.transports.guests import Guest
from proxystore_endpoint.transports.handshake import Credentials
from proxystore_endpoint.transports.lanes import Lane
from proxystore_endpoint.transports.opening import open_lane
from proxystore_endpoint.transports.secured import Bridge
from proxystore_endpoint.wire.connection import Connection
from proxystore_endpoint.wire.messages import Auth, Ready

_log = logging.getLogger(__name__)

_TIDY: Final = 1.0
_FAREWELL: Final = 2.0  # seconds that lanes have to say goodbye


class Links:
    """The connections of an endpoint to its peers, both ways; see `Peers`."""

    def __init__(
        self,
        identity: Identity,
        grants: Grants,
        provider: Provider,
        directory: AddressBook | None = None,
        relay: Relay | None = None,
        *,
        limits: Limits = DEFAULT,
        settings: PeerSettings | None = None,
        ice_servers: tuple[Any, ...] = (),
        webrtc: bool = True,
        agent: str = "",
        advertise: tuple[str, ...] = (),
    ) -> None:
        self.relay = relay
        self.directory: Final = AddressBook() if directory is None else directory
        self._identity = identity
        self._grants = grants
        self._provider = provider
        self._settings = settings = PeerSettings() if settings is None else settings
        limits = msgspec.structs.replace(limits, max_window=min(limits.max_window, settings.window))
        self._limits = limits
        self._webrtc = webrtc
        self._agent = agent
        self._advertise = advertise
        self._link = secrets.token_bytes(16)
        self._addresses: list[str] = list(advertise)
        self._peers: dict[UUID, Peer] = {}
        self._lanes: set[Lane] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._tasks = Tasks()
        self._greeter = Greeter(
            identity, self, limits=limits, max_guests=settings.max_handshakes, agent=agent
        )
        self._paths = Paths(
            settings,
            self._tasks,
            open_lane=self._open,
            addresses=self._addresses_of,
            pipes=self._pipes,
            found=self._found,
        )
        self._signals = Signals(
            lambda: self.relay,
            known=self._known,
            addresses=lambda: self._addresses,
            learned=self._learned,
            accepted=self.on_circuit,
            punched=self._punched,
            ice_servers=ice_servers,
        )

    # What the relay's client calls.

    async def on_signal(self, source: UUID, message: dict[str, Any]) -> None:
        """Take a signalling message; the relay vouches for its source."""
        # In a task of its own: an offer takes seconds, and others must not wait for it.
        self._tasks.start(self._signals.take(source, message), f"signal-{source}")

    async def on_circuit(self, source: UUID, pipe: Pipe) -> None:
        """Take a pipe that another endpoint made to us."""
        if self._closed or not self._known(source):
            await pipe.close()
            return
        bridge = Bridge(pipe)
        self._tasks.start(bridge.run(), f"bridge-{pipe.kind}-{source}")
        self._greeter.add(bridge.socket, kind=pipe.kind, remote=pipe.kind, expected=source)

    def _known(self, peer: UUID) -> bool:
        # Members of a group, and who has a ticket, are known only by what they show when they
        # connect.
        return (
            self._wanted(peer)
            or self._grants.peer(peer) is not None
            or bool(self._grants.groups())
            or self._grants.inviting()
        )

    def _wanted(self, peer: UUID) -> bool:
        """Whether this side wants to reach a peer, so that it may also be the one to connect."""
        known = self._peers.get(peer)
        return peer in self.directory or (known is not None and known.wanted)

    # What the greeter calls, in its thread.

    def admit(self, peer: UUID, auth: Auth, guest: Guest) -> Ready:
        """Let a peer in that has proved its id, or raise; see `greeter.Doorkeeper`."""
        known = self._peers.get(peer)
        if known is not None and len(known.lanes) >= self._settings.max_peer_lanes:
            raise EndpointError(f"Endpoint {peer} has {len(known.lanes)} lanes here already.")
        if self._wanted(peer) and not auth.ticket:
            admission = self._grants.admission(peer, auth.memberships)  # with what rights it has
        else:
            admission = self._grants.admit(peer, auth.memberships, auth.ticket)
        guest.admission = admission
        return Ready(
            rights=sorted(admission.rights()),
            memberships=self._grants.memberships(),
            addresses=self._addresses[:16],
        )

    def welcome(
        self, peer: UUID, auth: Auth, sock: ssl.SSLSocket, connection: Connection, guest: Guest
    ) -> None:
        """Take over a connection that is ready; see `greeter.Doorkeeper`."""
        if guest.admission is None or self._loop is None:
            raise PathError("not admitted", kind=guest.kind)
        lane = Lane(
            sock,
            connection,
            peer=peer,
            kind=guest.kind,
            outbound=False,
            handler=Serving(
                self._provider, guest.admission, ended=self._lane_ended, large=self._large
            ),
            agent=auth.agent,
            remote=guest.remote,
        )
        self._loop.call_soon_threadsafe(self._add, lane)
        lane.start()

    # Lanes.

    def _add(self, lane: Lane) -> None:
        self._lanes.add(lane)
        if self._closed:
            lane.kill()
        else:
            self._peer(lane.peer).add(lane)

    def _found(self, peer: Peer, lane: Lane) -> None:
        self._add(lane)

    def _lane_ended(self, lane: Lane, error: WireError | None) -> None:
        self._soon(self._remove, lane, str(error or ""))

    def _remove(self, lane: Lane, why: str) -> None:
        self._lanes.discard(lane)
        if peer := self._peers.get(lane.peer):
            peer.remove(lane, why)

    def _large(self, lane: Lane) -> None:
        self._soon(self._large_body, lane)

    def _large_body(self, lane: Lane) -> None:
        if peer := self._peers.get(lane.peer):
            peer.large_body(lane)

    def _soon(self, function: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody cares
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *args)

    async def _open(
        self, sock: socket.socket, peer: Peer, kind: str, *, timeout: float, remote: str
    ) -> Lane:
        known = self._grants.peer(peer.uuid)
        ticket = known.ticket if known is not None else b""
        credentials = Credentials(
            identity=self._identity,
            memberships=tuple(self._grants.memberships()),
            ticket=ticket,
            agent=self._agent,
        )
        lane, done = await open_lane(
            sock,
            peer.uuid,
            credentials,
            lambda ready: Serving(
                self._provider,
                self._grants.admission(peer.uuid, ready.memberships),
                ended=self._lane_ended,
                large=self._large,
            ),
            kind=kind,
            limits=self._limits,
            timeout=timeout,
            link=self._link,
            number=len(peer.lanes),
            remote=remote,
        )
        self.directory.learn(peer.uuid, done.ready.addresses)
        if ticket:
            await asyncio.to_thread(self._grants.accepted, peer.uuid)
        return lane

    # Where peers are.

    def _peer(self, uuid: UUID) -> Peer:
        peer = self._peers.get(uuid)
        if peer is None:
            peer = self._peers[uuid] = Peer(
                uuid,
                self._settings,
                self._tasks,
                connect=self._paths.connect,
                spare=self._paths.spare,
                upgrade=self._paths.upgrade,
            )
        return peer

    def _addresses_of(self, peer: Peer) -> list[str]:
        entry, known = self.directory.entry(peer.uuid), self._grants.peer(peer.uuid)
        granted = known.addresses if known is not None else ()
        return list(dict.fromkeys((*entry.addresses, *granted, *entry.learned)))

    def _pipes(self) -> dict[str, Maker | str]:
        relay = self.relay
        if relay is None or not relay.connected:
            why = "no relay is configured" if relay is None else "the relay is not there"
            return dict.fromkeys(("punch", "webrtc", "relay"), why)
        off = None if self._webrtc else "switched off"
        return {
            "punch": off or self._by_punch,
            "webrtc": off or self._by_webrtc,
            "relay": self._by_relay,
        }

    async def _by_punch(self, peer: Peer, timeout: float) -> socket.socket:
        return await self._signals.punch(peer.uuid, min(timeout, punch.TIMEOUT))

    async def _punched(self, source: UUID, sock: socket.socket) -> None:
        """Take a socket that another endpoint and we connected at once."""
        if self._closed:
            sock.close()
            return
        remote = format_address(*sock.getpeername()[:2])
        self._greeter.add(sock, kind="tcp", remote=remote, expected=source)

    async def _by_webrtc(self, peer: Peer, timeout: float) -> Pipe:
        return await self._signals.offer(peer.uuid, timeout)

    async def _by_relay(self, peer: Peer, timeout: float) -> Pipe:
        if self.relay is None:
            raise PathError("relay: none is configured", kind="relay")
        self._tasks.start(
            self._signals.tell_addresses(peer.uuid, reply=True), f"addresses-{peer.uuid}"
        )
        return await self.relay.open_circuit(peer.uuid, timeout)

    def _learned(self, source: UUID, addresses: list[str]) -> None:
        if not (self._wanted(source) or self._grants.peer(source) or source in self._peers):
            return  # nobody yet whom we would connect to
        peer = self._peer(source)
        self.directory.learn(source, addresses)
        if addresses and not any(lane.kind == "tcp" for lane in peer.lanes):
            self._tasks.start(self._meet(peer, addresses), f"meet-{source}")

    async def _meet(self, peer: Peer, addresses: list[str]) -> None:
        """Try a direct path to a peer that tells where it is: it may not be able to reach us."""
        try:
            await self._paths.direct(peer, addresses)
        except EndpointError as error:
            _log.debug("no direct path to %s: %s", peer.uuid, error)
