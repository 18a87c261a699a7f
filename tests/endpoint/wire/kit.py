"""Two connections and the links between them, without sockets and clocks."""

from __future__ import annotations

from collections.abc import Callable

from proxystore_endpoint.limits import Limits
from proxystore_endpoint.wire.connection import Connection, Role
from proxystore_endpoint.wire.events import BodyReceived, Event, RequestReceived, ResponseReceived
from proxystore_endpoint.wire.messages import Auth, Hello, Ready, Request, Response

HELLO = Hello(version=1, min_version=1, nonce=bytes(32), agent="kit")
AUTH = Auth(version=1, public_key=bytes(32), signature=bytes(64), agent="kit")
READY = Ready(rights=["read", "write", "list"])


class Link:
    """One direction: what one side sends waits here until it is delivered."""

    def __init__(self, sender: Connection, receiver: Connection) -> None:
        self.sender = sender
        self.receiver = receiver
        self.waiting = bytearray()

    def collect(self, max_bytes: int | None = None) -> bytes:
        """Take what the sender has to send, and return it too."""
        raw = b"".join(bytes(part) for part in self.sender.to_send(max_bytes))
        self.waiting += raw
        return raw

    def deliver(
        self, now: float, handle: Callable[[list[Event]], None], n: int | None = None
    ) -> None:
        """Hand over some bytes, in the pieces that the receiver asks for."""
        n = len(self.waiting) if n is None else min(n, len(self.waiting))
        data = memoryview(bytes(self.waiting[:n]))
        del self.waiting[:n]
        while len(data) and not self.receiver.ended:
            view = self.receiver.buffer()
            take = min(len(view), len(data))
            view[:take] = data[:take]
            data = data[take:]
            handle(self.receiver.received(take, now))
            while self.receiver.paused:
                handle(self.receiver.received(0, now))


class Node:
    """One side with a user that answers at once from a dictionary."""

    def __init__(self, role: Role, limits: Limits) -> None:
        self.connection = Connection(role, limits=limits, now=0.0)
        self.events: list[Event] = []
        self.objects: dict[str, bytes] = {}
        self.sinks: dict[int, bytearray] = {}
        self.puts: dict[int, Request] = {}

    def note(self, events: list[Event]) -> None:
        """Remember events, and do no more."""
        self.events += events

    def serve(self, events: list[Event]) -> None:
        """Answer requests, take bodies."""
        self.events += events
        for event in events:
            if isinstance(event, RequestReceived):
                self._answer(event.stream, event.request)
            elif isinstance(event, ResponseReceived) and event.response.nbytes:
                self.sink(event.stream, event.response.nbytes)
            elif isinstance(event, BodyReceived) and event.stream in self.puts:
                request = self.puts.pop(event.stream)
                self.objects[request.key] = bytes(self.sinks[event.stream])
                self.connection.respond(event.stream, Response(durability="memory"))

    def sink(self, stream: int, nbytes: int) -> None:
        """Give a stream memory."""
        self.sinks[stream] = bytearray(nbytes)
        self.connection.set_sink(stream, memoryview(self.sinks[stream]))

    def _answer(self, stream: int, request: Request) -> None:
        if request.op == "get" and request.key in self.objects:
            data = self.objects[request.key]
            end = len(data) if request.length < 0 else request.offset + request.length
            body = memoryview(data)[request.offset : end]
            self.connection.respond(stream, Response(nbytes=len(body), size=len(data)), body)
        elif request.op == "put":
            self.puts[stream] = request
            self.sink(stream, request.nbytes)
        elif request.op == "exists":
            self.connection.respond(stream, Response(found=request.key in self.objects))
        else:
            self.connection.respond(stream, Response(status="missing"))

    def last(self, kind: type[Event]) -> Event:
        """The last event of a kind."""
        return [event for event in self.events if isinstance(event, kind)][-1]


class Pair:
    """Two sides that are ready, and the two links between them."""

    def __init__(self, limits: Limits | None = None, *, ready: bool = True) -> None:
        limits = Limits() if limits is None else limits
        self.now = 0.0
        self.client = Node(Role.CLIENT, limits)
        self.server = Node(Role.SERVER, limits)
        self.up = Link(self.client.connection, self.server.connection)
        self.down = Link(self.server.connection, self.client.connection)
        if ready:
            self.server.connection.send_hello(HELLO)
            self.flow()
            self.client.connection.send_auth(AUTH)
            self.flow()
            self.server.connection.send_ready(READY)
            self.flow()
            self.tick(0.0)
            self.client.events.clear()
            self.server.events.clear()

    def flow(self) -> None:
        """Deliver until nothing moves."""
        moved = True
        while moved:
            moved = bool(self.up.collect() or self.up.waiting)
            self.up.deliver(self.now, self.server.serve)
            moved = bool(self.down.collect() or self.down.waiting) or moved
            self.down.deliver(self.now, self.client.serve)

    def tick(self, seconds: float) -> None:
        """Let time pass on both sides, with all deliveries."""
        self.now += seconds
        self.client.serve(self.client.connection.tick(self.now))
        self.server.serve(self.server.connection.tick(self.now))
        self.flow()
