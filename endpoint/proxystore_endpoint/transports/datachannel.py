"""A message pipe over one WebRTC data channel of aiortc.

ICE finds the path through the NATs, DTLS encrypts it, SCTP makes it reliable; aiortc's objects for
these are used one by one (as in ORTC), so that no SDP is written or parsed and signalling is
a small dictionary. What goes through is told apart by one leading byte:

```
0  part of a message, more follows
1  last part of a message
2  credit: u32, bytes that the receiver has handed on since the last one
```

A message is cut into parts of `PART` bytes, because SCTP in Python looks through all fragments of
an unfinished message whenever one arrives. The receiver's credit keeps at most `WINDOW` bytes
unread, whatever the sender is: SCTP's own window ends where aiortc hands a message to us.

Importing this module costs half a second and some 50 MB; `webrtc` does so when it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import struct
from collections import deque

from aiortc import (
    RTCCertificate,
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceServer,
    RTCIceTransport,
    RTCSctpCapabilities,
    RTCSctpTransport,
)
from aiortc.sdp import candidate_from_sdp, candidate_to_sdp

from proxystore_endpoint.exceptions import MessageTooLargeError, PathError, PipeClosedError
from proxystore_endpoint.transports.description import KIND, MAX_CANDIDATES, Description
from proxystore_endpoint.transports.sctp import CHUNK, Drain, make_sctp

PART = 12 * CHUNK - 1  # with its leading byte, whole packets
MAX_MESSAGE = 2**20
WINDOW = 4 * 2**20  # bytes that may wait for the receiver's reader
SEND_AHEAD = 2**18  # bytes that may wait in the sender's SCTP
GATHER_TIMEOUT = 2  # seconds for a TURN server to answer
CLOSE_TIMEOUT = 2.0  # seconds for what was sent to arrive before the end
_MORE, _LAST, _CREDIT = b"\x00", b"\x01", b"\x02"
_CREDIT_BODY = struct.Struct("!I")
_SCTP_PORT = 5000


class DataChannelPipe:
    """Ordered, reliable messages over a data channel: a `Pipe`.

    `gather`, tell the other side, `connect`; then it is open.

    Args:
        stun: Address of a STUN server (RFC 8489) that tells us our address outside.
        turn: URL, user name and password of a TURN server (RFC 8656), which carries the
            packets if nothing else does.
        controlling: Whether we offer; ICE needs one side that decides.

    Attributes:
        kind: Always `webrtc`.
        max_message: Bytes of one message at most.
    """

    kind = KIND
    max_message = MAX_MESSAGE

    def __init__(
        self,
        stun: tuple[str, int] | None = None,
        turn: tuple[str, str | None, str | None] | None = None,
        *,
        controlling: bool,
    ) -> None:
        self._gatherer = RTCIceGatherer([RTCIceServer(*turn)] if turn else [])
        # All of this is public in aioice; only the way to it is not in aiortc.
        connection = self._gatherer._connection
        connection.stun_server = stun
        connection.ice_controlling = controlling
        connection.get_component_candidates = functools.partial(  # type: ignore[method-assign]  # else it waits 5 s for servers
            connection.get_component_candidates, timeout=GATHER_TIMEOUT
        )
        self._ice = RTCIceTransport(self._gatherer)
        self._dtls = RTCDtlsTransport(self._ice, [RTCCertificate.generateCertificate()])
        self._sctp: RTCSctpTransport | None = None
        self._channel: RTCDataChannel | None = None
        self._drains: list[Drain] = []

        self._parts: list[bytes] = []  # of the message that arrives
        self._messages: deque[bytes] = deque()
        self._held = 0  # bytes received and not yet handed on
        self._handed_on = 0  # bytes since the last credit
        self._credit = WINDOW
        self._opened = asyncio.Event()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = asyncio.Event()  # and then the three above are set, too
        self._gone = asyncio.Event()  # both sides have closed the channel, or it is lost
        self._why = ""
        self._sending = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        self._dtls.on("statechange", self._on_dtls)

    # Making the connection

    async def gather(self, session: str) -> Description:
        """Find our own addresses and describe this side."""
        await self._gatherer.gather()
        self._drains = [
            Drain(protocol)
            for protocol in self._gatherer._connection._protocols
            if protocol.local_candidate.type == "host"
        ]
        window = min((drain.window for drain in self._drains), default=0)
        self._sctp = make_sctp(self._dtls, _SCTP_PORT, window)
        self._channel = RTCDataChannel(
            self._sctp, RTCDataChannelParameters(label="proxystore", negotiated=True, id=0)
        )
        self._channel.bufferedAmountLowThreshold = SEND_AHEAD // 2
        self._channel.on("open", self._opened.set)
        self._channel.on("message", self._on_message)
        self._channel.on("bufferedamountlow", self._room.set)
        self._channel.on("close", self._on_close)
        ice, dtls = self._gatherer.getLocalParameters(), self._dtls.getLocalParameters()
        candidates = [candidate_to_sdp(each) for each in self._gatherer.getLocalCandidates()]
        return Description(
            session=session,
            username=str(ice.usernameFragment),
            password=str(ice.password),
            candidates=candidates[:MAX_CANDIDATES],
            fingerprints={each.algorithm: each.value for each in dtls.fingerprints},
            port=_SCTP_PORT,
            max_message=self._sctp.getCapabilities().maxMessageSize,
        )

    async def connect(self, remote: Description) -> None:
        """Connect to the other side.

        Raises:
            PathError: There is no way through, or somebody else answered.
        """
        if self._sctp is None:
            await self.gather(remote.session)
        assert self._sctp is not None  # noqa: S101 - for the type checker
        for text in remote.candidates:
            if candidate := _read_candidate(text):
                await self._ice.addRemoteCandidate(candidate)
        await self._ice.addRemoteCandidate(None)
        await self._ice.start(
            RTCIceParameters(usernameFragment=remote.username, password=remote.password)
        )
        if self._ice.state != "completed":
            raise PathError("no pair of addresses reaches through", kind=KIND)
        fingerprints = [RTCDtlsFingerprint(*each) for each in remote.fingerprints.items()]
        await self._dtls.start(RTCDtlsParameters(fingerprints=fingerprints))
        if self._dtls.state != "connected":
            raise PathError("the DTLS handshake failed", kind=KIND)
        await self._sctp.start(RTCSctpCapabilities(remote.max_message), remote.port)
        await self._opened.wait()
        if self._ended.is_set():
            raise PathError(f"the data channel did not open: {self._why}", kind=KIND)

    # The pipe

    async def send(self, message: bytes | memoryview) -> None:
        """Send a message; waits while too much is on its way or unread.

        Raises:
            PipeClosedError: The pipe is closed.
            MessageTooLargeError: It has more than `MAX_MESSAGE` bytes.
        """
        view = memoryview(message).cast("B")
        if len(view) > MAX_MESSAGE:
            raise MessageTooLargeError(
                f"A message has at most {MAX_MESSAGE} bytes, not {len(view)}.",
                nbytes=len(view),
                limit=MAX_MESSAGE,
            )
        async with self._sending:
            for begin in range(0, len(view) or 1, PART):
                part = view[begin : begin + PART]
                channel = await self._wait_for_room(len(part))
                self._credit -= len(part)
                mark = _LAST if begin + PART >= len(view) else _MORE
                channel.send(b"".join((mark, part)))

    async def _wait_for_room(self, nbytes: int) -> RTCDataChannel:
        while True:
            channel = self._open_channel(to_write=True)
            if self._credit >= nbytes and channel.bufferedAmount <= SEND_AHEAD:
                return channel
            self._room.clear()
            await self._room.wait()

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            PipeClosedError: The pipe is closed, and all that came before was read.
        """
        while not self._messages:
            self._open_channel()
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._held -= len(message)
        self._handed_on += len(message)
        if self._handed_on >= WINDOW // 8:
            with contextlib.suppress(PipeClosedError):  # told when there is nothing left to read
                channel = self._open_channel(to_write=True)
                channel.send(_CREDIT + _CREDIT_BODY.pack(self._handed_on))
                self._handed_on = 0
        return message

    async def close(self) -> None:
        """Close the pipe: what was sent still arrives if it does so soon. May be called twice."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._end("it is closed")
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.close()  # resets the stream, after all that was sent
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._gone.wait()
        if self._sctp is not None:
            await self._sctp.stop()
        await self._dtls.stop()
        await self._ice.stop()
        for drain in self._drains:
            drain.close()
        self._messages.clear()
        self._dtls.remove_all_listeners()

    # Events

    def _on_message(self, data: bytes) -> None:
        kind, body = data[:1], data[1:]
        if kind == _CREDIT and len(body) == _CREDIT_BODY.size:
            self._credit += _CREDIT_BODY.unpack(body)[0]
            self._room.set()
            return
        if self._ended.is_set():
            return
        self._held += len(body)
        if kind not in (_MORE, _LAST) or self._held > WINDOW:
            self._end("the peer sent what it may not")
            return
        self._parts.append(body)
        if kind == _LAST:
            self._messages.append(b"".join(self._parts))
            self._parts.clear()
            self._arrived.set()

    def _on_close(self) -> None:
        self._gone.set()
        self._end("the peer closed the channel")

    def _on_dtls(self) -> None:
        if self._dtls.state in ("closed", "failed"):
            self._gone.set()
            self._end("the connection was lost")

    def _end(self, why: str) -> None:
        if not self._ended.is_set():
            self._why = why
            for event in (self._ended, self._opened, self._arrived, self._room):
                event.set()

    def _open_channel(self, *, to_write: bool = False) -> RTCDataChannel:
        channel = self._channel
        if channel is None or self._ended.is_set():
            raise PipeClosedError(f"WebRTC: {self._why or 'not connected yet'}.")
        if to_write and channel.readyState != "open":  # what is on its way can still be read
            raise PipeClosedError("WebRTC: the peer is closing the channel.")
        return channel


def _read_candidate(text: str) -> RTCIceCandidate | None:
    """Read a line of SDP; `None` for what cannot be used: TCP, names to be looked up, nonsense."""
    try:
        candidate = candidate_from_sdp(text)
        ipaddress.ip_address(candidate.ip)
    except (ValueError, AssertionError, IndexError):
        return None
    good = candidate.component == 1 and 0 < candidate.port < 65536
    return candidate if good and candidate.protocol.lower() == "udp" else None
