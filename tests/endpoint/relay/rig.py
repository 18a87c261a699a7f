"""A relay's switch with clients, driven by hand."""

from __future__ import annotations

from uuid import UUID, uuid4

from proxystore_endpoint.limits import MIB
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay.limits import RelayLimits
from proxystore_endpoint.relay.port import Port
from proxystore_endpoint.relay.switch import Switch

BODY = m.encode_body({"sdp": "v=0"})


class Rig:
    """A switch with clients that are called by letters."""

    def __init__(self, letters: str = "ab", **limits: object) -> None:
        self.switch = Switch(RelayLimits(**limits))  # type: ignore[arg-type]
        self.now = 0.0
        self.woken: list[UUID] = []
        self.ports: dict[str, Port] = {}
        for letter in letters:
            self.join(letter)

    def join(self, letter: str, uuid: UUID | None = None, *, replace: bool = True) -> Port:
        uuid = uuid4() if uuid is None else uuid
        port = Port(uuid, letter, lambda: self.woken.append(uuid))
        if self.switch.register(port, replace=replace, now=self.now):
            self.ports[letter] = port
        return port

    def uuid(self, letter: str) -> UUID:
        return self.ports[letter].uuid

    def say(self, letter: str, message: object) -> None:
        """A client says something, as bytes."""
        frame = message if isinstance(message, bytes) else m.encode(message)  # type: ignore[arg-type]
        self.switch.receive(self.ports[letter], m.decode_from_client(frame), now=self.now)

    def hear(self, letter: str) -> object:
        """The next message for a client."""
        frame = self.ports[letter].pop(self.switch.deliver)
        return None if frame is None else m.decode_from_relay(frame)

    def all(self, letter: str) -> list[object]:
        """All messages for a client."""
        return list(iter(lambda: self.hear(letter), None))

    def data(self, letter: str) -> list[bytes]:
        """The payloads of all messages on circuits for a client."""
        return [bytes(x.payload) for x in self.all(letter) if isinstance(x, m.Data)]

    def leave(self, letter: str) -> None:
        self.switch.remove(self.ports[letter], m.Goodbye("closed"), now=self.now)

    def circuit(self, opener: str = "a", other: str = "b", window: int = 4 * MIB) -> int:
        """Open a circuit; return its number."""
        self.say(opener, m.Open(7, self.uuid(other), window))
        incoming = self.all(other)[-1]
        assert isinstance(incoming, m.Incoming)
        assert incoming.source == self.uuid(opener)
        self.say(other, m.Accept(incoming.circuit, window))
        opened = self.all(opener)[-1]
        assert opened == m.Opened(7, incoming.circuit, self.switch.limits.first_window)
        return incoming.circuit

    def check(self) -> None:
        """What always holds."""
        flows = [f for c in self.switch.circuits.values() for f in (c.forward, c.backward)]
        assert self.switch.held == sum(f.held for f in flows)
        for flow in flows:
            assert flow.queued == sum(x.cost for x in flow.queue)
            assert flow.granted >= 0
        assert self.switch.held <= self.switch.limits.buffered
