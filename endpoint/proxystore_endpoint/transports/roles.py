"""What a lane needs of those who ask, and of those who answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from proxystore_endpoint.exceptions import WireError
from proxystore_endpoint.wire.connection import BytesLike
from proxystore_endpoint.wire.messages import Request, Response

if TYPE_CHECKING:
    from proxystore_endpoint.transports.lanes import Lane

LARGE: Final = 256 * 1024
"""Bodies from this size on keep a lane busy."""


class Call(Protocol):
    """A request of ours on a lane. All methods are called in the lane's thread, none may wait."""

    @property
    def request(self) -> Request:
        """What is asked."""
        ...

    @property
    def body(self) -> BytesLike | None:
        """put: the object."""
        ...

    @property
    def deadline(self) -> float:
        """When it fails, on the monotonic clock."""
        ...

    def answered(self, response: Response) -> memoryview | None:
        """Take the answer; give memory for its body, or None to give the request up."""
        ...

    def completed(self) -> None:
        """The answer and its body are complete."""
        ...

    def failed(self, status: str, detail: str, received: int) -> None:
        """There will be no (whole) answer; `received` bytes of its body came.

        `status` is a `Status`, or `lost` when the lane is gone.
        """
        ...


class LaneHandler(Protocol):
    """What answers on a lane. All methods are called in the lane's thread."""

    def request_received(self, lane: Lane, stream: int, request: Request) -> None:
        """Answer a request, with `lane.connection`."""
        ...

    def body_received(self, lane: Lane, stream: int) -> None:
        """The body of a request is in its sink."""
        ...

    def request_cancelled(self, lane: Lane, stream: int) -> None:
        """Nobody waits for the answer any more."""
        ...

    def answers_sent(self, lane: Lane) -> None:
        """All that the connection handed out was sent. Called only while `lane.holding`."""
        ...

    def lane_ended(self, lane: Lane, error: WireError | None) -> None:
        """The lane is over; its requests were failed and cancelled before."""
        ...
