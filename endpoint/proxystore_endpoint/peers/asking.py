"""Requests with a small answer, and puts: tried again on another lane when one is lost."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.exceptions import PeerLostError, PeerTimeoutError, PeerUnreachableError
from proxystore_endpoint.peers.calls import CallFailedError, LoopCall, missing_reason, raise_for
from proxystore_endpoint.peers.peer import Peer
from proxystore_endpoint.peers.types import PeerSettings, RemoteStat
from proxystore_endpoint.storage.types import Durability, Stored
from proxystore_endpoint.transports.lanes import Lane
from proxystore_endpoint.transports.roles import LARGE
from proxystore_endpoint.wire.connection import BytesLike
from proxystore_endpoint.wire.messages import Op, Request, Response, Status

_PAUSE: Final = 0.05
_LONGEST: Final = 1.0
_DURABILITY: Final[dict[str, Durability]] = {"spill": "spill", "durable": "durable"}


class Asking:
    """One request to a peer.

    All operations may be asked twice without harm; an `evict` that was lost on the way
    back may say then that there was nothing.

    Args:
        peer: Whom to ask.
        settings: Times.
        deadline: When to give up, on the monotonic clock.
    """

    def __init__(self, peer: Peer, settings: PeerSettings, deadline: float) -> None:
        self._peer = peer
        self._settings = settings
        self._deadline = deadline

    async def exists(self, key: str) -> bool:
        """Ask whether there is an object."""
        return (await self._ok(Request(op=Op.EXISTS, key=key))).found

    async def evict(self, key: str) -> bool:
        """Remove an object; tell whether there was one."""
        return (await self._ok(Request(op=Op.EVICT, key=key))).found

    async def stat(self, key: str) -> RemoteStat | MissingReason:
        """Ask about an object."""
        response = await self._ask(Request(op=Op.STAT, key=key))
        if response.status == Status.MISSING:
            return missing_reason(response)
        self._check(response)
        expires = response.expires_ms / 1000 if response.expires_ms else None
        durability = _DURABILITY.get(response.durability, "memory")
        return RemoteStat(response.size, durability, response.etag, expires, response.version)

    async def keys(self) -> list[str]:
        """Ask for all keys."""
        keys: list[str] = []
        cursor = ""
        while True:
            response = await self._ok(Request(op=Op.LIST, cursor=cursor))
            keys += response.keys
            if not response.cursor or response.cursor <= cursor:
                return keys
            cursor = response.cursor

    async def put(
        self, key: str, view: memoryview, *, ttl: float | None, durability: Durability
    ) -> Stored:
        """Store an object."""
        request = Request(
            op=Op.PUT,
            key=key,
            nbytes=view.nbytes,
            ttl_ms=max(1, int(ttl * 1000)) if ttl is not None else 0,
            durability=durability,
        )
        response = await self._ask(request, view.cast("B") if view.nbytes else None)
        self._check(response, nbytes=view.nbytes)
        return Stored(response.size, _DURABILITY.get(response.durability, "memory"), response.etag)

    async def _ok(self, request: Request) -> Response:
        response = await self._ask(request)
        self._check(response)
        return response

    def _check(self, response: Response, nbytes: int = 0) -> None:
        if response.status != Status.OK:
            raise_for(self._peer.uuid, response.status, response.detail, nbytes=nbytes)

    async def _ask(self, request: Request, body: BytesLike | None = None) -> Response:
        lost_at: float | None = None
        tries = 0
        while True:
            until = self._deadline
            if lost_at is not None:
                until = min(until, lost_at + self._settings.lost_grace)
            try:
                lane = await self._peer.lane(until)
                return await self._once(lane, request, body)
            except CallFailedError as failure:
                if not failure.lost:
                    raise_for(self._peer.uuid, failure.status, failure.detail)
                if lost_at is None:
                    lost_at = time.monotonic()
                why = failure.detail
            except (PeerTimeoutError, PeerUnreachableError) as error:
                if lost_at is None:
                    raise
                why = str(error)
            if time.monotonic() >= min(self._deadline, lost_at + self._settings.lost_grace):
                raise PeerLostError(
                    f"Endpoint {self._peer.uuid} was lost before it answered: {why}",
                    peer=self._peer.uuid,
                )
            await asyncio.sleep(min(_LONGEST, _PAUSE * 2**tries))
            tries += 1

    async def _once(self, lane: Lane, request: Request, body: BytesLike | None) -> Response:
        call = LoopCall(request, self._deadline, body=body)
        if body is not None and len(body) >= LARGE:
            self._peer.large_body(lane)
        lane.submit(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            lane.cancel(call)
            if body is not None:  # its memory is the caller's again once this returns
                await call.wait_over(_LONGEST)
            raise
