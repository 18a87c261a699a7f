"""What a relay knows and decides, without I/O: messages in, messages for others out.

The server tells the switch what each client sent (`receive`) and takes what there is to send to a
client (`Port.pop`) whenever that client can take more. Times are arguments.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from proxystore_endpoint.exceptions import RelayLimitError, RelayMessageError
from proxystore_endpoint.limits import MAX_SIGNAL
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay import reasons
from proxystore_endpoint.relay.circuits import Circuit, Flow
from proxystore_endpoint.relay.limits import Bucket, RelayLimits
from proxystore_endpoint.relay.port import Port

_MAX_CREDIT = 1 << 32
_LINGER = 60.0  # for a slow receiver to take what was sent before the end
_SHARE = 4  # credit is returned when a quarter of the window is free: few messages, no stalls


class Switch:
    """The registered clients of a relay and their circuits.

    Args:
        limits: What clients may do.

    Attributes:
        ports: Registered clients by id.
        held: Bytes that the relay holds, or granted, for circuits.
        counts: What happened, for the metrics.
    """

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.limits = RelayLimits() if limits is None else limits
        self.ports: dict[UUID, Port] = {}
        self.circuits: dict[int, Circuit] = {}
        self.held = 0
        self.counts: Counter[str] = Counter()
        self._rates: dict[Port, tuple[Bucket, Bucket]] = {}
        self._numbers = 0

    # Who is there.

    def register(self, port: Port, *, replace: bool, now: float) -> bool:
        """Take a client in; the newest registration of an id wins.

        Args:
            port: The client; what is queued for it goes out after the welcome.
            replace: Whether an older registration has to go.
            now: Time in seconds.

        Returns:
            Whether it is in; not so if `replace` is false and the id is taken.

        Raises:
            RelayLimitError: If there are too many clients.
        """
        older = self.ports.get(port.uuid)
        if older is not None:
            if not replace:
                return False
            self.remove(
                older,
                m.Goodbye("replaced", "A newer registration of this id took over."),
                now=now,
            )
            self.counts["replaced"] += 1
        if len(self.ports) >= self.limits.registrations:
            raise RelayLimitError("The relay has as many clients as it may.")
        self.ports[port.uuid] = port
        limits = self.limits
        self._rates[port] = (
            Bucket(limits.signals, 5 * limits.signals),
            Bucket(limits.opens, 5 * limits.opens),
        )
        self.counts["registrations"] += 1
        return True

    def remove(self, port: Port, goodbye: m.Goodbye, *, now: float) -> None:
        """Let a client go; the other ends of its circuits are told."""
        if self._rates.pop(port, None) is None:
            return
        if self.ports.get(port.uuid) is port:
            del self.ports[port.uuid]
        port.dismiss(goodbye)
        for circuit in list(port.circuits.values()):
            self._end(circuit, port, reasons.GONE, now=now)
        port.circuits.clear()

    # What they say.

    def receive(
        self, port: Port, message: m.FromClient | m.Data | m.Credit | m.Unknown, *, now: float
    ) -> None:
        """Act on a message of a registered client.

        Raises:
            RelayMessageError: If it breaks the rules; the client has to go.
        """
        match message:
            case m.Data():
                self._data(port, message)
            case m.Credit():
                self._credit(port, message)
            case m.Ping():
                port.answer(m.Pong(message.id))
            case m.Signal():
                port.answer(m.Result(message.id, self._signal(port, message, now)))
            case m.Open():
                if error := self._open(port, message, now):
                    self.counts["opens_failed"] += 1
                    port.answer(m.Result(message.id, error))
            case m.Accept():
                self._accept(port, message)
            case m.Close():
                circuit = port.circuits.get(message.circuit)
                if circuit is not None:
                    self._end(circuit, port, message.reason or reasons.CLOSED, now=now)
            case m.Register():
                raise RelayMessageError("The client is registered already.")
            case m.Unknown():
                self.counts["unknown_messages"] += 1

    def _signal(self, port: Port, message: m.Signal, now: float) -> str:
        if len(message.body) > MAX_SIGNAL:
            return reasons.TOO_LARGE
        if not self._rates[port][0].take(now):
            return reasons.RATE
        target = self.ports.get(message.to)
        if target is None:
            return reasons.UNKNOWN
        if target.signals_queued(port) > self.limits.signals_queued:
            return reasons.BUSY
        target.signal(port, m.encode(m.Signalled(port.uuid, message.body)))
        self.counts["signals"] += 1
        return ""

    def _open(self, port: Port, message: m.Open, now: float) -> str:
        if not self._rates[port][1].take(now):
            return reasons.RATE
        target = self.ports.get(message.to)
        if target is None:
            return reasons.UNKNOWN
        if target is port:
            return reasons.REFUSED
        limits = self.limits
        if max(len(port.circuits), len(target.circuits)) >= limits.circuits:
            return reasons.LIMIT
        granted = limits.first_window
        if self.held + 2 * granted > limits.buffered:
            return reasons.BUSY
        self._numbers += 1
        circuit = Circuit(self._numbers, port, target, request=message.id, granted=granted)
        circuit.deadline = now + limits.accept_timeout
        circuit.backward.credit = message.window
        self.held += 2 * granted
        self.circuits[circuit.number] = circuit
        port.circuits[circuit.number] = target.circuits[circuit.number] = circuit
        target.answer(m.Incoming(circuit.number, port.uuid, granted))
        return ""

    def _accept(self, port: Port, message: m.Accept) -> None:
        circuit = port.circuits.get(message.circuit)
        if circuit is None:
            return  # it is over already
        if circuit.forward.ended is not None:
            return  # its opener went meanwhile
        if circuit.opener is port or circuit.request is None:
            raise RelayMessageError("Nobody asked this client for that circuit.")
        request, circuit.request = circuit.request, None
        circuit.deadline = None
        circuit.forward.credit = message.window
        circuit.opener.answer(m.Opened(request, circuit.number, circuit.forward.granted))
        self.counts["circuits"] += 1

    def _data(self, port: Port, message: m.Data) -> None:
        circuit = port.circuits.get(message.circuit)
        if circuit is None:
            self.counts["late_messages"] += 1  # it crossed with the end of the circuit
            return
        flow = circuit.flow_from(port)
        if flow.ended is not None:
            self.counts["late_messages"] += 1
            return
        if circuit.request is not None:
            raise RelayMessageError("The circuit is not open yet.")
        cost = message.cost
        if cost > flow.granted:
            raise RelayMessageError("The client sent more on a circuit than it had credit for.")
        flow.granted -= cost
        flow.queued += cost
        flow.queue.append(message)
        if flow.ready:
            flow.sink.schedule(flow)

    def _credit(self, port: Port, message: m.Credit) -> None:
        circuit = port.circuits.get(message.circuit)
        if circuit is None or circuit.request is not None:
            return
        flow = circuit.flow_to(port)
        flow.credit = min(_MAX_CREDIT, flow.credit + message.amount)
        if flow.ready:
            port.schedule(flow)

    def deliver(self, flow: Flow) -> bytes:
        """The next message of a ready flow, on its way to the sink; its source gets new credit."""
        if not flow.queue:
            flow.told = True
            self._forget(flow)
            return m.encode(m.Closed(flow.circuit, flow.ended or reasons.CLOSED))
        message = flow.queue.popleft()
        cost = message.cost
        flow.credit -= cost
        flow.queued -= cost
        self.held -= cost
        self.counts["forwarded_messages"] += 1
        self.counts["forwarded_bytes"] += len(message.frame) - m.DATA_HEADER
        if flow.ended is None:
            self._grant(flow)
        return message.frame

    def _grant(self, flow: Flow) -> None:
        limits = self.limits
        roomy = self.held < limits.buffered // 2
        window = limits.window if roomy else limits.first_window
        amount = window - flow.held
        if amount >= window // _SHARE:
            flow.granted += amount
            self.held += amount
            flow.source.give_credit(flow.circuit, amount)

    # How circuits end.

    def _end(self, circuit: Circuit, port: Port, reason: str, *, now: float) -> None:
        """`port` ends a circuit: what it sent still arrives, what comes for it is dropped."""
        outgoing, incoming = circuit.flow_from(port), circuit.flow_to(port)
        port.circuits.pop(circuit.number, None)
        self.held -= incoming.clear()
        incoming.told = True
        if incoming.ended is None:
            incoming.ended = reason
        self.held -= outgoing.granted
        outgoing.granted = 0
        if outgoing.ended is not None:  # the other side ended it before
            self.held -= outgoing.clear()
            outgoing.told = True
            self._drop(circuit)
            return
        outgoing.ended = reason
        other = outgoing.sink
        if circuit.request is not None and other is circuit.opener:
            request, circuit.request = circuit.request, None
            other.circuits.pop(circuit.number, None)
            other.answer(m.Result(request, reason))
            self._drop(circuit)
            return
        circuit.request = None
        circuit.deadline = now + _LINGER
        if outgoing.ready:
            other.schedule(outgoing)

    def _forget(self, flow: Flow) -> None:
        circuit = self.circuits.get(flow.circuit)
        if circuit is not None:
            flow.sink.circuits.pop(flow.circuit, None)
            self._drop(circuit)

    def _drop(self, circuit: Circuit) -> None:
        if self.circuits.pop(circuit.number, None) is not None:
            self.held -= circuit.forward.clear() + circuit.backward.clear()

    def tick(self, now: float) -> None:
        """Give up circuits that nobody answers, and ended ones that nobody drains."""
        for circuit in [
            c for c in self.circuits.values() if c.deadline is not None and c.deadline <= now
        ]:
            if circuit.request is not None:
                other = circuit.forward.sink
                self._end(circuit, other, reasons.TIMEOUT, now=now)
                other.answer(m.Closed(circuit.number, reasons.TIMEOUT))
                continue
            for port in (circuit.opener, circuit.forward.sink):
                if port.circuits.pop(circuit.number, None) is not None:
                    port.answer(m.Closed(circuit.number, reasons.TIMEOUT))
            self._drop(circuit)
