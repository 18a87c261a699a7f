"""One peer: its lanes, and how new ones come about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from proxystore_endpoint.exceptions import PeerError, PeerTimeoutError, PeerUnreachableError
from proxystore_endpoint.peers.supervise import Tasks
from proxystore_endpoint.peers.types import LaneStatus, PeerSettings, PeerStatus
from proxystore_endpoint.transports.lanes import Lane
from proxystore_endpoint.wire.messages import GoAwayReason

RANK: Final = {"tcp": 0, "punch": 0, "webrtc": 1, "relay": 2}
"""Kinds of paths, the best first."""
_SPREAD: Final = 0.2  # how much of a newer rate counts


class Peer:
    """One peer, on the event loop.

    Args:
        uuid: Its id.
        settings: How peers are connected to.
        tasks: Where background tasks run.
        connect: Makes a first lane by whatever path, or raises a `PeerError`.
        spare: Makes one more direct lane, or raises.
        upgrade: Tries paths better than this rank, or raises.
    """

    def __init__(
        self,
        uuid: UUID,
        settings: PeerSettings,
        tasks: Tasks,
        *,
        connect: Callable[[Peer], Awaitable[None]],
        spare: Callable[[Peer], Awaitable[None]],
        upgrade: Callable[[Peer, int], Awaitable[None]],
    ) -> None:
        self.uuid: Final = uuid
        self.lanes: list[Lane] = []
        self.paths: dict[str, str] = {}
        self.resumed = 0
        self.used = time.monotonic()
        self.wanted = False  # whether this side ever asked for it
        self.direct: str | None = None  # the address by which direct lanes came about
        self._settings = settings
        self._tasks = tasks
        self._connect = connect
        self._spare = spare
        self._upgrade = upgrade
        self._waiters: set[asyncio.Future[None]] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._sparing: asyncio.Task[None] | None = None
        self._upgrading: asyncio.Task[None] | None = None
        self._gone = [0, 0]  # bytes received and sent on lanes that are over
        self._rates = [0.0, 0.0]
        self._counted = (time.monotonic(), 0, 0)

    # Lanes.

    def best(self, avoid: frozenset[Lane] | set[Lane] = frozenset()) -> Lane | None:
        """The lane for a new request: by the best path, free of large bodies, little used."""
        found = [lane for lane in self.lanes if not lane.over and lane not in avoid]
        if not found:
            return None
        return min(found, key=lambda lane: (RANK[lane.kind], lane.bulk, lane.pending))

    async def lane(self, deadline: float) -> Lane:
        """Return a lane, connecting first if there is none.

        Raises:
            PeerUnreachableError: No path works.
            PeerRefusedError: The peer does not let us in.
            PeerTimeoutError: The deadline passed.
        """
        self.used, self.wanted = time.monotonic(), True
        loop = asyncio.get_running_loop()
        while (lane := self.best()) is None:
            if self._connecting is None or self._connecting.done():
                self._connecting = self._tasks.start(self._try(), f"connect-{self.uuid}")
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.add(waiter)
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await waiter
            except TimeoutError:
                raise PeerTimeoutError(
                    f"Endpoint {self.uuid}: no path to it in time.", peer=self.uuid
                ) from None
            finally:
                self._waiters.discard(waiter)
        return lane

    async def _try(self) -> None:
        try:
            await self._connect(self)
            self._wake()  # who came when its lane was gone again, looks anew
        except PeerError as error:
            self._wake(error)
        except Exception as error:
            self._wake(
                PeerUnreachableError(
                    f"Endpoint {self.uuid} cannot be reached: {error}", peer=self.uuid
                )
            )
            raise

    def _wake(self, error: PeerError | None = None) -> None:
        for waiter in self._waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
        self._waiters.clear()

    def add(self, lane: Lane) -> None:
        """Take a new lane in."""
        self.lanes.append(lane)
        self.paths[lane.kind] = "connected"
        self._wake()
        best = self.best()
        if (
            best is not None
            and RANK[best.kind]
            and (self._upgrading is None or self._upgrading.done())
        ):
            self._upgrading = self._tasks.start(self._improve(), f"upgrade-{self.uuid}")

    def remove(self, lane: Lane, why: str) -> None:
        """Let a lane go that is over."""
        if lane not in self.lanes:
            return
        self.lanes.remove(lane)
        self._gone[0] += lane.connection.bytes_received
        self._gone[1] += lane.connection.bytes_sent
        if not any(other.kind == lane.kind for other in self.lanes):
            self.paths[lane.kind] = why or "closed"

    def large_body(self, lane: Lane) -> None:
        """A large body keeps a lane busy: have another one ready for what else comes."""
        if lane.kind != "tcp" or self.direct is None:
            return
        if self._sparing is not None and not self._sparing.done():
            return
        live = [one for one in self.lanes if not one.over and one.kind == "tcp"]
        if len(live) < self._settings.max_lanes and all(one.bulk or one is lane for one in live):
            self._sparing = self._tasks.start(self._make_spare(), f"spare-{self.uuid}")

    async def _make_spare(self) -> None:
        try:
            await self._spare(self)
        except (PeerError, OSError):
            return  # what there is must do

    async def _improve(self) -> None:
        pauses = list(self._settings.upgrade_after)
        while (best := self.best()) is not None and RANK[best.kind] > 0:
            await asyncio.sleep(pauses[0])
            if len(pauses) > 1:
                del pauses[0]
            if time.monotonic() - self.used > self._settings.idle_link:
                return
            best = self.best()
            if best is not None and RANK[best.kind] > 0:
                await self._upgrade(self, RANK[best.kind])

    def tidy(self, now: float) -> None:
        """Close lanes that nobody uses, count rates. Called once a second or so."""
        live = [lane for lane in self.lanes if not lane.over]
        best = min((RANK[lane.kind] for lane in live), default=0)
        for lane in live:
            idle = 0.0 if lane.busy else now - lane.used
            same = sum(1 for one in self.lanes if one.kind == lane.kind and not one.over)
            if not lane.outbound or lane.going_away:
                continue
            if (same > 1 or RANK[lane.kind] > best) and idle > self._settings.idle_lane:
                reason = GoAwayReason.IDLE if same > 1 else GoAwayReason.REPLACED
                lane.goaway(reason)
            elif idle > self._settings.idle_link:
                lane.goaway(GoAwayReason.IDLE)
        before, received, sent = self._counted
        took = now - before
        if took >= 0.5:
            counts = self.received, self.sent
            fresh = ((counts[0] - received) / took, (counts[1] - sent) / took)
            share = min(1.0, _SPREAD * max(1.0, took))
            self._rates = [
                old + (new - old) * share for old, new in zip(self._rates, fresh, strict=True)
            ]
            self._counted = (now, *counts)

    # Status.

    @property
    def received(self) -> int:
        """Bytes of objects that came from it."""
        return self._gone[0] + sum(lane.connection.bytes_received for lane in tuple(self.lanes))

    @property
    def sent(self) -> int:
        """Bytes of objects that went to it."""
        return self._gone[1] + sum(lane.connection.bytes_sent for lane in tuple(self.lanes))

    def status(self) -> PeerStatus:
        """What is known of it now."""
        best = self.best()
        lanes = tuple(self.lanes)
        return PeerStatus(
            uuid=self.uuid,
            path=best.kind if best else "",
            paths=dict(self.paths),
            lanes=[
                LaneStatus(
                    kind=lane.kind,
                    outbound=lane.outbound,
                    remote=lane.remote,
                    requests=lane.pending + lane.connection.incoming,
                    rtt=lane.rtt,
                )
                for lane in lanes
            ],
            rtt=best.rtt if best else None,
            bytes_received=self.received,
            bytes_sent=self.sent,
            rate_in=max(0.0, round(self._rates[0], 1)),
            rate_out=max(0.0, round(self._rates[1], 1)),
            resumed=self.resumed,
            agent=lanes[-1].agent if lanes else "",
            version=lanes[-1].connection.version if lanes else 0,
        )
