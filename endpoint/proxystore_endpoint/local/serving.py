"""What clients on the control socket ask for, and how it is answered."""

from __future__ import annotations

import asyncio
import heapq
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from proxystore_core import __version__
from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.exceptions import ReservationError
from proxystore_endpoint.local import messages as m
from proxystore_endpoint.local.backend import Backend
from proxystore_endpoint.storage.rooms import Room
from proxystore_endpoint.storage.types import StoredObject

_T = TypeVar("_T")
_MAX_ROOMS = 64  # reservations of one connection


class Serving:
    """Answers the requests of one connection.

    Args:
        backend: The endpoint.
        pool: Threads for what waits for the disk.
    """

    def __init__(self, backend: Backend, pool: Executor) -> None:
        self._backend = backend
        self._storage = backend.storage
        self._pool = pool
        self._rooms: dict[int, Room] = {}
        self._numbers = 0
        self._closed = False

    def answer(self, request: m.Request) -> m.Reply | Awaitable[m.Reply]:
        """Answer a request at once, if that takes microseconds, else soon."""
        answer: m.Reply | Awaitable[m.Reply] = _HANDLERS[type(request)](self, request)
        return answer

    def close(self) -> None:
        """Give back what the client had reserved."""
        self._closed = True
        rooms, self._rooms = self._rooms, {}
        for room in rooms.values():
            room.abandon()

    async def _in_thread(self, act: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, act)

    def _hello(self, _request: m.Hello) -> m.Reply:
        return m.Welcome(
            endpoint_id=self._backend.endpoint_id,
            version=m.VERSION,
            release=__version__,
            pid=os.getpid(),
            memory=self._storage.memory_config(),
            object_limit=self._storage.object_limit,
            durability=self._storage.default_durability,
        )

    def _commit(self, request: m.Commit) -> m.Reply | Awaitable[m.Reply]:
        durability: Any = request.durability
        if request.room:
            room = self._rooms.pop(request.room, None)
            if room is None:
                raise ReservationError(f"There is no reservation {request.room}.")
            publish = room.publish
            return self._committed(lambda: publish(ttl=request.ttl, durability=durability))

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

    def _make_room(self, request: m.MakeRoom) -> Awaitable[m.Reply]:
        attempt = max(0, min(request.attempt, 8))
        return self._answer(
            self._in_thread(lambda: self._storage.make_room(request.nbytes, attempt))
        )

    async def _reserve(self, request: m.Reserve) -> m.Reply:
        if len(self._rooms) >= _MAX_ROOMS:
            raise ReservationError("This connection has too many reservations.")
        durability: Any = request.durability
        room = await self._in_thread(
            lambda: self._storage.reserve_file(request.key, request.nbytes, durability)
        )
        if self._closed:
            room.abandon()  # there is nobody any more to give it back
            raise ReservationError("The connection was closed.")
        self._numbers += 1
        self._rooms[self._numbers] = room
        return m.Granted(self._numbers, str(room.path))

    def _abandon(self, request: m.Abandon) -> m.Reply:
        room = self._rooms.pop(request.room, None)
        if room is not None:
            room.abandon()
        return m.Answer(room is not None)

    def _fetch(self, request: m.Fetch) -> m.Reply | Awaitable[m.Reply]:
        if request.endpoint_id != self._backend.endpoint_id:
            return self._fetch_far(request)
        if self._is_slow(request.key):  # it may have to be read and checked first
            return self._open(request)
        return self._found(self._storage.open(request.key), request)

    async def _open(self, request: m.Fetch) -> m.Reply:
        return self._found(await self._in_thread(lambda: self._storage.open(request.key)), request)

    async def _fetch_far(self, request: m.Fetch) -> m.Reply:
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

    def _exists(self, request: m.Exists) -> m.Reply | Awaitable[m.Reply]:
        if request.endpoint_id == self._backend.endpoint_id:
            return m.Answer(self._storage.exists(request.key))
        return self._answer(
            self._backend.exists(request.key, request.endpoint_id, timeout=request.timeout)
        )

    def _evict(self, request: m.Evict) -> m.Reply | Awaitable[m.Reply]:
        if request.endpoint_id == self._backend.endpoint_id and not self._is_slow(request.key):
            return m.Answer(self._storage.evict(request.key))
        return self._answer(
            self._backend.evict(request.key, request.endpoint_id, timeout=request.timeout)
        )

    def _expire(self, request: m.Expire) -> Awaitable[m.Reply]:
        return self._answer(self._in_thread(lambda: self._storage.expire(request.key)))

    async def _answer(self, yes: Awaitable[bool]) -> m.Reply:
        return m.Answer(await yes)

    async def _push(self, request: m.Push) -> m.Reply:
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

    def _stat(self, request: m.Stat) -> m.Reply:
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

    async def _keys(self, request: m.Keys) -> m.Reply:
        def find() -> list[str]:
            after = (key for key in self._storage.keys() if key > request.after)  # noqa: SIM118 - no dict
            return heapq.nsmallest(m.KEYS_AT_ONCE + 1, after)

        found = await self._in_thread(find)
        return m.KeyList(found[: m.KEYS_AT_ONCE], more=len(found) > m.KEYS_AT_ONCE)

    def _count(self, _request: m.Count) -> m.Reply:
        usage = self._storage.usage()
        return m.Counted(usage.objects, usage.nbytes, usage.warm, usage.memory_limit)

    def _status(self, _request: m.Status) -> m.Reply:
        return m.Report(self._backend.status())


_HANDLERS: dict[type[Any], Callable[[Serving, Any], Any]] = {
    m.Hello: Serving._hello,
    m.Commit: Serving._commit,
    m.MakeRoom: Serving._make_room,
    m.Reserve: Serving._reserve,
    m.Abandon: Serving._abandon,
    m.Fetch: Serving._fetch,
    m.Exists: Serving._exists,
    m.Evict: Serving._evict,
    m.Expire: Serving._expire,
    m.Push: Serving._push,
    m.Stat: Serving._stat,
    m.Keys: Serving._keys,
    m.Count: Serving._count,
    m.Status: Serving._status,
}
