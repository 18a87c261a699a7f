"""What a side does that breaks the rules, and what becomes of it."""

from __future__ import annotations

import struct

import msgspec
import pytest
from proxystore_endpoint import limits as fixed
from proxystore_endpoint.exceptions import (
    FlowError,
    FrameError,
    MessageError,
    ProtocolError,
    SequenceError,
)
from proxystore_endpoint.limits import MIB, Limits
from proxystore_endpoint.wire import frames as f
from proxystore_endpoint.wire.connection import Connection, Role
from proxystore_endpoint.wire.events import (
    AuthReceived,
    Ended,
    Event,
    HelloReceived,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
)
from proxystore_endpoint.wire.messages import GoAway, Request, Response, decode, encode

from tests.endpoint.wire.kit import AUTH, HELLO, READY, Node, Pair

REQUEST = encode(Request(op="get", key="k"))


def header(kind: int, stream: int, length: int, flags: int = 0) -> bytes:
    return f.HEADER.pack(kind, flags, 0, stream, length)


def feed(node: Node, raw: bytes, now: float = 0.0) -> list[Event]:
    """Give a side raw bytes; it may never raise."""
    start = len(node.events)
    data = memoryview(raw)
    connection = node.connection
    while len(data) and not connection.ended:
        view = connection.buffer()
        take = min(len(view), len(data))
        view[:take] = data[:take]
        data = data[take:]
        node.note(connection.received(take, now))
        while connection.paused:
            node.note(connection.received(0, now))
    return node.events[start:]


def broken(node: Node, raw: bytes, error: type[ProtocolError], text: str = "") -> list[Event]:
    """These bytes must end the connection, with a GOAWAY as the last frame."""
    events = feed(node, raw)
    ended = events[-1]
    assert isinstance(ended, Ended), events
    assert type(ended.error) is error
    assert text in str(ended.error)
    sent = b"".join(bytes(part) for part in node.connection.to_send())
    kind, _, _, stream, length = f.HEADER.unpack_from(sent)
    assert (kind, stream, len(sent)) == (f.GOAWAY, 0, f.HEADER_BYTES + length)
    assert decode(GoAway, sent[f.HEADER_BYTES :]).reason == "protocol"
    return events


# Before it is known who they are.


@pytest.mark.parametrize("kind", sorted(set(f.NAMES) - {f.AUTH, f.GOAWAY}))
def test_nothing_is_read_before_the_proof(kind: int) -> None:
    server = Pair(ready=False).server
    server.connection.send_hello(HELLO)
    body = REQUEST if kind == f.REQUEST else bytes(8)
    error = SequenceError
    events = broken(server, f.pack(kind, 1 if kind in f.OF_STREAM else 0, body), error)
    assert len(events) == 1


def test_nothing_is_read_before_the_proof_is_checked() -> None:
    server = Pair(ready=False).server
    server.connection.send_hello(HELLO)
    raw = f.pack(f.AUTH, 0, encode(AUTH)) + f.pack(f.REQUEST, 1, REQUEST)
    events = broken(server, raw, SequenceError)
    assert [type(event) for event in events] == [AuthReceived, Ended]


def test_a_client_takes_nothing_before_it_is_let_in() -> None:
    client = Pair(ready=False).client
    raw = f.pack(f.HELLO, 0, encode(HELLO)) + f.pack(f.READY, 0, encode(READY))
    events = broken(client, raw, SequenceError)
    assert [type(event) for event in events] == [HelloReceived, Ended]


def test_a_handshake_frame_is_small() -> None:
    server = Pair(ready=False).server
    server.connection.send_hello(HELLO)
    broken(server, header(f.AUTH, 0, fixed.MAX_HANDSHAKE_BODY + 1), FrameError, "over the limit")


@pytest.mark.parametrize(
    "change",
    [
        {"public_key": bytes(31)},
        {"signature": bytes(65)},
        {"signature": "text"},
        {"version": -1},
        {"version": 1 << 60},
        {"memberships": [bytes(10)] * 17},
        {"memberships": [bytes(1025)]},
        {"agent": "x" * 1025},
        {"lane": "one"},
        {"max_streams": 0},
    ],
)
def test_a_malformed_proof_is_refused(change: dict[str, object]) -> None:
    server = Pair(ready=False).server
    server.connection.send_hello(HELLO)
    fields = {**msgspec.structs.asdict(AUTH), **change}
    broken(server, f.pack(f.AUTH, 0, msgspec.msgpack.encode(fields)), MessageError)


# Frames that cannot be.


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (header(f.REQUEST, 1, fixed.MAX_BODY + 1), FrameError),
        (header(f.REQUEST, 1, 0xFFFFFFFF), FrameError),
        (header(f.DATA, 1, fixed.MAX_DATA + 1), FrameError),
        (header(f.DATA, 1, 0), FrameError),
        (header(f.PING, 0, 0xFFFFFFFF), FrameError),
        (header(200, 0, 0), FrameError),
        (header(0, 0, 0), FrameError),
        (header(200, 0, fixed.MAX_BODY + 1, f.IGNORABLE), FrameError),
        (f.pack(f.PING, 0, bytes(7)), FrameError),
        (f.pack(f.PING, 1, bytes(8)), FrameError),
        (f.pack(f.REQUEST, 0, REQUEST), FrameError),
        (f.pack(f.CREDIT, 1, bytes(3)), FrameError),
        (f.pack(f.HELLO, 0, encode(HELLO)), SequenceError),
        (f.pack(f.AUTH, 0, encode(AUTH)), SequenceError),
        (f.pack(f.READY, 0, encode(READY)), SequenceError),
        (f.pack(f.REQUEST, 1, b""), MessageError),
        (f.pack(f.REQUEST, 1, b"\xc1"), MessageError),
        (f.pack(f.REQUEST, 1, b"\xdd\xff\xff\xff\xff"), MessageError),
        (f.pack(f.REQUEST, 1, b"\x81\xa1x" + b"\x91" * 60_000 + b"\xc0"), MessageError),
        (f.pack(f.REQUEST, 1, REQUEST + b"\x00"), MessageError),
        (f.pack(f.REQUEST, 1, REQUEST[:-1]), MessageError),
        (f.pack(f.REQUEST, 1, msgspec.msgpack.encode({"op": "put", "nbytes": -1})), MessageError),
        (
            f.pack(f.REQUEST, 1, msgspec.msgpack.encode({"op": "put", "nbytes": 1 << 60})),
            MessageError,
        ),
        (f.pack(f.REQUEST, 1, msgspec.msgpack.encode({"op": "g", "key": "k" * 257})), MessageError),
        (f.pack(f.REQUEST, 2, REQUEST), SequenceError),
        (f.pack(f.PONG, 0, bytes(8)), SequenceError),
        (f.pack(f.RESPONSE, 1, encode(Response())), SequenceError),
        (f.pack(f.RESPONSE, 2, encode(Response())), SequenceError),
        (f.pack(f.DATA, 1, b"x"), SequenceError),
        (f.pack(f.DATA, 2, b"x"), SequenceError),
        (f.pack(f.END, 2, b"\x80"), SequenceError),
        (f.pack(f.CANCEL, 1, b"\x80"), SequenceError),
        (f.pack(f.CANCEL, 2, b"\x80"), SequenceError),
        (f.pack(f.CREDIT, 1, struct.pack(">I", 1)), SequenceError),
    ],
)
def test_a_breach_ends_the_connection(raw: bytes, error: type[ProtocolError]) -> None:
    server = Pair().server
    events = broken(server, raw, error)
    assert not [event for event in events if isinstance(event, RequestReceived)]


def test_unknown_frames_and_fields_are_skipped_where_they_may_be() -> None:
    pair = Pair()
    request = msgspec.msgpack.encode(
        {"op": "exists", "key": "k", "new": {"deep": [1, 2]}, "z": 1.5}
    )
    raw = f.pack(200, 0, bytes(1000), f.IGNORABLE) + f.pack(201, 77, b"", f.IGNORABLE | 1)
    events = feed(pair.server, raw + f.pack(f.REQUEST, 1, request, flags=0x7F))
    assert events == [RequestReceived(1, Request(op="exists", key="k"))]


def test_an_unknown_operation_is_for_the_user_to_answer() -> None:
    pair = Pair()
    raw = f.pack(f.REQUEST, 1, msgspec.msgpack.encode({"op": "fly"}))
    assert feed(pair.server, raw) == [RequestReceived(1, Request(op="fly"))]
    pair.server.connection.respond(1, Response(status="bad_request"))
    assert pair.server.connection.incoming == 0


def test_garbage_of_any_kind() -> None:
    for raw in (
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x80\x04\x95" * 100,
        b"\xff" * 5000,
    ):
        assert isinstance(feed(Pair().server, raw)[-1], Ended)


# Bodies.


def test_a_body_longer_than_announced() -> None:
    pair = Pair()
    put = encode(Request(op="put", key="k", nbytes=10))
    pair.server.note(feed(pair.server, f.pack(f.REQUEST, 1, put)))
    pair.server.sink(1, 10)
    feed(pair.server, f.pack(f.DATA, 1, b"12345"))
    broken(pair.server, f.pack(f.DATA, 1, b"678901"), FlowError, "More than 10 bytes")
    assert pair.server.sinks[1] == b"12345" + bytes(5)


def test_endless_chunks_stop_at_the_credit() -> None:
    for sink in (True, False):
        pair = Pair()
        put = encode(Request(op="put", key="k", nbytes=64 * MIB))
        feed(pair.server, f.pack(f.REQUEST, 1, put))
        if sink:
            pair.server.sink(1, 64 * MIB)
        chunk = f.pack(f.DATA, 1, bytes(MIB))
        if sink:
            for _ in range(63):  # credit follows: it is only a body
                assert feed(pair.server, chunk) == []
            feed(pair.server, chunk)
            broken(pair.server, chunk, SequenceError)
        else:  # nobody wants it: no credit
            assert feed(pair.server, chunk * 2) == []
            broken(pair.server, chunk, FlowError, "credit for 0")


def test_an_answer_longer_than_asked_for() -> None:
    pair = Pair()
    pair.client.connection.request(Request(op="get", key="k", length=10), now=0.0)
    long = encode(Response(nbytes=11))
    broken(pair.client, f.pack(f.RESPONSE, 1, long), MessageError, "11 bytes")


def test_an_answer_that_does_not_fit_its_sink_fails_alone() -> None:
    pair = Pair()
    sink = bytearray(10)
    pair.client.connection.request(Request(op="get", key="k"), now=0.0, sink=memoryview(sink))
    raw = f.pack(f.RESPONSE, 1, encode(Response(nbytes=5))) + f.pack(f.DATA, 1, b"12345")
    events = feed(pair.client, raw)
    assert [type(event) for event in events] == [RequestFailed]
    assert sink == bytes(10)
    assert pair.client.connection.ready
    assert pair.client.connection.outgoing == 0


def test_an_end_before_an_answer_stops_a_body_that_goes_out() -> None:
    pair = Pair()
    client = pair.client.connection
    client.request(Request(op="put", key="k", nbytes=8 * MIB), now=0.0, body=bytes(8 * MIB))
    client.to_send()
    events = feed(pair.client, f.pack(f.END, 1, b"\x80"))
    assert [type(event) for event in events] == [RequestFailed]
    (sent,) = client.to_send()
    assert f.HEADER.unpack_from(sent)[0] == f.CANCEL
    assert client.outgoing == 0


def test_answers_twice_and_answers_to_what_was_answered() -> None:
    pair = Pair()
    pair.client.connection.request(Request(op="exists", key="k"), now=0.0)
    raw = f.pack(f.RESPONSE, 1, encode(Response()))
    assert [type(event) for event in feed(pair.client, raw)] == [ResponseReceived]
    broken(pair.client, raw, SequenceError)


def test_data_before_its_answer() -> None:
    pair = Pair()
    pair.client.connection.request(Request(op="get", key="k"), now=0.0)
    broken(pair.client, f.pack(f.DATA, 1, b"x"), SequenceError)


# Exhaustion.


def test_more_requests_than_allowed() -> None:
    pair = Pair(Limits(max_streams=3))
    for number in (1, 3, 5):
        feed(pair.server, f.pack(f.REQUEST, number, REQUEST))
    broken(pair.server, f.pack(f.REQUEST, 7, REQUEST), FlowError, "More than 3")


def test_stream_numbers_only_rise() -> None:
    pair = Pair()
    feed(pair.server, f.pack(f.REQUEST, 9, REQUEST))
    pair.server.connection.respond(9, Response())
    broken(pair.server, f.pack(f.REQUEST, 9, REQUEST), SequenceError)


def test_credit_beyond_reason() -> None:
    pair = Pair()
    feed(pair.server, f.pack(f.REQUEST, 1, REQUEST))
    broken(pair.server, f.pack(f.CREDIT, 1, struct.pack(">I", 0xFFFFFFFF)), FlowError)
    pair = Pair()
    feed(pair.server, f.pack(f.REQUEST, 1, REQUEST))
    broken(pair.server, f.pack(f.CREDIT, 1, struct.pack(">I", 0)), FlowError)
    pair = Pair()
    feed(pair.server, f.pack(f.REQUEST, 1, REQUEST))
    credit = f.pack(f.CREDIT, 1, struct.pack(">I", 1 << 30))
    feed(pair.server, credit)
    broken(pair.server, credit, FlowError)


@pytest.mark.parametrize("kind", [f.PING, f.REQUEST])
def test_a_side_that_asks_and_never_reads(kind: int) -> None:
    pair = Pair(Limits(max_queued=100_000))
    server = pair.server.connection
    events: list[Event] = []
    for number in range(1, 200_000, 2):
        if kind == f.PING:
            events = feed(pair.server, f.pack(f.PING, 0, bytes(8)))
        else:
            events = feed(pair.server, f.pack(f.REQUEST, number, REQUEST))
            if not server.ended:
                server.respond(number, Response(detail="x" * 500))
        if server.ended:
            break
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, FlowError)
    assert "does not read" in str(ended.error)
    assert sum(len(part) for part in server.to_send()) < 1000  # only the GOAWAY is left


def test_after_the_end_nothing_happens() -> None:
    pair = Pair()
    server = pair.server.connection
    broken(pair.server, header(0, 0, 0), FrameError)
    assert server.received(0, 1.0) == []
    assert server.eof(1.0) == []
    assert server.tick(100.0) == []
    assert server.close() == []
    server.goaway()
    assert server.to_send() == []
    assert isinstance(server.error, FrameError)


def test_requests_under_way_fail_when_the_other_side_breaks_the_rules() -> None:
    pair = Pair()
    put = Request(op="put", key="k", nbytes=8 * MIB)
    for _ in range(2):
        pair.client.connection.request(put, now=0.0, body=bytes(8 * MIB))
    pair.client.connection.to_send(3 * MIB)
    pair.client.connection.request(Request(op="get", key="k"), now=0.0)
    events = broken(pair.client, header(0, 0, 0), FrameError)
    assert [type(event) for event in events] == [RequestFailed] * 3 + [Ended]


def test_a_request_after_a_goodbye() -> None:
    pair = Pair()
    feed(pair.server, f.pack(f.REQUEST, 1, REQUEST))
    goaway = f.pack(f.GOAWAY, 0, encode(GoAway()))
    feed(pair.server, goaway)
    broken(pair.server, f.pack(f.REQUEST, 3, REQUEST), SequenceError, "after a GOAWAY")


def test_a_goodbye_for_a_reason_that_is_not_known() -> None:
    pair = Pair()
    feed(pair.server, f.pack(f.REQUEST, 1, REQUEST))
    events = feed(pair.server, f.pack(f.GOAWAY, 0, encode(GoAway(reason="whim"))))
    assert isinstance(events[-1], Ended)
    assert not isinstance(events[-1].error, ProtocolError)


def test_what_crossed_the_end_of_a_stream_is_ignored() -> None:
    pair = Pair()
    feed(pair.server, f.pack(f.REQUEST, 1, REQUEST))
    pair.server.connection.respond(1, Response())
    late = f.pack(f.CREDIT, 1, struct.pack(">I", 1)) + f.pack(f.CANCEL, 1, b"\x80")
    assert feed(pair.server, late) == []
    assert pair.server.connection.ready


def test_a_role_cannot_be_taken_over() -> None:
    one = Node(Role.CLIENT, Limits())
    two = Connection(Role.CLIENT, now=0.0)
    assert two.to_send() == []
    broken(one, f.pack(f.AUTH, 0, encode(AUTH)), SequenceError)
