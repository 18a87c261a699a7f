"""The paths to a peer: tried side by side; the first that works is used, a better replaces it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from proxystore_endpoint.exceptions import (
    EndpointError,
    PathError,
    PeerRefusedError,
    PeerUnreachableError,
)
from proxystore_endpoint.peers.addresses import format_address, parse_address
from proxystore_endpoint.peers.peer import RANK, Peer
from proxystore_endpoint.peers.supervise import Tasks
from proxystore_endpoint.peers.types import PeerSettings
from proxystore_endpoint.pipes import Pipe
from proxystore_endpoint.transports.lanes import Lane
from proxystore_endpoint.transports.secured import Bridge
from proxystore_endpoint.transports.tcp import dial

_log = logging.getLogger(__name__)

_STAGGER: Final = 0.05  # seconds between two addresses that are tried side by side


Maker = Callable[[Peer, float], Awaitable[Pipe | socket.socket]]


class Opener(Protocol):
    """Makes a lane of a connected socket: the secure channel, and the peer's consent."""

    async def __call__(
        self, sock: socket.socket, peer: Peer, kind: str, *, timeout: float, remote: str
    ) -> Lane:
        """Open a lane; takes the socket over."""
        ...


class Paths:
    """Makes lanes to peers.

    Args:
        settings: How peers are connected to.
        tasks: Where background tasks run.
        open_lane: Makes a lane of a connected socket.
        addresses: Where a peer may be reached directly.
        pipes: For each other kind of path, how to make a pipe or a connected socket to a peer,
            or why it cannot be tried now.
        found: Called with each new lane.
    """

    def __init__(
        self,
        settings: PeerSettings,
        tasks: Tasks,
        *,
        open_lane: Opener,
        addresses: Callable[[Peer], list[str]],
        pipes: Callable[[], dict[str, Maker | str]],
        found: Callable[[Peer, Lane], None],
    ) -> None:
        self._settings = settings
        self._tasks = tasks
        self._open_lane = open_lane
        self._addresses = addresses
        self._pipes = pipes
        self._found = found

    async def connect(self, peer: Peer) -> None:
        """Race all paths for a first lane.

        Raises:
            PeerRefusedError: The peer answered, and does not let us in.
            PeerUnreachableError: None works.
        """
        await self._race(peer, below=len(RANK))

    async def upgrade(self, peer: Peer, rank: int) -> None:
        """Try paths that are better than a rank."""
        try:
            await self._race(peer, below=rank)
        except EndpointError as error:
            _log.debug("no better path to %s: %s", peer.uuid, error)

    async def spare(self, peer: Peer) -> None:
        """Make one more direct lane, to the address that worked."""
        if peer.direct is not None:
            await self._tcp(peer, [peer.direct])

    async def direct(self, peer: Peer, addresses: Iterable[str]) -> None:
        """Make a direct lane to one of the addresses.

        Raises:
            PathError: None answers.
            PeerRefusedError: The peer does not let us in.
        """
        await self._tcp(peer, list(addresses))

    async def _race(self, peer: Peer, below: int) -> None:
        settings = self._settings
        attempts: dict[asyncio.Task[None], str] = {}

        def start(kind: str, work: Awaitable[None]) -> None:
            peer.paths[kind] = "trying"
            limited = _limited(work, kind, settings.connect_timeout)
            attempts[self._tasks.start(limited, f"{kind}-{peer.uuid}", awaited=True)] = kind

        try:
            if addresses := self._addresses(peer):
                start("tcp", self._tcp(peer, addresses))
                await asyncio.wait(attempts, timeout=settings.head_start)
            else:
                peer.paths["tcp"] = "no address known"
            if not any(_won(task) for task in attempts) and not _refusal(attempts):
                for kind, pipe in self._pipes().items():
                    if RANK[kind] >= below:
                        continue
                    if isinstance(pipe, str):
                        peer.paths[kind] = pipe
                    else:
                        start(kind, self._piped(peer, kind, pipe))
            await self._first(peer, attempts)
        finally:
            self._leave(peer, attempts)

    async def _first(self, peer: Peer, attempts: dict[asyncio.Task[None], str]) -> None:
        pending = set(attempts)
        while True:
            for task in attempts:
                if task.done() and not _won(task):
                    peer.paths[attempts[task]] = str(task.exception() or "cancelled")
            if any(_won(task) for task in attempts):
                return
            if refused := _refusal(attempts):
                raise refused
            pending = {task for task in attempts if not task.done()}
            if not pending:
                break
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        tried = "; ".join(f"{kind}: {_short(kind, why)}" for kind, why in peer.paths.items())
        raise PeerUnreachableError(
            f"Endpoint {peer.uuid} cannot be reached. Tried {tried}.",
            peer=peer.uuid,
            paths=dict(peer.paths),
        )

    def _leave(self, peer: Peer, attempts: dict[asyncio.Task[None], str]) -> None:
        """Cancel what would be worse than what there is; let better ones go on."""
        won = min((RANK[kind] for task, kind in attempts.items() if _won(task)), default=None)
        for task, kind in attempts.items():
            if task.done():
                continue
            if won is None or RANK[kind] > won:
                task.cancel()
                if peer.paths.get(kind) == "trying":
                    peer.paths[kind] = "not needed"
            else:
                self._tasks.start(self._late(peer, task, kind), f"late-{kind}-{peer.uuid}")

    async def _late(self, peer: Peer, task: asyncio.Task[None], kind: str) -> None:
        await asyncio.wait([task])
        if not _won(task):
            peer.paths[kind] = "cancelled" if task.cancelled() else str(task.exception())

    async def _tcp(self, peer: Peer, addresses: list[str]) -> None:
        attempts: set[asyncio.Task[None]] = set()
        errors: list[BaseException] = []
        try:
            waiting = list(addresses)
            while waiting or attempts:
                if waiting:
                    attempts.add(asyncio.ensure_future(self._address(peer, waiting.pop(0))))
                done, attempts = await asyncio.wait(
                    attempts,
                    timeout=_STAGGER if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    if _won(task):
                        return
                    if error := task.exception():
                        errors.append(error)
                        if isinstance(error, PeerRefusedError):
                            raise error
        finally:
            for task in attempts:
                task.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)
        texts = dict.fromkeys(str(error) for error in errors)
        raise PathError("; ".join(texts) or "tcp: no address known", kind="tcp")

    async def _address(self, peer: Peer, address: str) -> None:
        host, port = parse_address(address)
        timeout = self._settings.connect_timeout
        sock = await dial(host, port, timeout=timeout)
        lane = await self._open_lane(sock, peer, "tcp", timeout=timeout, remote=address)
        peer.direct = address
        self._found(peer, lane)

    async def _piped(self, peer: Peer, kind: str, make: Maker) -> None:
        timeout = self._settings.connect_timeout
        made = await make(peer, timeout)
        if isinstance(made, socket.socket):  # TCP, only otherwise come by
            remote = format_address(*made.getpeername()[:2])
            lane = await self._open_lane(made, peer, "tcp", timeout=timeout, remote=remote)
            peer.paths[kind] = "connected"
            self._found(peer, lane)
            return
        bridge = Bridge(made)
        self._tasks.start(bridge.run(), f"bridge-{kind}-{os.urandom(3).hex()}")
        lane = await self._open_lane(bridge.socket, peer, kind, timeout=timeout, remote=kind)
        self._found(peer, lane)


async def _limited(work: Awaitable[None], kind: str, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await work
    except TimeoutError:
        raise PathError(f"{kind}: not connected within {timeout:g} s", kind=kind) from None


def _won(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _refusal(attempts: Iterable[asyncio.Task[None]]) -> PeerRefusedError | None:
    for task in attempts:
        if task.done() and not task.cancelled():
            error = task.exception()
            if isinstance(error, PeerRefusedError):
                return error
    return None


def _short(kind: str, why: str) -> str:
    return why.removeprefix(f"{kind}: ").removeprefix(f"{kind} ")
