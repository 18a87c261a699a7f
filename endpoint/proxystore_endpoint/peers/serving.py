"""Answering a peer's requests: what it may do, on the objects of this endpoint."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from proxystore_core.exceptions import (
    CorruptObjectError,
    InvalidKeyError,
    ObjectTooLargeError,
    ProxyStoreError,
    StorageFullError,
)
from proxystore_endpoint.exceptions import AccessDeniedError, StreamClosedError, WireError
from proxystore_endpoint.grants import Admission
from proxystore_endpoint.limits import MAX_TEXT
from proxystore_endpoint.membership import Right
from proxystore_endpoint.storage.types import Durability, Provider, Reservation, StoredObject
from proxystore_endpoint.transports.lanes import Lane
from proxystore_endpoint.transports.roles import LARGE
from proxystore_endpoint.wire.messages import Op, Request, Response, Status

_log = logging.getLogger(__name__)

_LIST_BYTES: Final = 32 * 1024  # of keys in one answer: half of what fits into a frame
_SMALL: Final = 4096  # bytes of an object of which a copy is kept for the next who asks
_KEPT: Final = 128
_RIGHTS: Final = {
    Op.GET: Right.READ,
    Op.EXISTS: Right.READ,
    Op.STAT: Right.READ,
    Op.EVICT: Right.WRITE,
    Op.PUT: Right.WRITE,
    Op.LIST: Right.LIST,
}
_DURABILITY: Final[dict[str, Durability]] = {
    "memory": "memory",
    "spill": "spill",
    "durable": "durable",
}


class _Put(NamedTuple):
    request: Request
    reservation: Reservation


class Serving:
    """Answers the requests on one lane; runs in the lane's thread.

    Args:
        provider: The objects.
        admission: What the peer may do.
        ended: Called when the lane is over.
        large: Called when a large answer is on its way.
    """

    def __init__(
        self,
        provider: Provider,
        admission: Admission,
        *,
        ended: Callable[[Lane, WireError | None], None],
        large: Callable[[Lane], None],
    ) -> None:
        self._provider = provider
        self._admission = admission
        self._ended = ended
        self._large = large
        self._open: dict[int, StoredObject] = {}  # until what was answered is sent
        self._puts: dict[int, _Put] = {}
        self._small: dict[str, StoredObject] = {}  # mapping a file costs more than a small answer
        self._answers: Final[dict[str, Callable[[Lane, int, Request], Response | None]]] = {
            Op.GET: self._get,
            Op.EXISTS: self._exists,
            Op.STAT: self._stat,
            Op.EVICT: self._evict,
            Op.PUT: self._put,
            Op.LIST: self._list,
        }

    def request_received(self, lane: Lane, stream: int, request: Request) -> None:
        """Answer a request."""
        answer = self._answers.get(request.op)
        if answer is None:
            response: Response | None = Response(
                status=Status.BAD_REQUEST, detail=f"{request.op!r} is not known here"
            )
        else:
            try:
                self._admission.require(_RIGHTS[Op(request.op)])
                response = answer(lane, stream, request)
            except ProxyStoreError as error:
                response = _failure(error)
        if response is not None:
            lane.connection.respond(stream, response)

    def body_received(self, lane: Lane, stream: int) -> None:
        """Publish what was put."""
        put = self._puts.pop(stream, None)
        if put is None:
            return
        try:
            response = self._publish(put)
        except ProxyStoreError as error:
            put.reservation.abandon()
            response = _failure(error)
        try:
            lane.connection.respond(stream, response)
        except StreamClosedError:
            _log.debug("%r: an object was put, but nobody waits for the answer", lane)

    def request_cancelled(self, lane: Lane, stream: int) -> None:
        """Give back the room for what does not come."""
        if put := self._puts.pop(stream, None):
            put.reservation.abandon()

    def answers_sent(self, lane: Lane) -> None:
        """Let go of the objects that were sent."""
        for stream in [n for n in self._open if not lane.connection.unsent(n)]:
            del self._open[stream]
        lane.holding = bool(self._open)

    def lane_ended(self, lane: Lane, error: WireError | None) -> None:
        """Let go of everything."""
        self._open.clear()
        self._small.clear()
        for put in self._puts.values():
            put.reservation.abandon()
        self._puts.clear()
        self._ended(lane, error)

    def _opened(self, key: str) -> StoredObject | None:
        """Open an object, or take it from the small ones that were asked for lately."""
        if key in self._small:
            kept = self._small[key]
            stat = self._provider.stat(key)
            if stat is not None and stat.version == kept.stat.version:
                return StoredObject(kept.view, stat)
            del self._small[key]
        found = self._provider.open(key)
        if found is not None and found.nbytes <= _SMALL and found.stat.version:
            if len(self._small) >= _KEPT:
                del self._small[next(iter(self._small))]
            self._small[key] = StoredObject(memoryview(bytes(found.view)), found.stat)
        return found

    def _get(self, lane: Lane, stream: int, request: Request) -> Response | None:
        found = self._opened(request.key)
        if found is None:
            return self._missing(request)
        size = found.nbytes
        if request.offset > size:
            return Response(
                status=Status.BAD_REQUEST,
                detail=f"offset {request.offset} is beyond the object's {size} bytes",
            )
        end = size if request.length < 0 else min(size, request.offset + request.length)
        nbytes = end - request.offset
        response = Response(
            nbytes=nbytes,
            size=size,
            etag=found.etag,
            version=found.stat.version,
            expires_ms=_ms(found.expires_in),
        )
        if not nbytes:
            return response
        lane.connection.respond(stream, response, found.view[request.offset : end])
        self._open[stream] = found
        lane.holding = True
        if nbytes >= LARGE:
            lane.answers_large(stream)
            self._large(lane)
        return None

    def _exists(self, lane: Lane, stream: int, request: Request) -> Response:
        return Response(found=self._provider.exists(request.key))

    def _stat(self, lane: Lane, stream: int, request: Request) -> Response:
        stat = self._provider.stat(request.key)
        if stat is None:
            return self._missing(request)
        return Response(
            found=True,
            size=stat.nbytes,
            etag=stat.etag,
            version=stat.version,
            expires_ms=_ms(stat.expires_in),
            durability=stat.durability,
        )

    def _evict(self, lane: Lane, stream: int, request: Request) -> Response:
        return Response(found=self._provider.evict(request.key))

    def _list(self, lane: Lane, stream: int, request: Request) -> Response:
        keys = sorted(self._provider.keys())
        begin = bisect.bisect_right(keys, request.cursor) if request.cursor else 0
        chosen: list[str] = []
        room = _LIST_BYTES
        for key in keys[begin : begin + request.limit]:
            room -= len(key.encode()) + 4
            if room < 0:
                break
            chosen.append(key)
        more = begin + len(chosen) < len(keys)
        return Response(keys=chosen, cursor=chosen[-1] if more and chosen else "")

    def _put(self, lane: Lane, stream: int, request: Request) -> Response | None:
        if request.durability not in _DURABILITY:
            return Response(
                status=Status.BAD_REQUEST, detail=f"durability {request.durability!r} is none"
            )
        put = _Put(request, self._provider.reserve(request.key, request.nbytes))
        try:
            if not request.nbytes:
                return self._publish(put)
            lane.connection.set_sink(stream, put.reservation.buffer)
        except BaseException:
            put.reservation.abandon()
            raise
        self._puts[stream] = put
        return None

    def _publish(self, put: _Put) -> Response:
        stored = put.reservation.publish(
            ttl=put.request.ttl_ms / 1000 if put.request.ttl_ms else None,
            durability=_DURABILITY[put.request.durability],
        )
        return Response(size=stored.nbytes, etag=stored.etag, durability=stored.durability)

    def _missing(self, request: Request) -> Response:
        reason = self._provider.missing_reason(request.key)
        return Response(status=Status.MISSING, reason=reason.value)


def _ms(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, int(seconds * 1000))


def _failure(error: ProxyStoreError) -> Response:
    status, detail = Status.ERROR, type(error).__name__
    if isinstance(error, AccessDeniedError):
        status, detail = Status.REFUSED, str(error)
    elif isinstance(error, InvalidKeyError):
        status, detail = Status.BAD_REQUEST, str(error)
    elif isinstance(error, ObjectTooLargeError):
        status, detail = Status.TOO_LARGE, str(error)
    elif isinstance(error, StorageFullError):
        status, detail = Status.FULL, str(error)
    elif isinstance(error, CorruptObjectError):
        detail = "The stored object is damaged."
    else:
        _log.warning("a peer's request failed: %s", error)
    return Response(status=status, detail=detail[:MAX_TEXT])
