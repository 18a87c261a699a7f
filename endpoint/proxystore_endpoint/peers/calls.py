"""Requests on a lane, awaited on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn
from uuid import UUID

from proxystore_core.exceptions import MissingReason, ObjectTooLargeError, StorageFullError
from proxystore_endpoint.exceptions import (
    PeerRefusedError,
    PeerResponseError,
    PeerTimeoutError,
)
from proxystore_endpoint.transports.lanes import Lane
from proxystore_endpoint.wire.connection import BytesLike
from proxystore_endpoint.wire.events import LOST
from proxystore_endpoint.wire.messages import Request, Response, Status


class CallFailedError(Exception):
    """A call on a lane has no (whole) answer; internal, its users make a `PeerError` of it.

    Attributes:
        status: A `Status`, or `lost`.
        detail: For people.
        received: Bytes of the body that came.
    """

    def __init__(self, status: str, detail: str, received: int) -> None:
        self.status = status
        self.detail = detail
        self.received = received
        super().__init__(f"{status}: {detail}")

    @property
    def lost(self) -> bool:
        """Whether the lane is gone, so that another may do."""
        return self.status == LOST


class LoopCall:
    """A request whose answer is awaited on an event loop.

    Args:
        request: What is asked.
        deadline: When it fails, on the monotonic clock.
        body: put: the object.
        sink: Gives memory for the body of an answer. Called in the lane's thread.
    """

    def __init__(
        self,
        request: Request,
        deadline: float,
        *,
        body: BytesLike | None = None,
        sink: Callable[[Response], memoryview | None] | None = None,
    ) -> None:
        self.request = request
        self.deadline = deadline
        self.body = body
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self.response: Response | None = None
        self.problem: Exception | None = None
        self.seen = 0
        self.over = False  # whether the lane is done with it, and with its memory
        self._end: asyncio.Future[None] | None = None
        self.future: asyncio.Future[Response] = self._loop.create_future()

    def answered(self, response: Response) -> memoryview | None:
        """Take the answer; see `lanes.Call`."""
        self.response = response
        if not response.nbytes or self._sink is None:
            return None
        try:
            return self._sink(response)
        except Exception as error:
            self.problem = error
            raise

    def look(self, lane: Lane) -> None:
        """Note how many bytes of the body came; in the lane's thread."""
        self.seen = lane.progress(self)

    def give_up(self) -> None:
        """Let who waits go on; the lane may not be done yet."""
        if not self.future.done():
            self.future.set_exception(CallFailedError(Status.CANCELLED, "given up", 0))

    async def wait_over(self, timeout: float) -> None:
        """Wait until the lane is done with it: from then on the memory is free."""
        if not self.over:
            self._end = self._loop.create_future()
            await asyncio.wait([self._end], timeout=timeout)
        if self.future.done() and not self.future.cancelled():
            self.future.exception()  # nobody asks any more

    def completed(self) -> None:
        """See `lanes.Call`."""
        self._tell(None)

    def failed(self, status: str, detail: str, received: int) -> None:
        """See `lanes.Call`."""
        self._tell(self.problem or CallFailedError(status, detail, received))

    def _tell(self, error: Exception | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._set, error)
        except RuntimeError:  # the loop is closed: nobody waits
            return

    def _set(self, error: Exception | None) -> None:
        self.over = True
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        elif self.response is not None:
            self.future.set_result(self.response)


def raise_for(peer: UUID, status: str, detail: str, *, nbytes: int = 0) -> NoReturn:
    """Raise what an unsuccessful answer stands for."""
    what = f"Endpoint {peer}: {detail or status}"
    if status == Status.REFUSED:
        raise PeerRefusedError(what, peer=peer)
    if status == Status.TIMEOUT:
        raise PeerTimeoutError(f"Endpoint {peer} did not answer in time.", peer=peer)
    if status == Status.TOO_LARGE:
        raise ObjectTooLargeError(what, nbytes=nbytes, limit=0)
    if status == Status.FULL:
        raise StorageFullError(what, nbytes=nbytes)
    raise PeerResponseError(what, peer=peer, status=status)


def missing_reason(response: Response) -> MissingReason:
    """Return why there is no object."""
    try:
        return MissingReason(response.reason)
    except ValueError:  # a newer peer's
        return MissingReason.UNKNOWN
