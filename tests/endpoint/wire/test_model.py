"""Two honest sides over a link that cuts, splits and delays, against a model of each request."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from proxystore_endpoint.exceptions import ConnectionEndedError, ProtocolError, StreamClosedError
from proxystore_endpoint.limits import KIB, MIB, Limits
from proxystore_endpoint.wire.connection import Connection, Role
from proxystore_endpoint.wire.events import (
    BodyReceived,
    Ended,
    Event,
    GoingAway,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
)
from proxystore_endpoint.wire.messages import Request, Response

from tests.endpoint.wire.kit import AUTH, HELLO, READY, Link, Pair

BLOB = bytes((i * 7919) % 251 for i in range(64 * KIB)) * 128  # 8 MiB
LIMITS = Limits(data_frame=64 * KIB, max_streams=8)
SIZES = st.sampled_from([0, 1, 13, 1000, 64 * KIB, 64 * KIB + 1, 3 * MIB, 8 * MIB])
SIDES = st.sampled_from([0, 1])
PIECES = st.sampled_from([1, 5, 11, 12, 13, 100, 5000, 70_000, 1 * MIB, None])


@dataclass
class Ask:
    """What should come of one request."""

    request: Request
    size: int
    sink: bytearray | None = None
    outcome: str = ""  # '' while it is under way
    answer: str = ""  # what the other side really did


@dataclass
class Side:
    connection: Connection
    asks: dict[int, Ask] = field(default_factory=dict)
    waiting: dict[int, Request] = field(default_factory=dict)  # requests not answered yet
    puts: dict[int, bytearray] = field(default_factory=dict)
    partial: dict[int, int] = field(default_factory=dict)  # answers whose body we still give
    ended: bool = False
    left: bool = False


class Wire(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.start()

    def start(self) -> None:
        self.now = 0.0
        self.done_with: list[tuple[bytearray, bytes]] = []  # sinks that may not change any more
        client = Connection(Role.CLIENT, limits=LIMITS, now=0.0)
        server = Connection(Role.SERVER, limits=LIMITS, now=0.0)
        self.sides = [Side(client), Side(server)]
        self.links = [Link(client, server), Link(server, client)]
        server.send_hello(HELLO)
        self.run_all(handshake=True)
        client.send_auth(AUTH)
        self.run_all(handshake=True)
        server.send_ready(READY)
        self.run_all(handshake=True)

    # The users of the two sides.

    def handle(self, index: int, events: list[Event]) -> None:
        side = self.sides[index]
        for event in events:
            assert not side.ended, "nothing comes after the end"
            match event:
                case RequestReceived(stream, request):
                    side.waiting[stream] = request
                    if request.nbytes and request.key != "unwanted":
                        side.puts[stream] = bytearray(request.nbytes)
                        side.connection.set_sink(stream, memoryview(side.puts[stream]))
                case ResponseReceived(stream, response):
                    ask = side.asks[stream]
                    assert not ask.outcome
                    if response.nbytes:
                        assert response.nbytes == ask.size
                        ask.sink = bytearray(response.nbytes)
                        side.connection.set_sink(stream, memoryview(ask.sink))
                    else:
                        ask.outcome = response.status
                case BodyReceived(stream, nbytes) if stream in side.asks:
                    ask = side.asks[stream]
                    assert not ask.outcome
                    assert ask.sink == BLOB[:nbytes]
                    assert nbytes == ask.size
                    ask.outcome = "ok"
                case BodyReceived(stream, nbytes):
                    assert side.puts[stream] == BLOB[:nbytes]
                case RequestFailed(stream, status, _, received):
                    ask = side.asks[stream]
                    assert not ask.outcome
                    ask.outcome = status
                    self.freeze(ask.sink)
                    if received:
                        assert ask.sink is not None
                        assert ask.sink[:received] == BLOB[:received]
                case RequestCancelled(stream, _, received):
                    side.waiting.pop(stream, None)
                    side.partial.pop(stream, None)
                    self.freeze(side.puts.get(stream))
                    if received:
                        assert side.puts[stream][:received] == BLOB[:received]
                case GoingAway():
                    side.left = True
                case Ended(error):
                    assert not isinstance(error, ProtocolError), error
                    side.ended = True
                case _:
                    pass

    def run_all(self, *, handshake: bool = False) -> None:
        moved = True
        while moved:
            moved = False
            for index in (0, 1):
                moved = bool(self.links[index].collect()) or moved
                moved = bool(self.links[index].waiting) or moved
                self.deliver(index, None)
                if self.links[index].receiver.ended:
                    self.links[index].waiting.clear()

    def deliver(self, index: int, n: int | None) -> None:
        self.links[index].deliver(self.now, lambda events: self.handle(1 - index, events), n)

    def freeze(self, sink: bytearray | None) -> None:
        if sink is not None:
            self.done_with.append((sink, bytes(sink)))

    # What may happen.

    @rule(
        index=SIDES,
        op=st.sampled_from(["get", "put", "exists"]),
        size=SIZES,
        wait=st.integers(1, 40),
    )
    def ask(self, index: int, op: str, size: int, wait: int) -> None:
        side = self.sides[index]
        if not side.connection.can_request:
            return
        body = memoryview(BLOB)[:size] if op == "put" else None
        request = Request(op=op, key=f"{op}-{size}", nbytes=size if op == "put" else 0)
        stream = side.connection.request(request, now=self.now, timeout=wait, body=body)
        assert stream not in side.asks
        side.asks[stream] = Ask(request, size)

    @rule(index=SIDES, how=st.sampled_from(["ok", "ok", "missing", "part", "break"]))
    def answer(self, index: int, how: str) -> None:
        side = self.sides[index]
        for stream in sorted(side.waiting):
            self.answer_one(side, stream, how)

    def answer_one(self, side: Side, stream: int, how: str) -> None:
        request = side.waiting.pop(stream)
        connection = side.connection
        size = int(request.key.split("-")[1])
        if how == "break":
            connection.abort(stream, "error", "broken")
        elif how == "missing" or request.op != "get":
            connection.respond(stream, Response(status="missing" if how == "missing" else "ok"))
        elif how == "ok" or size < 2:
            connection.respond(stream, Response(nbytes=size), memoryview(BLOB)[:size])
        else:
            connection.respond(stream, Response(nbytes=size), memoryview(BLOB)[: size // 2])
            side.partial[stream] = size

    @rule(index=SIDES, finish=st.booleans())
    def go_on(self, index: int, finish: bool) -> None:
        side = self.sides[index]
        for stream, size in list(side.partial.items()):
            del side.partial[stream]
            if finish:
                side.connection.data(stream, memoryview(BLOB)[size // 2 : size])
            else:
                side.connection.abort(stream, "error")

    @rule(index=SIDES, pick=st.integers(0, 7))
    def cancel(self, index: int, pick: int) -> None:
        side = self.sides[index]
        under_way = [stream for stream, ask in side.asks.items() if not ask.outcome]
        if under_way:
            stream = under_way[pick % len(under_way)]
            received = side.connection.cancel(stream)
            ask = side.asks[stream]
            ask.outcome = "given up"
            self.freeze(ask.sink)
            if received:
                assert ask.sink is not None
                assert ask.sink[:received] == BLOB[:received]

    @rule(index=SIDES, max_bytes=st.sampled_from([None, 1, 100_000]))
    def collect(self, index: int, max_bytes: int | None) -> None:
        self.links[index].collect(max_bytes)

    @rule(index=SIDES, n=PIECES)
    def move(self, index: int, n: int | None) -> None:
        self.links[index].collect()
        self.deliver(index, n)

    @rule(seconds=st.sampled_from([0.01, 1.0, 3.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for index in (0, 1):
            self.handle(index, self.sides[index].connection.tick(self.now))

    @rule(chance=st.integers(0, 3))
    def settle(self, chance: int) -> None:
        if not chance:
            self.run_all()

    @rule(index=SIDES, reason=st.sampled_from(["shutdown", "idle"]), chance=st.integers(0, 9))
    def go_away(self, index: int, reason: str, chance: int) -> None:
        if not chance:
            self.sides[index].connection.goaway(reason)

    @rule(index=SIDES, chance=st.integers(0, 9))
    def cut(self, index: int, chance: int) -> None:
        if not chance:
            self.handle(index, self.sides[index].connection.eof(self.now))
            self.links[1 - index].waiting.clear()

    @precondition(lambda self: all(side.ended for side in self.sides))
    @rule()
    def again(self) -> None:
        self.teardown()
        self.start()

    @invariant()
    def counts_stay_in_bounds(self) -> None:
        for side in self.sides:
            assert side.connection.incoming <= LIMITS.max_streams
            assert side.connection.outgoing <= LIMITS.max_streams
            assert side.connection.ended or not isinstance(side.connection.error, Exception)

    def teardown(self) -> None:
        for _ in range(4):
            self.run_all()
            for index, side in enumerate(self.sides):  # an end closes the transport
                if self.sides[1 - index].connection.ended:
                    self.handle(index, side.connection.eof(self.now))
            for side in self.sides:
                for stream in list(side.waiting):
                    try:
                        self.answer_one(side, stream, "ok")
                    except StreamClosedError:
                        assert side.connection.ended
                for stream, size in list(side.partial.items()):
                    side.connection.data(stream, memoryview(BLOB)[size // 2 : size])
                side.partial.clear()
        for index, side in enumerate(self.sides):
            self.handle(index, side.connection.tick(self.now))
        self.run_all()
        for side in self.sides:
            for stream, ask in side.asks.items():
                assert ask.outcome, f"stream {stream} hangs: {ask.request}"
            assert side.connection.outgoing == side.connection.incoming == 0
            assert side.connection.to_send() == []
        for sink, then in self.done_with:
            assert sink == then, "a sink was written after its stream was over"


class TestWire(Wire.TestCase):
    settings = settings(
        max_examples=200,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.soak
class TestWireLong(Wire.TestCase):
    settings = settings(
        max_examples=5000,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_every_cut_gives_a_prefix_and_one_outcome() -> None:
    for cut in range(0, 140_000, 997):
        pair = Pair(LIMITS)
        pair.server.objects["k"] = BLOB[:130_000]
        stream = pair.client.connection.request(Request(op="get", key="k"), now=0.0)
        pair.up.collect()
        pair.up.deliver(0.0, pair.server.serve)
        pair.down.collect()
        pair.down.deliver(0.0, pair.client.serve, cut)
        pair.client.serve(pair.client.connection.eof(0.0))
        last = pair.client.events[-2]
        assert isinstance(pair.client.events[-1], Ended)
        if isinstance(last, RequestFailed):
            received = last.received
            assert received <= cut
            sink = bytes(pair.client.sinks.get(stream, b""))[:received]
            assert sink == BLOB[:received]
            assert cut - received < 3 * 12 + 100  # headers and the response
        else:
            assert last == BodyReceived(stream, 130_000)


def test_an_ended_connection_takes_no_request() -> None:
    pair = Pair()
    pair.client.note(pair.client.connection.eof(1.0))
    with pytest.raises(ConnectionEndedError, match="over"):
        pair.client.connection.request(Request(op="get", key="k"), now=1.0)
