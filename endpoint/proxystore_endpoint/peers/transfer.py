"""Fetching one object: straight into its memory, over one lane or several, whatever breaks.

What is still to come is a list of ranges. Each worker takes one and asks for it on a
lane; when the lane is lost, what came stays and the rest goes over another lane. Where
the round trip is long, one stream cannot fill the link, so more workers are added for as
long as each makes the whole faster.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.exceptions import (
    PeerError,
    PeerLostError,
    PeerResponseError,
    PeerTimeoutError,
    PeerUnreachableError,
)
from proxystore_endpoint.peers.calls import CallFailedError, LoopCall, missing_reason, raise_for
from proxystore_endpoint.peers.peer import Peer
from proxystore_endpoint.peers.types import Fetched, PeerSettings
from proxystore_endpoint.storage.types import Reservation
from proxystore_endpoint.transports.lanes import Lane
from proxystore_endpoint.transports.roles import LARGE
from proxystore_endpoint.wire.messages import Op, Request, Response, Status

_PIECE: Final = 8 << 20  # smallest range that a worker takes when there are several
_TRIAL: Final = 0.3  # seconds over which a rate is taken before another lane is added
_WORTH: Final = 1.15  # how much faster another lane must make the whole
_STUCK: Final = 2.0  # seconds that a lane's thread may take to let go of our memory
_AGAIN: Final = 0.25  # pause between two tries to reach a peer that was there just now
_RETRY: Final = 1.0  # longest pause between two tries that brought nothing


class _Missing(Exception):  # noqa: N818  # no error: an answer
    def __init__(self, reason: MissingReason) -> None:
        self.reason = reason
        super().__init__(reason.value)


class _Range:
    """Bytes that are to come: from `begin` to `end`, which is -1 before the size is known."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin = begin
        self.end = end


class Transfer:
    """One object on its way here.

    Args:
        peer: Whose it is.
        key: Its key.
        sink: Gives memory for its size.
        settings: Times and sizes.
        deadline: When to give up, on the monotonic clock.
    """

    def __init__(
        self,
        peer: Peer,
        key: str,
        sink: Callable[[int], Reservation],
        settings: PeerSettings,
        deadline: float,
    ) -> None:
        self._peer = peer
        self._key = key
        self._sink = sink
        self._settings = settings
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # two lanes may bring first answers at once
        self._reservation: Reservation | None = None
        self._first: Response | None = None
        self._ranges: deque[_Range] = deque([_Range(0, -1)])
        self._current: dict[LoopCall, Lane] = {}
        self._done = 0  # bytes of ranges that are over
        self._seen = 0  # bytes of ranges under way, at the last look
        self._moved = time.monotonic()  # when bytes came last
        self._relayed = False
        self._workers: set[asyncio.Task[None]] = set()  # beside the one that runs first
        self._problem: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._trial = (0, 0.0)  # bytes at the last look, and the best rate so far

    async def run(self) -> Fetched | MissingReason:
        """Fetch it.

        Raises:
            PeerError: It did not work; all that was reserved is given back.
        """
        self._timer = self._loop.call_later(_TRIAL, self._tick)
        try:
            await self._work()
            if self._workers:
                await asyncio.wait(self._workers)
            if self._problem is not None:
                raise self._problem
        except _Missing as missing:
            await self._stop()
            return missing.reason
        except BaseException as error:
            await self._stop()
            if self._problem is not None and isinstance(error, CallFailedError):
                raise self._problem from None
            raise
        finally:
            self._timer.cancel()
        return self._fetched()

    def _fetched(self) -> Fetched:
        first = self._first or Response()
        reservation = self._reservation
        if reservation is None:
            reservation = self._sink(0)
        expires = first.expires_ms / 1000 if first.expires_ms else None
        return Fetched(reservation, first.size, first.etag, expires, first.version)

    async def _stop(self) -> None:
        """End all that is under way; only then may the memory go."""
        for worker in self._workers:
            worker.cancel()
        calls = tuple(self._current.items())
        for call, lane in calls:
            lane.cancel(call)
        if self._workers:
            await asyncio.wait(self._workers)
        for call, _ in calls:
            await call.wait_over(_STUCK)
        if self._reservation is not None:
            self._reservation.abandon()

    # Workers.

    def _add_worker(self) -> None:
        worker = asyncio.create_task(self._work(), name=f"transfer-{self._key}")
        self._workers.add(worker)
        worker.add_done_callback(self._worked)

    def _worked(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and isinstance(error := worker.exception(), Exception):
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Have all workers end."""
        if self._problem is None:
            self._problem = error
            self._ranges.clear()
            for call in tuple(self._current):
                call.give_up()

    async def _work(self) -> None:
        fruitless, lost = 0, False
        while self._ranges:
            part = self._ranges.popleft()
            try:
                lane = await self._lane(lost)
                if fruitless:
                    await asyncio.sleep(min(_RETRY, 0.02 * 2**fruitless))
                await self._ask(lane, part)
            except CallFailedError as failure:
                self._advance(part, failure.received, lane.heard)
                if self._problem is not None:
                    raise
                if part.begin != part.end:
                    self._ranges.appendleft(part)
                fruitless = 0 if failure.received else fruitless + 1
                if not failure.lost:
                    raise_for(self._peer.uuid, failure.status, failure.detail)
                lost = True
                self._peer.resumed += 1
            else:
                fruitless = 0

    async def _lane(self, lost: bool) -> Lane:
        deadline = min(self._deadline, self._moved + self._settings.stall_timeout)
        # A relay that is started anew is back in seconds; a peer whose address is dead is dead.
        patience = self._settings.stall_timeout if self._relayed else self._settings.lost_grace
        grace = time.monotonic() + patience
        while True:
            try:
                return await self._peer.lane(deadline)
            except (PeerTimeoutError, PeerUnreachableError) as error:
                if not lost:
                    raise
                if time.monotonic() > min(deadline, grace) or isinstance(error, PeerTimeoutError):
                    raise self._lost(str(error)) from error
            await asyncio.sleep(_AGAIN)

    async def _ask(self, lane: Lane, part: _Range) -> None:
        wanted = part.end - part.begin if part.end >= 0 else -1
        if wanted < 0 and self._parallel(lane):
            wanted = _PIECE
        call = LoopCall(
            Request(op=Op.GET, key=self._key, offset=part.begin, length=wanted),
            self._deadline,
            sink=lambda response: self._memory(lane, part, wanted, response),
        )
        self._current[call] = lane
        self._relayed = lane.kind == "relay"
        lane.submit(call)
        # A call that is not over stays in the table, so that `_stop` waits for its end.
        response = await call.future
        self._current.pop(call, None)
        if response.status == Status.MISSING:
            raise _Missing(missing_reason(response))
        if response.status != Status.OK:
            raise_for(self._peer.uuid, response.status, response.detail)
        if not response.nbytes:
            self._memory(lane, part, wanted, response)
        self._advance(part, response.nbytes, lane.heard)

    def _advance(self, part: _Range, received: int, heard: float) -> None:
        for call in [call for call in self._current if call.over]:
            self._current.pop(call, None)
        part.begin += received
        self._done += received
        if received:
            self._moved = max(self._moved, heard)  # a lane may have been silent before it failed

    def _memory(self, lane: Lane, part: _Range, wanted: int, response: Response) -> memoryview:
        """Give the memory for an answer; in its lane's thread."""
        with self._lock:
            if self._first is None:
                if response.size:
                    self._reservation = self._sink(response.size)
                self._first = response
                self._split(part, wanted, response)
            first = self._first
        if (response.size, response.etag, response.version) != (
            first.size,
            first.etag,
            first.version,
        ):
            raise PeerResponseError(
                f"Endpoint {self._peer.uuid}: object {self._key!r} changed while it was fetched.",
                peer=self._peer.uuid,
                status="changed",
            )
        end = part.begin + response.nbytes
        if end != (part.end if part.end >= 0 else first.size) or self._reservation is None:
            if response.nbytes or first.size:
                raise PeerResponseError(
                    f"Endpoint {self._peer.uuid} sent another part of {self._key!r} than asked.",
                    peer=self._peer.uuid,
                )
            return memoryview(b"")
        if response.nbytes >= LARGE:
            self._loop.call_soon_threadsafe(self._peer.large_body, lane)
        return self._reservation.buffer[part.begin : end]

    def _split(self, part: _Range, wanted: int, response: Response) -> None:
        """Now that the size is known, say which bytes are whose."""
        size = response.size
        part.end = min(size, part.begin + wanted) if wanted >= 0 else size
        begin = part.end
        while begin < size:
            end = min(size, begin + _PIECE)
            if size - end < _PIECE:
                end = size
            self._ranges.append(_Range(begin, end))
            begin = end

    def _parallel(self, lane: Lane) -> bool:
        return lane.kind == "tcp" and (lane.rtt or 0.0) >= self._settings.parallel_rtt

    # The timer.

    def _tick(self) -> None:
        self._look()
        now = time.monotonic()
        if now - self._moved > self._settings.stall_timeout:
            self._fail(self._lost(f"nothing came for {self._settings.stall_timeout:g} s"))
            return
        if self._ranges and len(self._workers) + 1 < self._settings.max_lanes:
            total, best = self._trial
            rate = (self._done + self._seen - total) / _TRIAL
            if rate > best * _WORTH:
                best = rate
                self._add_worker()
            self._trial = self._done + self._seen, best
        self._timer = self._loop.call_later(_TRIAL, self._tick)

    def _look(self) -> None:
        """Note what came since the last look; the lanes' threads count it."""
        seen = 0
        for call, lane in tuple(self._current.items()):
            lane.post(partial(call.look, lane))
            seen += call.seen
        if seen > self._seen:
            self._moved = time.monotonic()
        self._seen = seen

    def _lost(self, why: str) -> PeerError:
        return PeerLostError(
            f"Endpoint {self._peer.uuid} was lost while it sent {self._key!r}: {why}",
            peer=self._peer.uuid,
        )
