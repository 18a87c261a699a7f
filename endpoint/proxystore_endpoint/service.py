"""What a daemon runs: an endpoint with its storage, peers, relay, control socket and REST API."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from proxystore_core import __version__
from proxystore_endpoint.app import Access, HttpServer, create_app
from proxystore_endpoint.config import (
    ENDPOINT_GRANTS_FILE,
    ENDPOINT_IDENTITY_FILE,
    ENDPOINT_TOKEN_FILE,
    EndpointConfig,
    EndpointRelayICEServerConfig,
    make_token,
    read_token,
)
from proxystore_endpoint.endpoint import Endpoint
from proxystore_endpoint.exceptions import EndpointConfigError
from proxystore_endpoint.grants import Grants
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.nat import PUBLIC_STUN_SERVERS
from proxystore_endpoint.peers import AddressBook
from proxystore_endpoint.peers.peers import Peers
from proxystore_endpoint.relay.auth import make_credentials
from proxystore_endpoint.relay.client import RelayClient
from proxystore_endpoint.running import (
    CONTROL_SOCKET,
    Running,
    make_runtime_dir,
    node_name,
    process_started,
)
from proxystore_endpoint.secure import server_context
from proxystore_endpoint.storage import Storage
from proxystore_endpoint.tasks import Tasks

if TYPE_CHECKING:
    from proxystore_endpoint.local.server import LocalServer

_LOG = logging.getLogger(__name__)
AGENT = f"proxystore-core {__version__}"
_SYNC_S = 1.0
_GREET_S = 20.0
_GREET_FIRST_S, _GREET_LONGEST_S = 1.0, 60.0
_LONGEST_TICK_S = 5.0


class Service:
    """All of an endpoint, on one event loop.

    Args:
        directory: The endpoint's directory.
        config: Its configuration.

    Raises:
        EndpointConfigError: The configuration cannot be used here.
        IdentityFileError: The identity key cannot.
    """

    def __init__(self, directory: Path, config: EndpointConfig) -> None:
        self.directory = directory
        self.config = config
        self.identity = Identity.load(directory / ENDPOINT_IDENTITY_FILE)
        if str(self.identity.uuid) != config.uuid:
            raise EndpointConfigError(
                f"{directory} is configured for endpoint {config.uuid}, but its key is that of "
                f"{self.identity.uuid}. Copy both files of an endpoint, or none.",
                path=str(directory),
                field="uuid",
            )
        self.tasks = Tasks()
        self.runtime_dir = make_runtime_dir(config.uuid)
        self.grants = Grants(directory / ENDPOINT_GRANTS_FILE)
        self.book = AddressBook(
            {UUID(peer): known.addresses for peer, known in config.peers.items()}
        )
        self.relay: RelayClient | None = None
        self.peers: Peers | None = None
        self.storage: Storage
        self.endpoint: Endpoint
        self.http: HttpServer
        self.local: LocalServer
        self._closers: list[Callable[[], Any]] = []
        self._greeting: set[UUID] = set()

    async def start(self) -> Running:
        """Begin to serve, and return where.

        Raises:
            EndpointConfigError: An address cannot be listened on, or a limit is unusable.
        """
        try:
            return await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> Running:
        from proxystore_endpoint.local.server import LocalServer

        self.storage = await asyncio.to_thread(make_storage, self.config, self.directory)
        self._closers.append(lambda: asyncio.to_thread(self.storage.close))
        for problem in self.storage.problems():
            _LOG.warning("%s", problem)
        if self.config.peering.enabled:
            await self._start_peers()
        self.endpoint = Endpoint(
            self.identity.uuid,
            self.config.name,
            self.storage,
            self.peers,
            trust_copies=self.config.storage.keep_copies,
        )
        control = self.runtime_dir / CONTROL_SOCKET
        self.local = LocalServer(self.endpoint, control)
        await self.local.start()
        self._closers.append(self.local.close)
        self._start_http()
        self.tasks.keep("the clock of the storage", self._tick)
        self._closers.append(self.tasks.close)
        if self.peers is not None:
            self.tasks.keep("the list of peers", self._sync)
        return Running(
            pid=os.getpid(),
            started=process_started(os.getpid()) or "",
            node=node_name(),
            hostname=socket.gethostname(),
            url=self.http.url,
            control=str(control),
            peer_port=self._peer_port(),
            version=__version__,
            since=time.time(),
        )

    async def _start_peers(self) -> None:
        relay = self.config.relay
        servers = relay.ice_servers
        if servers is None:
            servers = [EndpointRelayICEServerConfig(urls=list(PUBLIC_STUN_SERVERS))]
        peers = Peers(
            self.identity,
            self.grants,
            self.storage,
            self.book,
            ice_servers=tuple(servers),
            webrtc=self.config.peering.webrtc,
            agent=AGENT,
            advertise=tuple(self.config.peering.advertise),
        )
        self.peers = peers
        await self._use_relay(relay.address)
        host, port = self.config.peering.host, self.config.peering.port
        try:
            await peers.start(host, port)
        except OSError as error:
            _LOG.warning(
                "Peers cannot be taken on %s:%d (%s); any other port then.", host, port, error
            )
            await peers.start(host, 0)
        self._closers.append(peers.close)

    async def _use_relay(self, address: str | None) -> None:
        """Register at a relay, the first that is named."""
        if self.relay is not None or not address or self.peers is None:
            return
        auth = self.config.relay.auth
        client = RelayClient(
            address,
            self.identity,
            auth=make_credentials(auth.method, auth.kwargs),
            ssl_context=relay_context(self.config),
            on_signal=self.peers.on_signal,
            on_circuit=self.peers.on_circuit,
            agent=AGENT,
        )
        self.relay = self.peers.relay = client
        await client.start()
        self._closers.append(client.close)

    def _start_http(self) -> None:
        config = self.config
        host = config.bind_host()
        token_file = self.directory / ENDPOINT_TOKEN_FILE
        token = read_token(self.directory) if token_file.exists() else make_token(self.directory)
        access = Access(
            token,
            host,
            allowed_hosts=config.allowed_hosts,
            allowed_origins=config.allowed_origins,
        )
        app = create_app(self.endpoint, access, status=self.status)
        tls = None if is_loopback(host) else https_context(self.identity)
        try:
            self.http = HttpServer(app, host, config.port, tls=tls)
        except OSError as error:
            raise EndpointConfigError(
                f"The REST API cannot listen on {host}:{config.port}: {error.strerror or error}. "
                "Stop what uses the port, or change host and port in config.toml.",
                path=str(self.directory),
                field="port",
            ) from error
        serving = asyncio.create_task(self.http.run(), name="REST API")

        async def stop() -> None:
            self.http.stop()
            await asyncio.gather(serving, return_exceptions=True)

        self._closers.append(stop)

    async def _tick(self) -> None:
        while True:
            due = await asyncio.to_thread(self.storage.tick)
            pause = _LONGEST_TICK_S if due is None else min(max(due, 0.05), _LONGEST_TICK_S)
            await asyncio.sleep(pause)

    async def _sync(self) -> None:
        """Follow what `accept` wrote down: tickets, and the relay that they name."""
        while True:
            for peer, grant in self.grants.peers().items():
                if grant.relay and not self.config.relay.address:
                    await self._use_relay(grant.relay)
                if grant.ticket and peer not in self._greeting:
                    self._greeting.add(peer)
                    self.tasks.once(f"greeting {peer}", self._greet(peer))
            await asyncio.sleep(_SYNC_S)

    async def _greet(self, peer: UUID) -> None:
        """Connect to a peer whose ticket we have, before the ticket ends."""
        pause = _GREET_FIRST_S
        try:
            while self.peers is not None:
                grant = self.grants.peer(peer)
                if grant is None or not grant.ticket:
                    return
                try:
                    await self.peers.connect(peer, timeout=_GREET_S)
                except (OSError, TimeoutError) as error:
                    _LOG.info("Peer %s, whose ticket we have, is not there yet: %s", peer, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _GREET_LONGEST_S)
        finally:
            self._greeting.discard(peer)

    def _peer_port(self) -> int:
        addresses = [] if self.peers is None else self.peers.addresses
        return int(addresses[0].rpartition(":")[2]) if addresses else 0

    def status(self) -> dict[str, Any]:
        """Return all there is to know, of JSON types."""
        status = self.endpoint.status()
        names = {peer: grant.name for peer, grant in self.grants.peers().items() if grant.name}
        names.update({UUID(p): known.name for p, known in self.config.peers.items() if known.name})
        for peer in status["peers"]:
            peer["name"] = names.get(UUID(peer["uuid"]), "")
        relay = None if self.relay is None else self.relay.status._asdict()
        return {
            **status,
            "pid": os.getpid(),
            "url": self.http.url,
            "control": str(self.runtime_dir / CONTROL_SOCKET),
            "relay": relay,
            "addresses": self.addresses(),
            "grants": len(self.grants.peers()) + len(self.grants.groups()),
            "restarts": self.tasks.restarts,
            "problems": self.storage.problems(),
        }

    def addresses(self) -> list[str]:
        """Return the addresses at which peers may try to reach this endpoint directly."""
        return [] if self.peers is None else list(self.peers.addresses)

    def idle_for(self) -> float:
        """Return the seconds since the endpoint was last of use to anybody; 0 if it is now."""
        usage = self.storage.usage()
        if self.endpoint.using or usage.objects or usage.in_flight or self.local.clients:
            return 0.0
        return time.monotonic() - self.endpoint.last_used

    async def close(self) -> None:
        """Stop serving and let go of everything, in the reverse order of `start`."""
        while self._closers:
            closer = self._closers.pop()
            try:
                await closer()
            except Exception:  # noqa: BLE001 - logged; the daemon lives on
                _LOG.exception("Stopping went wrong; going on.")


def make_storage(config: EndpointConfig, directory: Path) -> Storage:
    """Open the storage of an endpoint."""
    import tempfile

    storage = config.storage
    spill = None
    if storage.spill:
        base = storage.spill_dir or f"{tempfile.gettempdir()}/proxystore-spill-{os.getuid()}"
        spill = str(directory / base)
    persist = None if storage.persist_dir is None else str(directory / storage.persist_dir)
    return Storage(
        config.uuid,
        memory_quota=storage.memory_quota,
        copies_quota=storage.copies_quota,
        object_limit=storage.max_object_size,
        in_flight_limit=storage.in_flight_limit,
        disk_quota=storage.disk_quota,
        spill_dir=spill,
        persist_dir=persist,
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)


def https_context(identity: Identity) -> ssl.SSLContext:
    """Return the TLS context of a REST API that others than this machine reach."""
    context = server_context(identity)
    context.set_alpn_protocols(["http/1.1"])
    return context


def relay_context(config: EndpointConfig) -> ssl.SSLContext | None:
    """Return the TLS context for the relay; `None` for the usual one."""
    relay = config.relay
    if relay.address is None or relay.address.startswith("ws:"):
        return None
    if relay.verify_certificate and relay.ca_file is None:
        return None
    context = ssl.create_default_context(cafile=relay.ca_file)
    if not relay.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
