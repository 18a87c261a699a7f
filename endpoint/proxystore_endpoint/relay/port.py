"""A registered client as the relay's switch sees it: what waits for it, in what order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from uuid import UUID

from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay.circuits import QUANTUM, Circuit, Flow, Lane


class Port:
    """A registered client, as the switch sees it.

    Args:
        uuid: Its id.
        principal: Who it belongs to, as the authentication says.
        wake: Called when there is something to pop.

    Attributes:
        goodbye: Set when the client has to go: the last message that `pop` returns.
        control_bytes: Bytes of answers that wait for the client.
    """

    def __init__(self, uuid: UUID, principal: str, wake: Callable[[], None]) -> None:
        self.uuid = uuid
        self.principal = principal
        self.goodbye: m.Goodbye | None = None
        self.control_bytes = 0
        self.circuits: dict[int, Circuit] = {}
        self._wake = wake
        self._control: deque[bytes] = deque()
        self._lanes: dict[Port, Lane] = {}
        self._turns: deque[Lane] = deque()
        self._parting: bytes | None = None

    def answer(self, message: m.FromRelay) -> None:
        """Queue a control message for the client."""
        self._push(m.encode(message))

    def _push(self, frame: bytes) -> None:
        if self.goodbye is None:
            self._control.append(frame)
            self.control_bytes += len(frame)
            self._wake()

    def dismiss(self, goodbye: m.Goodbye) -> None:
        """Drop what waits for the client, and tell it why it has to go."""
        if self.goodbye is None:
            self.goodbye = goodbye
            self._parting = m.encode(goodbye)
            self._control.clear()
            self._lanes.clear()
            self._turns.clear()
            self._wake()

    def give_credit(self, circuit: int, amount: int) -> None:
        """Let the client send more on a circuit."""
        self._push(m.encode_credit(circuit, amount))

    def signals_queued(self, source: Port) -> int:
        """Bytes of signals from another client that wait for this one."""
        lane = self._lanes.get(source)
        return 0 if lane is None else lane.queued

    def signal(self, source: Port, frame: bytes) -> None:
        """Queue a signal from another client."""
        if self.goodbye is None:
            lane = self._lane(source)
            lane.signals.append(frame)
            lane.queued += len(frame)
            self._wake()

    def schedule(self, flow: Flow) -> None:
        """Give a flow that is ready its turns."""
        if self.goodbye is None and not flow.listed:
            flow.listed = True
            self._lane(flow.source).flows.append(flow)
            self._wake()

    def _lane(self, source: Port) -> Lane:
        lane = self._lanes.get(source)
        if lane is None:  # a lane exists while something waits in it
            lane = self._lanes[source] = Lane(source)
            self._turns.append(lane)
        return lane

    def pop(self, deliver: Callable[[Flow], bytes]) -> bytes | None:
        """The next message for the client: answers first, then source after source.

        Args:
            deliver: Takes the next message from a flow (`Switch.deliver`).

        Returns:
            A message, or `None` when there is nothing to send now.
        """
        if self._parting is not None:
            parting, self._parting = self._parting, None
            return parting
        if self._control:
            frame = self._control.popleft()
            self.control_bytes -= len(frame)
            return frame
        while self._turns:
            lane = self._turns[0]
            if (message := self._pop_lane(lane, deliver)) is not None:
                return message
            self._turns.popleft()
            if lane.signals or lane.flows:  # its turn is over
                lane.deficit += QUANTUM
                self._turns.append(lane)
            else:
                del self._lanes[lane.source]
        return None

    def _pop_lane(self, lane: Lane, deliver: Callable[[Flow], bytes]) -> bytes | None:
        if lane.signals:
            if lane.deficit <= 0:
                return None
            frame = lane.signals.popleft()
            lane.queued -= len(frame)
            lane.deficit -= len(frame)
            return frame
        while lane.flows:
            flow = lane.flows[0]
            if not flow.ready:
                lane.flows.popleft()
                flow.listed = False
                continue
            if lane.deficit <= 0:
                return None
            frame = deliver(flow)
            lane.deficit -= len(frame)
            lane.flows.rotate(-1)
            return frame
        return None
