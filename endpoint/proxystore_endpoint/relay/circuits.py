"""A circuit inside the relay: two flows of messages, each with credit on either side of it.

The relay grants credit to who sends and is granted credit by who receives. So it never holds more
of a flow than it granted, and a slow receiver stops only those who send to it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proxystore_endpoint.limits import KIB
from proxystore_endpoint.relay.messages import Data

if TYPE_CHECKING:
    from proxystore_endpoint.relay.port import Port

QUANTUM = 64 * KIB
"""What a source may send to one receiver before it is the next one's turn."""


class Flow:
    """One direction of a circuit.

    Attributes:
        circuit: The circuit's number.
        source: Who sends.
        sink: Who receives.
        granted: What the source may still send, by the relay's leave.
        credit: What the relay may still send, by the sink's leave.
        queued: What waits here; `granted + queued` is what the flow can make the relay hold.
        ended: Why no more comes, told to the sink when the queue is empty.
        told: Whether the sink knows.
        listed: Whether the flow is in the sink's schedule.
    """

    __slots__ = (
        "circuit",
        "credit",
        "ended",
        "granted",
        "listed",
        "queue",
        "queued",
        "sink",
        "source",
        "told",
    )

    def __init__(self, circuit: int, source: Port, sink: Port, *, granted: int) -> None:
        self.circuit = circuit
        self.source = source
        self.sink = sink
        self.granted = granted
        self.credit = 0
        self.queue: deque[Data] = deque()
        self.queued = 0
        self.ended: str | None = None
        self.told = False
        self.listed = False

    @property
    def held(self) -> int:
        """Bytes that the relay holds, or may have to, for this flow."""
        return self.granted + self.queued

    @property
    def ready(self) -> bool:
        """Whether something can go to the sink now."""
        if self.queue:
            return self.credit >= self.queue[0].cost
        return self.ended is not None and not self.told

    def clear(self) -> int:
        """Drop what waits and withdraw all credit; return the bytes that this frees."""
        held = self.held
        self.queue.clear()
        self.granted = self.queued = 0
        return held


class Circuit:
    """Two flows between two clients.

    Attributes:
        number: The number that both ends know it by.
        request: The opener's number for its request while it is not answered, else `None`.
        forward: From the opener to the other client.
        backward: The other way.
        deadline: When it is given up: an unanswered one, or one that lingers half closed.
    """

    __slots__ = ("backward", "deadline", "forward", "number", "request")

    def __init__(
        self, number: int, opener: Port, other: Port, *, request: int, granted: int
    ) -> None:
        self.number = number
        self.request: int | None = request
        self.forward = Flow(number, opener, other, granted=granted)
        self.backward = Flow(number, other, opener, granted=granted)
        self.deadline: float | None = None

    @property
    def opener(self) -> Port:
        """Who asked for the circuit."""
        return self.forward.source

    def flow_from(self, port: Port) -> Flow:
        """The flow that a client sends on."""
        return self.forward if self.forward.source is port else self.backward

    def flow_to(self, port: Port) -> Flow:
        """The flow that a client receives from."""
        return self.backward if self.forward.source is port else self.forward


class Lane:
    """What one source has for one receiver: signals first, then its circuits in turn.

    Attributes:
        source: Who it is from.
        signals: Encoded signals.
        queued: Bytes of them.
        flows: Flows that are ready.
        deficit: What the source may send before it is the next one's turn (deficit round robin).
    """

    __slots__ = ("deficit", "flows", "queued", "signals", "source")

    def __init__(self, source: Port) -> None:
        self.source = source
        self.signals: deque[bytes] = deque()
        self.queued = 0
        self.flows: deque[Flow] = deque()
        self.deficit = 0
