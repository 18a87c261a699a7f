"""Bodies of requests, written where they belong as they arrive.

Quart takes in what the client sends as fast as it comes, whether anybody reads it or not. Here
nothing is taken in before somebody wants it, and a client may not keep us waiting for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from quart import Quart, Request
from quart.asgi import ASGIHTTPConnection
from quart.wrappers.request import Body

from proxystore_endpoint.app import limits
from proxystore_endpoint.app.errors import ApiError

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable


class StreamedBody(Body):
    """The body of a request that is written somewhere while it arrives."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self.arrived = 0
        self.wanted = asyncio.Event()
        self._sink: Callable[[bytes], None] | None = None

    def append(self, data: bytes) -> None:
        """Take in a part; Quart calls this."""
        self.arrived += len(data)
        if self._sink is None or self._must_raise is not None:
            return
        try:
            self._sink(data)
        except ApiError as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Let whoever reads the body get this error."""
        self._must_raise = error
        self.set_complete()

    @property
    def is_over(self) -> bool:
        """Whether it is all here, or will never be."""
        return self._complete.is_set()

    async def write_to(self, sink: Callable[[bytes], None]) -> None:
        """Hand everything to `sink`, part by part, and return at the end.

        Raises:
            ApiError: The client stalled, or what `sink` raised.
        """
        self._sink = sink
        self.wanted.set()
        try:
            await self._complete.wait()
        finally:
            self._sink = None
        if self._must_raise is not None:
            raise self._must_raise

    async def collect(self, limit: int) -> bytes:
        """Return a body that has to be short.

        Raises:
            ApiError: It is longer than `limit`, or the client stalled.
        """
        data = bytearray()

        def sink(part: bytes) -> None:
            if len(data) + len(part) > limit:
                raise ApiError(413, "too_large", f"This body may have {limit} bytes and no more.")
            data.extend(part)

        await self.write_to(sink)
        return bytes(data)


class StreamedRequest(Request):
    """A request whose body is a `StreamedBody`."""

    body_class = StreamedBody


class StreamedConnection(ASGIHTTPConnection):
    """One request, whose client has to keep up."""

    async def handle_messages(self, request: Request, receive: ASGIReceiveCallable) -> None:
        """Feed the body until the client is gone."""
        body = cast("StreamedBody", request.body)
        if request.content_length or "Transfer-Encoding" in request.headers:
            await body.wanted.wait()
        loop = asyncio.get_running_loop()
        since, counted = loop.time(), 0
        while True:
            try:
                async with asyncio.timeout_at(None if body.is_over else since + limits.STALL_S):
                    message: Any = await receive()
            except TimeoutError:
                if body.arrived - counted < limits.MIN_BODY_BYTES:
                    body.fail(_stalled())
                since, counted = loop.time(), body.arrived
                continue
            if message["type"] == "http.disconnect":
                return
            body.append(message.get("body", b""))
            if not message.get("more_body", False):
                body.set_complete()


def _stalled() -> ApiError:
    return ApiError(
        408,
        "timeout",
        f"Less than {limits.MIN_BODY_BYTES} bytes of the body came in {limits.STALL_S:g} s.",
        "Send the body without a pause.",
        {"Connection": "close"},
    )


def stream_bodies(app: Quart) -> None:
    """Make an application treat bodies so, and leave their sizes and times to us."""
    app.request_class = StreamedRequest
    app.asgi_http_class = StreamedConnection
    app.config["MAX_CONTENT_LENGTH"] = None
    app.config["BODY_TIMEOUT"] = None
    app.config["RESPONSE_TIMEOUT"] = None
