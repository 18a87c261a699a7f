"""Opening a lane: the connecting side's handshake in the thread that will drive the lane."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from uuid import UUID

from proxystore_endpoint.limits import Limits
from proxystore_endpoint.transports.handshake import Credentials, Handshaken, connect
from proxystore_endpoint.transports.lanes import Lane
from proxystore_endpoint.transports.roles import LaneHandler
from proxystore_endpoint.wire.messages import Ready


async def open_lane(
    raw: socket.socket,
    peer: UUID,
    credentials: Credentials,
    handler: Callable[[Ready], LaneHandler],
    *,
    kind: str,
    limits: Limits,
    timeout: float,
    link: bytes = b"",
    number: int = 0,
    remote: str = "",
) -> tuple[Lane, Handshaken]:
    """Make a lane of a connected socket, which it takes over. Cancelling cuts it.

    Args:
        raw: The socket.
        peer: Who must be at the other end.
        credentials: What we show.
        handler: Gives who answers requests on the lane, by what the peer said.
        kind: Kind of the path.
        limits: What the connection allows.
        timeout: Seconds for the handshake.
        link: Id that all lanes of a link share.
        number: Number of the lane in its link.
        remote: Address, for people.

    Raises:
        PeerRefusedError: The peer does not let us in.
        PathError: It is not the peer, or does not answer in time.
    """
    opening = _Opening(raw)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Lane, Handshaken]] = loop.create_future()
    deadline = time.monotonic() + timeout

    def tell(lane: tuple[Lane, Handshaken] | None, error: Exception | None) -> None:
        if future.done():
            if lane is not None:
                lane[0].kill()
        elif lane is not None:
            future.set_result(lane)
        elif error is not None:
            future.set_exception(error)

    def run() -> None:
        try:
            done = connect(
                raw,
                peer,
                credentials,
                kind=kind,
                limits=limits,
                deadline=deadline,
                link=link,
                lane=number,
            )
        except Exception as error:  # noqa: BLE001  # told to who waits
            opening.finished()
            _call(loop, tell, None, error)
            return
        opening.finished()
        lane = Lane(
            done.sock,
            done.connection,
            peer=peer,
            kind=kind,
            outbound=True,
            handler=handler(done.ready),
            agent=done.hello.agent,
            remote=remote,
            thread=threading.current_thread(),
        )
        if not _call(loop, tell, (lane, done), None):
            lane.kill()
        lane.run()

    threading.Thread(target=run, name=f"lane-{kind}", daemon=True).start()
    try:
        return await future
    except BaseException:
        opening.cut()
        if future.done() and not future.cancelled() and future.exception() is None:
            future.result()[0].kill()  # it was there just now
        raise


class _Opening:
    """Cuts a socket while its handshake is under way, and not later."""

    def __init__(self, raw: socket.socket) -> None:
        # A descriptor of our own: the handshake takes the socket's away, and may close it.
        self._duplicate: socket.socket | None = raw.dup()
        self._lock = threading.Lock()

    def finished(self) -> None:
        with self._lock:
            if self._duplicate is not None:
                self._duplicate.close()
                self._duplicate = None

    def cut(self) -> None:
        with self._lock:
            if self._duplicate is not None:
                with contextlib.suppress(OSError):  # it may have been closed by the other side
                    self._duplicate.shutdown(socket.SHUT_RDWR)


def _call(loop: asyncio.AbstractEventLoop, function: object, *args: object) -> bool:
    try:
        loop.call_soon_threadsafe(function, *args)  # type: ignore[arg-type]  # see the callers
    except RuntimeError:  # the loop is closed
        return False
    return True
