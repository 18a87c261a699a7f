"""The server of the control socket, on the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from proxystore_core import __version__
from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.exceptions import (
    AccessDeniedError,
    EndpointConfigError,
    EndpointRunningError,
    LocalProtocolError,
    ReservationError,
)
from proxystore_endpoint.local import messages as m
from proxystore_endpoint.local.backend import Backend
from proxystore_endpoint.storage.rooms import Room
from proxystore_endpoint.storage.types import StoredObject

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_THREADS = 8  # for what waits for the disk
_BACKLOG = 512
_MAX_ROOMS = 64  # reservations of one connection
_UCRED = struct.Struct("3i")


class LocalServer:
    """Serves the processes of this user on this node.

    Args:
        backend: The endpoint.
        path: Path of the socket, in a directory that only this user can enter.
    """

    def __init__(self, backend: Backend, path: str | os.PathLike[str]) -> None:
        self.backend = backend
        self.path = Path(path)
        self.pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="local")
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def clients(self) -> int:
        """Number of connections that are open."""
        return len(self.connections)

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            EndpointRunningError: Another process does, on the same path.
            EndpointConfigError: The path cannot be used.
        """
        listener = _listen(self.path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Connection(self), sock=listener, backlog=_BACKLOG
        )

    async def close(self) -> None:
        """Stop, and end all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self.path.unlink(missing_ok=True)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.get_running_loop().run_in_executor(None, self.pool.shutdown)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as other:
            other.settimeout(1)
            other.connect(str(path))
            raise EndpointRunningError(f"Another process serves {path}: stop that endpoint first.")
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise EndpointConfigError(
            f"The control socket {path} cannot be made ({error}). Its path may have about 100 "
            "characters, on a local file system.",
            path=str(path),
        ) from error
    except BaseException:
        listener.close()
        raise
    return listener


class _Connection(asyncio.Protocol):
    """One client: it asks, and is answered, one request after the other."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._backend = server.backend
        self._storage = server.backend.storage
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._rooms: dict[int, Room] = {}
        self._numbers = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check who it is."""
        self._transport = transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        if not _is_same_user(transport.get_extra_info("socket")):
            denied = AccessDeniedError("Only the user of the endpoint may use this socket.")
            transport.write(m.encode(m.to_failure(denied)))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the client had reserved, and stop what it waits for."""
        self._server.connections.discard(self)
        if self._task is not None:
            self._task.cancel()
        rooms, self._rooms = self._rooms, {}
        for room in rooms.values():
            room.abandon()

    def abort(self) -> None:
        """End the connection."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        self._buffer += data
        self._go_on()
        if self._task is not None and len(self._buffer) > m.MAX_REQUEST:
            # Only then: while it is read from, it shows when the client goes away.
            self._transport.pause_reading()

    def _go_on(self) -> None:
        while self._task is None and not self._transport.is_closing():
            if len(self._buffer) < m.LENGTH.size:
                return
            length = m.LENGTH.unpack_from(self._buffer)[0]
            if length > m.MAX_REQUEST:
                self._refuse(LocalProtocolError(f"A request of {length} bytes is too long."))
                return
            end = m.LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[m.LENGTH.size : end])
            del self._buffer[:end]
            try:
                request = m.decode_request(body)
            except LocalProtocolError as error:
                self._refuse(error)
                return
            self._serve(request)

    def _refuse(self, error: LocalProtocolError) -> None:
        self._transport.write(m.encode(m.to_failure(error)))
        self._transport.close()

    def _serve(self, request: m.Request) -> None:
        """Answer at once what takes microseconds; all else in a task."""
        try:
            answer = _HANDLERS[type(request)](self, request)
        except Exception as error:  # noqa: BLE001 - the client is told, the others are served
            self._reply(m.to_failure(error))
            return
        if isinstance(answer, Awaitable):
            self._task = asyncio.ensure_future(self._finish(answer))
        else:
            self._reply(answer)

    async def _finish(self, answer: Awaitable[m.Reply]) -> None:
        try:
            reply: m.Reply = await answer
        except Exception as error:  # noqa: BLE001 - the client is told, the others are served
            reply = m.to_failure(error)
        self._task = None
        if not self._transport.is_closing():
            self._reply(reply)
            self._transport.resume_reading()
            self._go_on()

    def _reply(self, reply: m.Reply) -> None:
        self._transport.write(m.encode(reply))

    async def _in_thread(self, act: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._server.pool, act)

    # What clients ask for.

    def hello(self, _request: m.Hello) -> m.Reply:
        return m.Welcome(
            endpoint_id=self._backend.endpoint_id,
            version=m.VERSION,
            release=__version__,
            pid=os.getpid(),
            memory=self._storage.memory_config(),
            object_limit=self._storage.object_limit,
            durability=self._storage.default_durability,
        )

    def commit(self, request: m.Commit) -> m.Reply | Awaitable[m.Reply]:
        durability: Any = request.durability
        if request.room:
            room = self._rooms.pop(request.room, None)
            if room is None:
                raise ReservationError(f"There is no reservation {request.room}.")
            filled = room
            return self._committed(lambda: filled.publish(ttl=request.ttl, durability=durability))

        def act() -> Any:
            return self._storage.commit(
                request.key, request.nbytes, ttl=request.ttl, durability=durability
            )

        if (durability or self._storage.default_durability) == "durable" or self._is_slow(
            request.key
        ):
            return self._committed(act)
        return m.Committed(*act())

    async def _committed(self, act: Callable[[], Any]) -> m.Reply:
        return m.Committed(*await self._in_thread(act))

    def _is_slow(self, key: str) -> bool:
        """Tell whether who uses an object may have to wait, for the disk or for others."""
        stat = self._storage.stat(key)
        durable = stat is not None and stat.durability == "durable"
        return durable or self._storage.busy(key)

    def make_room(self, request: m.MakeRoom) -> Awaitable[m.Reply]:
        attempt = max(0, min(request.attempt, 8))
        return self._answer(
            self._in_thread(lambda: self._storage.make_room(request.nbytes, attempt))
        )

    async def reserve(self, request: m.Reserve) -> m.Reply:
        if len(self._rooms) >= _MAX_ROOMS:
            raise ReservationError("This connection has too many reservations.")
        durability: Any = request.durability
        room = await self._in_thread(
            lambda: self._storage.reserve_file(request.key, request.nbytes, durability)
        )
        if self._transport.is_closing():
            room.abandon()  # there is nobody any more to give it back
            raise ReservationError("The connection was closed.")
        self._numbers += 1
        self._rooms[self._numbers] = room
        return m.Granted(self._numbers, str(room.path))

    def abandon(self, request: m.Abandon) -> m.Reply:
        room = self._rooms.pop(request.room, None)
        if room is not None:
            room.abandon()
        return m.Answer(room is not None)

    def fetch(self, request: m.Fetch) -> m.Reply | Awaitable[m.Reply]:
        if request.endpoint_id != self._backend.endpoint_id:
            return self._fetch(request)
        if self._is_slow(request.key):  # it may have to be read and checked first
            return self._open(request)
        return self._found(self._storage.open(request.key), request)

    async def _open(self, request: m.Fetch) -> m.Reply:
        return self._found(await self._in_thread(lambda: self._storage.open(request.key)), request)

    async def _fetch(self, request: m.Fetch) -> m.Reply:
        found = await self._backend.get(request.key, request.endpoint_id, timeout=request.timeout)
        return self._found(found, request)

    def _found(self, found: StoredObject | None, request: m.Fetch) -> m.Reply:
        if found is None:
            reason = self._backend.missing_reason(request.key, request.endpoint_id)
            return m.Missing(reason.value)
        bare = not found.in_memory and not found.path
        return m.Found(
            nbytes=found.nbytes,
            in_memory=found.in_memory,
            path=found.path,
            data=bytes(found.view) if bare else None,
            durability=found.stat.durability,
            etag=found.etag,
            expires_in=found.expires_in,
        )

    def exists(self, request: m.Exists) -> m.Reply | Awaitable[m.Reply]:
        if request.endpoint_id == self._backend.endpoint_id:
            return m.Answer(self._storage.exists(request.key))
        return self._answer(
            self._backend.exists(request.key, request.endpoint_id, timeout=request.timeout)
        )

    def evict(self, request: m.Evict) -> m.Reply | Awaitable[m.Reply]:
        if request.endpoint_id == self._backend.endpoint_id and not self._is_slow(request.key):
            return m.Answer(self._storage.evict(request.key))
        return self._answer(
            self._backend.evict(request.key, request.endpoint_id, timeout=request.timeout)
        )

    def expire(self, request: m.Expire) -> Awaitable[m.Reply]:
        return self._answer(self._in_thread(lambda: self._storage.expire(request.key)))

    async def _answer(self, yes: Awaitable[bool]) -> m.Reply:
        return m.Answer(await yes)

    async def push(self, request: m.Push) -> m.Reply:
        durability: Any = request.durability
        try:
            found = self._storage.open(request.source)
            if found is None:
                return m.Missing(MissingReason.NEVER_STORED.value)
            stored = await self._backend.put(
                request.key,
                found.view,
                request.endpoint_id,
                ttl=request.ttl,
                durability=durability,
                timeout=request.timeout,
            )
            return m.Committed(*stored)
        finally:
            self._storage.evict(request.source)

    def stat(self, request: m.Stat) -> m.Reply:
        own = request.endpoint_id == self._backend.endpoint_id
        stat = self._storage.stat(request.key, origin="" if own else request.endpoint_id)
        if stat is None:
            reason = self._backend.missing_reason(request.key, request.endpoint_id)
            return m.Missing(reason.value)
        return m.Found(
            nbytes=stat.nbytes,
            durability=stat.durability,
            etag=stat.etag,
            expires_in=stat.expires_in,
        )

    async def keys(self, request: m.Keys) -> m.Reply:
        def find() -> list[str]:
            after = (key for key in self._storage.keys() if key > request.after)  # noqa: SIM118 - no dict
            return heapq.nsmallest(m.KEYS_AT_ONCE + 1, after)

        found = await self._in_thread(find)
        return m.KeyList(found[: m.KEYS_AT_ONCE], more=len(found) > m.KEYS_AT_ONCE)

    def count(self, _request: m.Count) -> m.Reply:
        usage = self._storage.usage()
        return m.Counted(usage.objects, usage.nbytes, usage.warm, usage.memory_limit)

    def status(self, _request: m.Status) -> m.Reply:
        return m.Report(self._backend.status())


_HANDLERS: dict[type[Any], Callable[[_Connection, Any], Any]] = {
    m.Hello: _Connection.hello,
    m.Commit: _Connection.commit,
    m.MakeRoom: _Connection.make_room,
    m.Reserve: _Connection.reserve,
    m.Abandon: _Connection.abandon,
    m.Fetch: _Connection.fetch,
    m.Exists: _Connection.exists,
    m.Evict: _Connection.evict,
    m.Expire: _Connection.expire,
    m.Push: _Connection.push,
    m.Stat: _Connection.stat,
    m.Keys: _Connection.keys,
    m.Count: _Connection.count,
    m.Status: _Connection.status,
}


def _is_same_user(client: socket.socket) -> bool:
    """Tell whether a client runs as this user; elsewhere than on Linux the directory says so."""
    if sys.platform != "linux":
        return True
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(found)[1]) == os.geteuid()
