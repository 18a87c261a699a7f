from __future__ import annotations

import math

import pytest
from proxystore_endpoint import limits as fixed
from proxystore_endpoint.exceptions import (
    ConnectionEndedError,
    ConnectionRefusedByPeerError,
    HeartbeatError,
    MessageTooLargeError,
    MisuseError,
    StreamClosedError,
)
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.wire.connection import Connection, Role
from proxystore_endpoint.wire.events import (
    LOST,
    AuthReceived,
    BodyReceived,
    Ended,
    Established,
    GoingAway,
    HelloReceived,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
)
from proxystore_endpoint.wire.messages import Request, Response

from tests.endpoint.wire.kit import AUTH, HELLO, READY, Pair

MIB = fixed.MIB
BLOB = bytes(range(256)) * (20 * MIB // 256)


def get(pair: Pair, key: str = "k", **options: object) -> int:
    return pair.client.connection.request(Request(op="get", key=key), now=pair.now, **options)


def test_the_handshake_gives_each_side_what_the_other_said() -> None:
    pair = Pair(ready=False)
    client, server = pair.client.connection, pair.server.connection
    server.send_hello(HELLO)
    pair.flow()
    assert pair.client.events == [HelloReceived(HELLO)]
    assert not client.ready
    client.send_auth(AUTH)
    pair.flow()
    assert pair.server.events == [AuthReceived(AUTH)]
    assert server.version == client.version == 1
    server.send_ready(READY)
    assert server.ready
    pair.flow()
    assert pair.client.events[1:] == [Established(READY)]
    assert client.ready


def test_the_handshake_has_an_order_on_our_side_too() -> None:
    pair = Pair(ready=False)
    with pytest.raises(MisuseError, match="AUTH"):
        pair.client.connection.send_auth(AUTH)
    with pytest.raises(MisuseError, match="READY"):
        pair.server.connection.send_ready(READY)
    with pytest.raises(MisuseError, match="HELLO"):
        pair.client.connection.send_hello(HELLO)
    with pytest.raises(MisuseError, match="No request"):
        get(pair)


def test_a_refused_client_is_told_why() -> None:
    pair = Pair(ready=False)
    pair.server.connection.send_hello(HELLO)
    pair.flow()
    pair.client.connection.send_auth(AUTH)
    pair.flow()
    pair.server.connection.goaway("refused", "you are a stranger")
    assert pair.server.connection.ended
    pair.flow()
    error = pair.client.connection.error
    assert isinstance(error, ConnectionRefusedByPeerError)
    assert error.reason == "refused"
    assert "stranger" in str(error)


@pytest.mark.parametrize("size", [0, 1, 1000, 256 * 1024, 256 * 1024 + 1, 5 * MIB, 20 * MIB])
def test_a_body_lands_in_its_sink(size: int) -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB[:size]
    stream = get(pair)
    pair.flow()
    response = pair.client.last(ResponseReceived)
    assert isinstance(response, ResponseReceived)
    assert (response.response.nbytes, response.response.size) == (size, size)
    if size:
        assert pair.client.events[-1] == BodyReceived(stream, size)
        assert pair.client.sinks[stream] == BLOB[:size]
    assert pair.client.connection.bytes_received == size == pair.server.connection.bytes_sent
    assert pair.client.connection.outgoing == pair.server.connection.incoming == 0


def test_requests_go_both_ways_at_the_same_time() -> None:
    pair = Pair()
    pair.server.objects["a"] = BLOB[: 3 * MIB]
    one = get(pair, "a")
    two = pair.server.connection.request(
        Request(op="put", key="b", nbytes=4 * MIB), now=0.0, body=BLOB[: 4 * MIB]
    )
    pair.flow()
    assert pair.client.sinks[one] == BLOB[: 3 * MIB]
    assert pair.client.objects["b"] == BLOB[: 4 * MIB]
    assert pair.server.events[-1] == ResponseReceived(two, Response(durability="memory"))


def test_a_sink_can_be_given_with_the_request_and_a_range_asked_for() -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB
    sink = bytearray(1000)
    request = Request(op="get", key="k", offset=77, length=1000)
    stream = pair.client.connection.request(request, now=0.0, sink=memoryview(sink))
    handled: list[object] = []
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.down.collect()
    pair.down.deliver(0.0, handled.extend)
    assert handled[-1] == BodyReceived(stream, 1000)
    assert sink == BLOB[77:1077]


def test_bodies_are_never_copied_on_the_way_out() -> None:
    pair = Pair(Limits(data_frame=MIB))
    pair.client.connection.request(Request(op="put", key="k", nbytes=len(BLOB)), now=0.0, body=BLOB)
    parts = pair.client.connection.to_send()
    views = [part for part in parts if isinstance(part, memoryview)]
    assert [view.obj is BLOB for view in views] == [True, True]
    assert sum(len(view) for view in views) == fixed.INITIAL_WINDOW


def test_a_body_in_parts_is_cut_into_whole_frames() -> None:
    pair = Pair(Limits(data_frame=1000))
    stream = pair.client.connection.request(Request(op="put", key="k", nbytes=2500), now=0.0)
    for start in range(0, 2500, 100):
        pair.client.connection.data(stream, BLOB[start : start + 100])
    assert pair.client.connection.unsent(stream) == 2500
    parts = pair.client.connection.to_send()
    assert len([part for part in parts[1:] if isinstance(part, bytes)]) == 3  # headers
    pair.up.waiting += b"".join(bytes(part) for part in parts)
    pair.flow()
    assert pair.server.objects["k"] == BLOB[:2500]


def test_nothing_is_sent_without_credit_and_one_stream_does_not_hold_up_another() -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB
    pair.server.objects["small"] = b"small"
    big = get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.down.collect()
    assert fixed.INITIAL_WINDOW < len(pair.down.waiting) < fixed.INITIAL_WINDOW + 1000
    assert pair.server.connection.to_send() == []
    assert pair.server.connection.unsent(big) == len(BLOB) - fixed.INITIAL_WINDOW
    small = get(pair, "small")
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    assert b"small" in [bytes(part) for part in pair.server.connection.to_send()]
    assert small == big + 2


def test_bodies_take_turns() -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB
    streams = [get(pair) for _ in range(3)]
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.server.connection.to_send(1)  # the responses
    order = []
    for _ in range(6):
        header = pair.server.connection.to_send(1)[0]
        order.append(int.from_bytes(bytes(header)[4:8], "big"))
    assert order == streams * 2


def test_a_window_grows_only_where_the_round_trip_holds_it_back() -> None:
    for rtt, grows in ((0.01, False), (0.05, True)):
        pair = Pair()
        pair.client.connection.rtt = pair.client.connection.least_rtt = rtt
        pair.server.objects["k"] = bytes(64 * MIB)
        get(pair)
        pair.up.collect()
        pair.up.deliver(pair.now, pair.server.serve)
        largest = 0
        while pair.client.connection.outgoing:
            pair.now += 0.05
            largest = max(largest, len(pair.down.collect()))
            pair.down.deliver(pair.now, pair.client.serve)
            pair.up.collect()
            pair.up.deliver(pair.now, pair.server.serve)
        assert (largest > 2 * fixed.INITIAL_WINDOW) is grows


def test_a_body_under_way_counts_to_the_byte() -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB
    stream = get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.down.collect()
    pair.down.deliver(0.0, pair.client.serve, MIB + 12345)
    client = pair.client.connection
    progress = client.progress(stream)
    assert MIB < progress < MIB + 12345
    assert bytes(pair.client.sinks[stream][:progress]) == BLOB[:progress]
    assert client.bulk
    pair.client.note(client.eof(0.0))
    assert pair.client.events[-2] == RequestFailed(stream, LOST, str(client.error), progress)
    assert isinstance(pair.client.events[-1], Ended)


def test_what_comes_after_a_cancel_is_thrown_away_and_the_stream_ends() -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB
    stream = get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.down.collect()
    pair.down.deliver(0.0, pair.client.serve, MIB + 12345)
    client = pair.client.connection
    received = client.cancel(stream)
    assert MIB < received < MIB + 12345
    assert client.cancel(stream) == 0
    before = bytes(pair.client.sinks[stream])
    pair.client.events.clear()
    pair.flow()
    assert bytes(pair.client.sinks[stream]) == before
    assert pair.client.events == []
    assert pair.server.events[-1] == RequestCancelled(stream, "cancelled", 0)
    assert client.outgoing == pair.server.connection.incoming == 0
    pair.server.objects["x"] = b"still alive"
    after = get(pair, "x")
    pair.flow()
    assert pair.client.sinks[after] == b"still alive"


def test_memory_that_was_given_out_stays_the_streams_until_it_is_told() -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB
    stream = get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.down.collect()
    pair.down.deliver(0.0, pair.client.serve, 100_000)  # within the first frame
    client = pair.client.connection
    assert client.filling is None
    view = client.buffer()
    assert client.filling == stream
    client.cancel(stream)
    assert client.filling == stream
    view[:1000] = pair.down.waiting[:1000]
    del pair.down.waiting[:1000]
    assert client.received(1000, 0.0) == []
    assert client.filling is None
    assert not client.bulk
    before = bytes(pair.client.sinks[stream])
    pair.flow()
    assert bytes(pair.client.sinks[stream]) == before
    assert client.error is None
    assert client.outgoing == 0


def test_a_cancelled_put_stops_where_it_is() -> None:
    pair = Pair()
    stream = pair.client.connection.request(
        Request(op="put", key="k", nbytes=len(BLOB)), now=0.0, body=BLOB
    )
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.client.connection.cancel(stream)
    pair.flow()
    cancelled = pair.server.events[-1]
    assert cancelled == RequestCancelled(stream, "cancelled", fixed.INITIAL_WINDOW)
    assert pair.server.objects == {}
    assert pair.client.connection.outgoing == pair.server.connection.incoming == 0


def test_a_put_can_be_refused_before_its_body_has_come() -> None:
    pair = Pair()
    client, server = pair.client.connection, pair.server.connection
    request = Request(op="put", key="k", nbytes=len(BLOB))
    stream = client.request(request, now=0.0, body=BLOB)
    pair.up.collect()
    events: list[object] = []

    def refuse(new: list[object]) -> None:
        events.extend(new)
        for event in new:
            if isinstance(event, RequestReceived):
                server.respond(event.stream, Response(status="full", detail="no room"))

    pair.up.deliver(0.0, refuse)
    pair.flow()
    answer = pair.client.events[-1]
    assert isinstance(answer, ResponseReceived)
    assert (answer.stream, answer.response.status) == (stream, "full")
    assert client.outgoing == server.incoming == 0
    assert client.to_send() == []
    with pytest.raises(StreamClosedError):
        client.data(stream, b"more")
    assert not [event for event in events if isinstance(event, BodyReceived)]
    assert server.error is client.error is None


def test_an_answer_can_be_broken_off() -> None:
    pair = Pair()
    stream = get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.note)
    pair.server.connection.respond(stream, Response(nbytes=5000, size=5000), BLOB[:3000])
    pair.flow()
    pair.server.connection.abort(stream, "error", "the disk is gone")
    pair.flow()
    assert pair.client.events[-1] == RequestFailed(stream, "error", "the disk is gone", 3000)
    assert pair.client.connection.outgoing == pair.server.connection.incoming == 0
    unanswered = get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.note)
    pair.server.connection.abort(unanswered, "error", "no")
    pair.flow()
    assert pair.client.events[-1] == ResponseReceived(
        unanswered, Response(status="error", detail="no")
    )


def test_a_body_that_goes_out_stops_when_the_answer_is_broken_off() -> None:
    pair = Pair()
    client, server = pair.client.connection, pair.server.connection
    request = Request(op="put", key="k", nbytes=len(BLOB))
    stream = client.request(request, now=0.0, body=BLOB)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.note)
    server.respond(stream, Response(nbytes=10), b"abc")
    server.abort(stream)
    pair.flow()
    assert pair.client.events[-1] == RequestFailed(stream, "error", "", 0)
    assert client.outgoing == server.incoming == 0
    assert client.error is server.error is None


def test_a_deadline_ends_a_request_on_both_sides() -> None:
    pair = Pair()
    stream = get(pair, timeout=3.0)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.note)
    request = pair.server.last(RequestReceived)
    assert isinstance(request, RequestReceived)
    assert request.request.deadline_ms == 3000
    assert pair.client.connection.next_deadline() == 3.0
    pair.tick(2.9)
    assert pair.client.events == []
    pair.now += 0.2
    client = pair.client.connection.tick(pair.now)
    server = pair.server.connection.tick(pair.now)
    assert client == [RequestFailed(stream, "timeout", "The deadline passed.", 0)]
    assert server == [RequestCancelled(stream, "timeout", 0)]
    with pytest.raises(StreamClosedError):
        pair.server.connection.respond(stream, Response())
    pair.flow()
    assert pair.client.connection.outgoing == pair.server.connection.incoming == 0
    assert pair.client.connection.error is None


def test_a_deadline_in_the_middle_of_a_body() -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB
    stream = get(pair, timeout=3.0)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.down.collect()
    pair.down.deliver(0.0, pair.client.serve, 500_000)
    pair.tick(3.1)
    failed = pair.client.last(RequestFailed)
    assert isinstance(failed, RequestFailed)
    assert failed.stream == stream
    assert 480_000 < failed.received < 500_000
    assert pair.client.connection.outgoing == pair.server.connection.incoming == 0
    assert pair.client.connection.error is pair.server.connection.error is None


def test_a_quiet_connection_stays_alive_and_measures_its_round_trip() -> None:
    pair = Pair()
    for _ in range(20):
        pair.tick(5.0)
    assert pair.client.connection.ready
    assert pair.client.connection.rtt == 0.0


def test_a_silent_peer_is_dead_after_twelve_seconds() -> None:
    pair = Pair()
    stream = get(pair, timeout=math.inf)
    client = pair.client.connection
    client.to_send()
    events: list[object] = []
    while not events:
        due = client.next_deadline()
        assert due <= 12.0
        events = list(client.tick(due))
        client.to_send()  # into the void
    assert due == 12.0
    assert events[0] == RequestFailed(stream, LOST, str(client.error), 0)
    assert isinstance(client.error, HeartbeatError)
    assert client.next_deadline() == math.inf


def test_a_side_that_slept_asks_before_it_calls_the_other_dead() -> None:
    pair = Pair()
    pair.now = 100.0  # no tick since 0: suspended
    assert pair.client.connection.tick(pair.now) == []
    pair.flow()
    pair.tick(1.0)
    assert pair.client.connection.ready
    assert pair.server.connection.ready


def test_a_handshake_has_a_deadline() -> None:
    pair = Pair(ready=False)
    server = pair.server.connection
    server.send_hello(HELLO)
    assert server.next_deadline() == 10.0
    assert server.tick(9.9) == []
    assert isinstance(server.tick(10.0)[-1], Ended)
    assert isinstance(server.error, HeartbeatError)


def test_going_away_finishes_what_is_under_way() -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB
    stream = get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.server.connection.goaway("shutdown", "restarting")
    late = get(pair)  # crosses the GOAWAY
    pair.flow()
    pair.tick(0.0)
    assert pair.client.sinks[stream] == BLOB
    assert GoingAway("shutdown", "restarting") in pair.client.events
    answers = [e for e in pair.client.events if isinstance(e, ResponseReceived)]
    assert {a.stream: a.response.status for a in answers} == {stream: "ok", late: "refused"}
    assert isinstance(pair.client.events[-1], Ended)
    assert isinstance(pair.server.events[-1], Ended)
    with pytest.raises(ConnectionEndedError):
        get(pair)


def test_an_idle_connection_goes_away_at_once() -> None:
    pair = Pair()
    pair.client.connection.goaway("idle")
    assert pair.client.connection.ended
    assert pair.client.connection.next_deadline() <= 0.0  # an event waits
    pair.flow()
    pair.tick(0.0)
    assert isinstance(pair.client.events[-1], Ended)
    assert isinstance(pair.server.events[-1], Ended)


def test_closing_fails_what_is_under_way() -> None:
    pair = Pair()
    stream = get(pair)
    events = pair.client.connection.close("shutdown")
    assert events[0] == RequestFailed(stream, LOST, str(pair.client.connection.error), 0)
    assert pair.client.connection.close() == []
    with pytest.raises(ConnectionEndedError):
        pair.client.connection.buffer()


def test_misuse_is_told_and_breaks_nothing() -> None:
    pair = Pair(Limits(max_streams=2))
    client, server = pair.client.connection, pair.server.connection
    pair.server.objects["k"] = BLOB[:100]
    with pytest.raises(MessageTooLargeError):
        get(pair, "k" * 257)
    streams = [get(pair), get(pair)]
    assert not client.can_request
    with pytest.raises(MisuseError, match="2 requests"):
        get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.note)
    with pytest.raises(MisuseError, match="100 bytes"):
        server.respond(streams[0], Response(nbytes=99), BLOB[:100])
    with pytest.raises(StreamClosedError):
        server.respond(999, Response())
    server.abort(streams[0])
    server.respond(streams[1], Response(nbytes=100), BLOB[:100])
    with pytest.raises(MisuseError):
        server.respond(streams[1], Response())
    pair.down.collect()

    def wrong_sink(events: list[object]) -> None:
        for event in events:
            if isinstance(event, ResponseReceived) and event.response.nbytes:
                with pytest.raises(MisuseError, match="100 come"):
                    client.set_sink(event.stream, memoryview(bytearray(5)))
                with pytest.raises(MisuseError, match="writable"):
                    client.set_sink(event.stream, memoryview(bytes(100)))
                client.set_sink(event.stream, memoryview(bytearray(100)))

    pair.down.deliver(0.0, wrong_sink)
    assert client.ready
    assert client.outgoing == 0


def test_a_thousand_requests_leave_nothing_behind() -> None:
    pair = Pair()
    pair.server.objects["k"] = b"x"
    for _ in range(1000):
        get(pair)
        pair.flow()
    client = pair.client.connection
    assert len(client._streams._deadlines) < 200
    assert client.outgoing == pair.server.connection.incoming == 0


def test_roles() -> None:
    client = Connection(Role.CLIENT, now=5.0)
    assert client.role is Role.CLIENT
    assert client.next_deadline() == 15.0
    assert not client.ended


def test_one_byte_at_a_time() -> None:
    pair = Pair(Limits(data_frame=100))
    pair.server.objects["k"] = BLOB[:1000]
    stream = get(pair)
    for link, node in ((pair.up, pair.server), (pair.down, pair.client)):
        link.collect()
        while link.waiting:
            link.deliver(0.0, node.serve, 1)
    assert pair.client.sinks[stream] == BLOB[:1000]


def test_bodies_that_do_not_fit_what_was_announced_are_refused() -> None:
    pair = Pair()
    client = pair.client.connection
    stream = client.request(Request(op="put", key="k", nbytes=10), now=0.0, body=b"12345")
    with pytest.raises(MisuseError, match="5 are left"):
        client.data(stream, b"678901")
    with pytest.raises(MisuseError, match="10 were announced"):
        client.request(Request(op="put", key="k", nbytes=10), now=0.0, body=bytes(11))
    assert client.outgoing == 1
    client.data(stream, b"67890")
    pair.flow()
    assert pair.server.objects["k"] == b"1234567890"


def test_credit_can_be_asked_for() -> None:
    pair = Pair()
    client = pair.client.connection
    stream = client.request(Request(op="put", key="k", nbytes=len(BLOB)), now=0.0)
    assert client.sendable(stream) == fixed.INITIAL_WINDOW
    client.data(stream, BLOB[:1000])
    assert client.sendable(stream) == fixed.INITIAL_WINDOW - 1000
    client.data(stream, BLOB[1000:])
    assert client.sendable(stream) == 0
    pair.flow()
    assert client.sendable(stream) == client.unsent(stream) == 0
    assert client.sendable(999) == client.unsent(999) == 0


def test_a_sink_can_come_too_late() -> None:
    pair = Pair()
    pair.server.objects["k"] = BLOB
    stream = get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.down.collect()
    pair.down.deliver(0.0, pair.client.note, 300_000)
    with pytest.raises(MisuseError, match="before its sink"):
        pair.client.connection.set_sink(stream, memoryview(bytearray(len(BLOB))))
    assert pair.client.connection.cancel(stream) == 0  # nothing of it is anywhere
    pair.flow()
    assert pair.client.connection.outgoing == 0


def test_events_come_before_more_bytes() -> None:
    pair = Pair()
    pair.server.objects["k"] = b"x"
    get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.serve)
    pair.down.collect()
    client = pair.client.connection
    raw = bytes(pair.down.waiting)
    client.buffer()[: len(raw)] = raw
    events = client.received(len(raw), 0.0)
    assert client.paused
    with pytest.raises(MisuseError, match="Handle the events"):
        client.buffer()
    pair.client.serve(events)
    assert [type(event) for event in client.received(0, 0.0)] == [BodyReceived]
    assert not client.paused


def test_what_we_say_keeps_to_the_limits() -> None:
    pair = Pair()
    stream = get(pair)
    pair.up.collect()
    pair.up.deliver(0.0, pair.server.note)
    server = pair.server.connection
    with pytest.raises(MessageTooLargeError) as caught:
        server.respond(stream, Response(keys=["k" * 100] * 1000))
    assert caught.value.limit == fixed.MAX_BODY
    server.respond(stream, Response(status="error", detail="x" * 5000))  # it is still open
    pair.flow()
    answer = pair.client.events[-1]
    assert isinstance(answer, ResponseReceived)
    assert answer.response.detail == "x" * fixed.MAX_TEXT
    with pytest.raises(ConnectionEndedError):
        pair.client.note(pair.client.connection.close())
        pair.client.connection.send_auth(AUTH)


def test_a_handshake_that_is_cut_off_says_so() -> None:
    pair = Pair(ready=False)
    pair.client.note(pair.client.connection.eof(0.0))
    assert "during the handshake" in str(pair.client.connection.error)


@pytest.mark.parametrize("frame", [64 * 1024, MIB])
def test_never_more_than_a_window_is_on_its_way(frame: int) -> None:
    pair = Pair(Limits(data_frame=frame))
    pair.server.objects["k"] = BLOB
    stream = get(pair)
    client, server = pair.client.connection, pair.server.connection
    largest = 0
    while client.outgoing:
        pair.up.collect()
        pair.up.deliver(0.0, pair.server.serve)
        pair.down.collect()
        try:
            got = client.progress(stream)
        except StreamClosedError:
            break
        largest = max(largest, server.bytes_sent - got)
        pair.down.deliver(0.0, pair.client.serve, 50_000)
    assert pair.client.sinks[stream] == BLOB
    assert fixed.INITIAL_WINDOW // 2 < largest <= fixed.INITIAL_WINDOW
