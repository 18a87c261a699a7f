"""aiortc's SCTP, tuned for bulk data at run time.

aiortc answers each packet with an acknowledgement, starts with three packets in flight,
sends at most four at a time, reads one datagram per turn of the event loop, and never repeats a
lost packet before a second is over. Each of these costs more than the network does. A subclass
changes them and nothing else of the protocol, so that both kinds understand each other:

* what arrived together is acknowledged together (RFC 9260, 6.2, asks for every second packet;
  our sender counts bytes instead of acknowledgements, as RFC 3465 does for TCP);
* the first window is `INITIAL_WINDOW`, as many QUIC stacks have it;
* what our socket can hold is advertised as our window, and the sender keeps to that of its peer:
  bursts that overflow a socket's buffer are the usual loss on fast links;
* after a loss the window shrinks by an eighth and grows as that of four Reno streams side by side
  does (MulTCP, Crowcroft and Oechslin 1998), as browsers and grid tools open several;
* the retransmission timer may go down to `RTO_MIN`, as in Linux' TCP;
* all datagrams that wait in a socket are read in one turn.

What is left is Python's work per packet of 1.2 kB, through SCTP, DTLS and the system calls:
some 20 to 40 µs on each side, which ends at 25 to 55 MB/s on one core, whatever the network.
Direct TCP has none of this. Where packets get lost, four Reno streams are the limit, some
5 MB/s at 10 ms and 1 %. A chunk stays as large as aiortc makes it: packets fit an MTU of 1280.

The methods replaced are private to aiortc. Where another release lacks one of the names used here,
`make_sctp` gives the library's own class: slower, not broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from aiortc import RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcsctptransport import USERDATA_MAX_LENGTH, SackChunk

CHUNK = USERDATA_MAX_LENGTH  # bytes of data in one packet
INITIAL_WINDOW = 32 * CHUNK
BURST = 64 * CHUNK  # sent at once at most
SACK_EVERY = 16  # packets
FLOWS = 4  # of Reno, whose share we take
RTO_INITIAL = 1.0  # seconds, RFC 9260 section 16
RTO_MIN = 0.2  # seconds
RECEIVE_BUFFER = 4 * 2**20  # bytes asked for; the system's net.core.rmem_max may give less
MIN_WINDOW = 64 * CHUNK
_PACKET_COST = 2304  # bytes of a socket's buffer that Linux books for a packet of CHUNK
_READ_AT_ONCE = 64  # datagrams
_DATAGRAM = 2048  # bytes; no packet here is larger
_TSN = 2**32
_METHODS = (
    *("_mark_received", "_receive_sack_chunk", "_send_chunk", "_send_sack", "_set_state"),
    *("_flight_size_increase", "_t3_expired", "_t3_restart", "_t3_start", "_transmit"),
    "_update_rto",
)
_FIELDS = (
    *("_advertised_rwnd", "_cwnd", "_fast_recovery_exit", "_fast_recovery_transmit"),
    *("_flight_size", "_forward_tsn_chunk", "_last_received_tsn", "_last_sacked_tsn"),
    *("_outbound_queue", "_rto", "_rttvar", "_sack_duplicates", "_sack_misordered"),
    *("_sack_needed", "_sent_queue", "_srtt", "_t3_handle"),
)


class TunedSctpTransport(RTCSctpTransport):
    """SCTP with larger windows and fewer acknowledgements; see the module."""

    def __init__(self, transport: RTCDtlsTransport, port: int) -> None:
        super().__init__(transport, port)
        self._cwnd = INITIAL_WINDOW
        self._rto = RTO_INITIAL
        self._lost = False  # something may have to be sent again
        self._unacknowledged = 0  # packets
        self._sack_handle: asyncio.Handle | None = None

    # Receiving

    def _mark_received(self, tsn: int) -> bool:
        ahead = (tsn - (self._last_received_tsn or 0)) % _TSN
        early = self._sack_misordered
        if ahead == 0 or ahead >= _TSN // 2 or tsn in early:
            self._sack_duplicates.append(tsn)
            return True
        if ahead > 1:
            early.add(tsn)
            return False
        while early and (tsn + 1) % _TSN in early:
            tsn = (tsn + 1) % _TSN
            early.discard(tsn)
        self._last_received_tsn = tsn
        return False

    async def _send_sack(self) -> None:
        self._unacknowledged += 1
        if self._unacknowledged >= SACK_EVERY or self._sack_duplicates:
            await self._sack_now()
        elif self._sack_handle is None:
            self._sack_handle = asyncio.get_running_loop().call_soon(self._sack_soon)

    def _sack_soon(self) -> None:
        self._sack_handle = None
        if self._unacknowledged:
            asyncio.ensure_future(self._sack_now()).add_done_callback(_lost_connection)

    async def _sack_now(self) -> None:
        self._unacknowledged = 0
        await super()._send_sack()

    # Sending

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        acknowledged = (chunk.cumulative_tsn - self._last_sacked_tsn) % _TSN
        if acknowledged < _TSN // 2:
            self._lost = self._lost or bool(chunk.gaps)
            if self._fast_recovery_exit is None and self._flight_size >= self._cwnd:
                more = min(acknowledged, 4 * SACK_EVERY) * CHUNK
                if self._cwnd > self._ssthresh:
                    more = more * FLOWS * CHUNK // self._cwnd
                self._cwnd += more
            self._cwnd = min(self._cwnd, max(chunk.advertised_rwnd, CHUNK))
        window, recovering = self._cwnd, self._fast_recovery_exit is not None
        await super()._receive_sack_chunk(chunk)
        if self._fast_recovery_exit is not None and not recovering:  # it has halved the window
            self._ssthresh = self._cwnd = max(window - window // (2 * FLOWS), 4 * CHUNK)

    def _update_rto(self, R: float) -> None:  # noqa: N803 - the name that aiortc gives it
        super()._update_rto(R)
        if self._srtt is not None and self._rttvar is not None:
            self._rto = max(RTO_MIN, self._srtt + 4 * self._rttvar)

    def _t3_expired(self) -> None:
        self._lost = True
        super()._t3_expired()

    async def _transmit(self) -> None:
        if self._forward_tsn_chunk is not None:  # only for channels that may lose messages
            await super()._transmit()
            return
        window = min(self._flight_size + BURST, self._cwnd)
        if self._lost and not await self._retransmit(window):
            return
        while self._outbound_queue and self._flight_size < window:
            chunk = self._outbound_queue.popleft()
            self._sent_queue.append(chunk)
            self._flight_size_increase(chunk)
            chunk._sent_count += 1
            chunk._sent_time = time.time()
            await self._send_chunk(chunk)
            if not self._t3_handle:
                self._t3_start()

    async def _retransmit(self, window: int) -> bool:
        """Send again what was lost; tell whether there is room for more."""
        oldest = self._sent_queue[0] if self._sent_queue else None
        for chunk in [chunk for chunk in self._sent_queue if chunk._retransmit]:
            if self._fast_recovery_transmit:  # one at once, RFC 9260 section 7.2.4
                self._fast_recovery_transmit = False
            elif self._flight_size >= window:
                return False
            self._flight_size_increase(chunk)
            chunk._misses = 0
            chunk._retransmit = False
            chunk._sent_count += 1
            await self._send_chunk(chunk)
            if chunk is oldest:
                self._t3_restart()
        self._lost = False
        return True

    def _set_state(self, state: RTCSctpTransport.State) -> None:
        if state == self.State.CLOSED and self._sack_handle is not None:
            self._sack_handle.cancel()
            self._sack_handle = None
        super()._set_state(state)


def _lost_connection(task: asyncio.Task[None]) -> None:
    """Take note of a failed task: the connection ends for all, which tells its owner."""
    if not task.cancelled():
        task.exception()


def make_sctp(transport: RTCDtlsTransport, port: int, window: int) -> RTCSctpTransport:
    """Return an SCTP transport, tuned if this release of aiortc can be.

    Args:
        transport: The DTLS transport below.
        port: Our SCTP port.
        window: Bytes that our sockets can hold.
    """
    plain = RTCSctpTransport(transport, port)
    known = all(hasattr(plain, name) for name in (*_METHODS, *_FIELDS))
    sctp = TunedSctpTransport(transport, port) if known else plain
    sctp._advertised_rwnd = max(MIN_WINDOW, window)
    return sctp


class Drain:
    """Reads whatever waits in a socket when asyncio has read one datagram from it.

    asyncio reads one datagram per turn of its loop, and a turn costs as much as a packet does.

    Attributes:
        window: Bytes of packets that the socket's buffer holds.
    """

    def __init__(self, protocol: Any) -> None:
        transport: asyncio.DatagramTransport = protocol.transport
        theirs = transport.get_extra_info("socket")
        self._socket = socket.socket(fileno=os.dup(theirs.fileno()))
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):  # some systems refuse what Linux just limits
                self._socket.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER)
        booked = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.window = booked // _PACKET_COST * CHUNK
        if hasattr(transport, "max_size"):  # asyncio allocates that much for each datagram
            transport.max_size = _DATAGRAM
        self._received: Callable[[bytes, Any], None] = protocol.datagram_received
        protocol.datagram_received = self._datagram_received

    def _datagram_received(self, data: bytes, address: Any) -> None:
        self._received(data, address)
        try:
            for _ in range(_READ_AT_ONCE):
                self._received(*self._socket.recvfrom(_DATAGRAM))
        except OSError:  # BlockingIOError: it is empty; another: asyncio will meet and tell it
            return

    def close(self) -> None:
        """Close our duplicate of the socket."""
        self._socket.close()
