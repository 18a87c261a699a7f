"""The relay's decisions, without any I/O."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest
from proxystore_endpoint.exceptions import RelayLimitError, RelayMessageError
from proxystore_endpoint.limits import KIB, MAX_SIGNAL, MIB
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay.limits import Bucket, RelayLimits

from tests.endpoint.relay.rig import BODY, Rig

CHUNK = 64 * KIB


def test_a_signal_carries_the_source_that_the_relay_knows():
    rig = Rig("abc")
    rig.say("a", m.Signal(1, rig.uuid("b"), BODY))
    assert rig.hear("a") == m.Result(1)
    assert rig.all("b") == [m.Signalled(rig.uuid("a"), BODY)]
    assert rig.all("c") == []
    # A source that the client claims itself is only an unknown field.
    forged = m.encode(m.Signal(2, rig.uuid("b"), BODY))[:-1]
    forged += f',"source":"{rig.uuid("c")}"}}'.encode()
    rig.say("a", forged)
    assert rig.all("b") == [m.Signalled(rig.uuid("a"), BODY)]


def test_an_unknown_destination_is_told_at_once():
    rig = Rig()
    rig.say("a", m.Signal(1, uuid4(), BODY))
    rig.say("a", m.Open(2, uuid4(), MIB))
    rig.say("a", m.Open(3, rig.uuid("a"), MIB))
    assert rig.all("a") == [
        m.Result(1, "unknown"),
        m.Result(2, "unknown"),
        m.Result(3, "refused"),
    ]


def test_a_signal_over_the_limit_is_refused():
    rig = Rig()
    big = msgspec.Raw(b'{"a":"' + b"x" * MAX_SIGNAL + b'"}')
    rig.switch.receive(rig.ports["a"], m.Signal(1, rig.uuid("b"), big), now=0)
    assert rig.all("a") == [m.Result(1, "too_large")]
    assert rig.all("b") == []


def test_the_newest_registration_wins_and_the_older_is_told():
    rig = Rig("abc")
    number = rig.circuit("a", "b")
    older = rig.ports["a"]
    newer = rig.join("a", older.uuid)
    assert rig.switch.ports[older.uuid] is newer
    parting = older.pop(rig.switch.deliver)
    assert parting is not None
    goodbye = m.decode_from_relay(parting)
    assert isinstance(goodbye, m.Goodbye)
    assert goodbye.reason == "replaced"
    assert older.pop(rig.switch.deliver) is None
    assert rig.all("b") == [m.Closed(number, "gone")]
    rig.say("c", m.Signal(1, newer.uuid, BODY))
    assert rig.all("a") == [m.Signalled(rig.uuid("c"), BODY)]
    # The end of the older connection does not take the newer one with it.
    rig.switch.remove(older, m.Goodbye("closed"), now=0)
    assert rig.switch.ports[older.uuid] is newer
    rig.check()


def test_one_that_was_replaced_can_wait_for_its_id():
    rig = Rig("a")
    older = rig.ports["a"]
    assert rig.join("x", older.uuid, replace=False) is not rig.switch.ports[older.uuid]
    assert rig.switch.ports[older.uuid] is older
    assert older.goodbye is None
    rig.leave("a")
    assert rig.join("x", older.uuid, replace=False) is rig.switch.ports[older.uuid]


def test_too_many_registrations_are_refused():
    rig = Rig("ab", registrations=2)
    with pytest.raises(RelayLimitError):
        rig.join("c")
    rig.join("b", rig.uuid("b"))  # taking the place of an older one is no more
    assert len(rig.switch.ports) == 2


def test_a_circuit_carries_messages_both_ways_in_order():
    rig = Rig()
    number = rig.circuit()
    for i in range(5):
        rig.say("a", m.encode_data(number, b"%d" % i))
        rig.say("b", m.encode_data(number, b"-%d" % i))
    assert rig.data("b") == [b"0", b"1", b"2", b"3", b"4"]
    assert rig.data("a") == [b"-0", b"-1", b"-2", b"-3", b"-4"]
    rig.check()


def test_the_end_comes_after_what_was_sent_before():
    rig = Rig()
    number = rig.circuit(window=m.cost(1))
    rig.say("a", m.encode_data(number, b"1"))
    rig.say("a", m.encode_data(number, b"2"))
    rig.say("a", m.Close(number, "done"))
    assert rig.data("b") == [b"1"]  # the credit is used up
    rig.say("b", m.encode_data(number, b"too late"))
    rig.say("b", m.encode_credit(number, m.cost(1)))
    second, end = rig.all("b")
    assert second.payload == b"2"
    assert end == m.Closed(number, "done")
    assert rig.all("a") == []
    assert rig.switch.circuits == {}
    assert rig.switch.held == 0
    assert not rig.ports["a"].circuits
    assert not rig.ports["b"].circuits
    rig.say("b", m.encode_data(number, b"late"))  # crossed with the end: no fault
    rig.say("b", m.Close(number))


def test_both_sides_end_at_once():
    rig = Rig()
    number = rig.circuit()
    rig.say("a", m.encode_data(number, b"1"))
    rig.say("a", m.Close(number))
    rig.say("b", m.Close(number))
    assert rig.all("a") == []
    assert rig.all("b") == []
    assert rig.switch.held == 0
    assert rig.switch.circuits == {}


def test_a_circuit_can_be_refused():
    rig = Rig()
    rig.say("a", m.Open(1, rig.uuid("b"), MIB))
    (incoming,) = rig.all("b")
    rig.say("b", m.Close(incoming.circuit, "refused"))
    assert rig.all("a") == [m.Result(1, "refused")]
    assert rig.switch.held == 0
    rig.say("b", m.Accept(incoming.circuit, MIB))  # it is over: no fault
    assert rig.all("a") == []


def test_a_circuit_that_nobody_answers_is_given_up():
    rig = Rig(accept_timeout=5.0)
    rig.say("a", m.Open(1, rig.uuid("b"), MIB))
    (incoming,) = rig.all("b")
    rig.switch.tick(4.9)
    assert rig.all("a") == []
    rig.switch.tick(5.0)
    assert rig.all("a") == [m.Result(1, "timeout")]
    assert rig.all("b") == [m.Closed(incoming.circuit, "timeout")]
    assert rig.switch.held == 0
    assert rig.switch.circuits == {}


def test_an_ended_circuit_that_nobody_drains_is_given_up():
    rig = Rig()
    number = rig.circuit(window=0)
    rig.say("a", m.encode_data(number, bytes(1000)))
    rig.say("a", m.Close(number))
    rig.switch.tick(59.0)
    assert rig.all("b") == []
    rig.switch.tick(60.0)
    assert rig.all("b") == [m.Closed(number, "timeout")]
    assert rig.switch.held == 0


@pytest.mark.parametrize("who", "ab")
def test_the_other_side_learns_that_a_client_is_gone(who):
    rig = Rig()
    other = "b" if who == "a" else "a"
    number = rig.circuit()
    rig.say(who, m.encode_data(number, b"last words"))
    rig.leave(who)
    words, end = rig.all(other)
    assert words.payload == b"last words"
    assert end == m.Closed(number, "gone")
    assert rig.switch.held == 0
    assert rig.switch.circuits == {}


def test_an_opener_that_goes_before_the_answer():
    rig = Rig()
    rig.say("a", m.Open(1, rig.uuid("b"), MIB))
    rig.leave("a")
    incoming, end = rig.all("b")
    assert end == m.Closed(incoming.circuit, "gone")
    rig.say("b", m.Accept(incoming.circuit, MIB))  # crossed: no fault
    assert rig.switch.held == 0


def test_an_opener_that_goes_while_the_answer_is_on_its_way():
    rig = Rig()
    rig.say("a", m.Open(1, rig.uuid("b"), MIB))
    incoming = rig.hear("b")
    rig.leave("a")
    rig.say("b", m.Accept(incoming.circuit, MIB))
    rig.say("b", m.encode_data(incoming.circuit, b"hello"))
    assert rig.all("b") == [m.Closed(incoming.circuit, "gone")]
    assert rig.switch.held == 0


def test_a_third_client_cannot_touch_a_circuit():
    rig = Rig("abc")
    number = rig.circuit("a", "b")
    for message in (
        m.encode_data(number, b"evil"),
        m.encode_credit(number, 1000),
        m.Accept(number, 0),
        m.Close(number),
    ):
        rig.say("c", message)
    assert rig.all("a") == []
    assert rig.all("b") == []
    rig.say("a", m.encode_data(number, b"good"))
    assert rig.data("b") == [b"good"]


@pytest.mark.parametrize(
    "message",
    [
        m.Register(uuid=uuid4(), public_key=bytes(32), signature=b"", audience=""),
        m.Accept(1, MIB),
        m.encode_data(1, bytes(256 * KIB)),
    ],
    ids=["register", "accept", "data"],
)
def test_what_breaks_the_rules_is_an_error(message):
    rig = Rig(first_window=342 * KIB)
    number = rig.circuit()
    assert number == 1
    rig.say("a", m.encode_data(number, bytes(100 * KIB)))
    with pytest.raises(RelayMessageError):
        rig.say("a", message)


def test_data_before_the_circuit_is_open_is_an_error():
    rig = Rig()
    rig.say("a", m.Open(1, rig.uuid("b"), MIB))
    (incoming,) = rig.all("b")
    for who in "ab":
        with pytest.raises(RelayMessageError):
            rig.say(who, m.encode_data(incoming.circuit, b"early"))


def test_a_slow_receiver_stops_only_who_sends_to_it():
    rig = Rig("abc")
    slow, quick = rig.circuit("a", "b", window=0), rig.circuit("a", "c")
    sent = 0
    while True:
        granted = rig.switch.circuits[slow].forward.granted
        if granted < m.cost(CHUNK):
            break
        rig.say("a", m.encode_data(slow, bytes(CHUNK)))
        sent += 1
        assert rig.all("b") == []  # it gave no credit
    assert 0 < sent * CHUNK <= rig.switch.limits.first_window
    for _ in range(1000):  # the other circuit goes on
        rig.say("a", m.encode_data(quick, bytes(CHUNK)))
        (got,) = rig.all("c")
        assert len(got.payload) == CHUNK
        rig.say("c", m.encode_credit(quick, got.cost))
        rig.check()
    rig.say("b", m.encode_credit(slow, 10 * MIB))
    assert len([x for x in rig.all("b") if isinstance(x, m.Data)]) == sent
    rig.check()


def test_credit_comes_back_as_messages_leave():
    rig = Rig()
    number = rig.circuit(window=1 << 31)
    credit = rig.switch.limits.first_window
    for _ in range(5000):
        credit -= m.cost(CHUNK)
        assert credit >= 0
        rig.say("a", m.encode_data(number, bytes(CHUNK)))
        rig.all("b")
        credit += sum(x.amount for x in rig.all("a") if isinstance(x, m.Credit))
        assert credit <= rig.switch.limits.window
        rig.check()


def test_all_circuits_together_stay_within_the_buffer():
    limits = {"first_window": MIB, "window": 4 * MIB, "buffered": 16 * MIB}
    rig = Rig("abcdef", **limits)
    numbers = []
    for opener in "abcdef":
        for other in "abcdef":
            if opener == other:
                continue
            rig.say(opener, m.Open(1, rig.uuid(other), 0))
            for message in rig.all(other):
                if isinstance(message, m.Incoming):
                    rig.say(other, m.Accept(message.circuit, 0))
                    numbers.append((opener, other, message.circuit))
    refused = [x for letter in "abcdef" for x in rig.all(letter) if isinstance(x, m.Result)]
    assert len(numbers) == 8  # 16 MiB / (2 flows of 1 MiB)
    assert {x.error for x in refused} == {"busy"}
    for opener, other, number in numbers:
        for who in (opener, other):
            while rig.switch.circuits[number].flow_from(rig.ports[who]).granted >= m.cost(CHUNK):
                rig.say(who, m.encode_data(number, bytes(CHUNK)))
    rig.check()
    for opener, other, number in numbers:
        rig.say(other, m.encode_credit(number, 1 << 31))
        rig.say(opener, m.encode_credit(number, 1 << 31))
    for letter in "abcdef":
        rig.all(letter)
        rig.check()
    for letter in "abcdef":
        rig.leave(letter)
    assert rig.switch.held == 0


def test_credit_never_dries_up_when_the_buffer_is_scarce():
    limits = {"first_window": 350 * KIB, "window": 350 * KIB, "buffered": 700 * KIB}
    rig = Rig(**limits)
    number = rig.circuit(window=1 << 31)
    credit = 350 * KIB
    for i in range(2000):
        size = (256 * KIB, 1, 90 * KIB)[i % 3]
        assert credit >= m.cost(size)
        credit -= m.cost(size)
        rig.say("a", m.encode_data(number, bytes(size)))
        rig.all("b")
        credit += sum(x.amount for x in rig.all("a") if isinstance(x, m.Credit))
        rig.check()


def test_sources_take_turns_whatever_the_number_of_their_circuits():
    rig = Rig("abz")
    greedy = [rig.circuit("a", "z") for _ in range(8)]
    modest = rig.circuit("b", "z")
    for number in greedy:
        for _ in range(6):
            rig.say("a", m.encode_data(number, bytes(CHUNK)))
    for _ in range(6):
        rig.say("b", m.encode_data(modest, bytes(CHUNK)))
    first = [rig.hear("z") for _ in range(16)]
    assert sum(x.circuit == modest for x in first) == 6  # its share is a half: all were sent


def test_sources_take_turns_by_bytes_not_by_messages():
    rig = Rig("abz")
    small, large = rig.circuit("a", "z"), rig.circuit("b", "z")
    for _ in range(400):
        rig.say("a", m.encode_data(small, bytes(KIB)))
    for _ in range(2):
        rig.say("b", m.encode_data(large, bytes(200 * KIB)))
    order = [x.circuit for x in rig.all("z") if isinstance(x, m.Data)]
    assert order.index(large) < 300  # not behind all small ones
    second = order.index(large, order.index(large) + 1)
    assert second - order.index(large) > 50  # and not one by one either


def test_a_flood_of_signals_fills_only_the_senders_own_lane():
    rig = Rig("abz", signals=1e9, signals_queued=MIB)
    big = m.encode_body({"a": "x" * 60_000})
    for number in range(40):
        rig.say("a", m.Signal(number, rig.uuid("z"), big))
    results = [x.error for x in rig.all("a")]
    assert results.count("") == 18  # a little over 1 MiB
    assert set(results) == {"", "busy"}
    rig.say("b", m.Signal(1, rig.uuid("z"), BODY))
    assert rig.all("b") == [m.Result(1)]
    sources = [x.source for x in rig.all("z")]
    assert sources.index(rig.uuid("b")) <= 5  # it does not wait for all of the other's


def test_rates_are_limited():
    rig = Rig(signals=10, opens=2)
    for number in range(100):
        rig.say("a", m.Signal(number, rig.uuid("b"), BODY))
    assert [x.error for x in rig.all("a")].count("rate") == 50  # 5 s worth were there
    rig.now = 1.0
    for number in range(20):
        rig.say("a", m.Signal(number, rig.uuid("b"), BODY))
    assert [x.error for x in rig.all("a")].count("rate") == 10
    for number in range(12):
        rig.say("a", m.Open(number, rig.uuid("b"), MIB))
    assert [x.error for x in rig.all("a")] == ["rate"] * 2
    rig.all("b")
    rig.say("b", m.Signal(1, rig.uuid("a"), BODY))  # others have their own
    assert rig.all("b")[-1] == m.Result(1)


def test_circuits_of_a_client_are_limited():
    rig = Rig("abc", circuits=3, buffered=1 << 40)
    for _ in range(3):
        rig.circuit("a", "b")
    rig.say("c", m.Open(1, rig.uuid("b"), MIB))
    rig.say("a", m.Open(2, rig.uuid("c"), MIB))
    assert rig.all("c") == [m.Result(1, "limit")]
    assert rig.all("a") == [m.Result(2, "limit")]


def test_pings_are_answered_and_unknown_messages_ignored():
    rig = Rig("a")
    rig.say("a", m.Ping(9))
    rig.say("a", b'{"type":"future"}')
    rig.say("a", b"\x30future")
    assert rig.all("a") == [m.Pong(9)]
    assert rig.switch.counts["unknown_messages"] == 2


def test_who_waits_is_woken():
    rig = Rig()
    rig.woken.clear()
    rig.say("a", m.Signal(1, rig.uuid("b"), BODY))
    assert set(rig.woken) == {rig.uuid("a"), rig.uuid("b")}
    rig.all("b")
    number = rig.circuit(window=0)
    rig.all("a")
    rig.woken.clear()
    rig.say("a", m.encode_data(number, b"1"))
    assert rig.woken == []  # no credit: nothing to pop
    rig.say("b", m.encode_credit(number, 1000))
    assert rig.woken == [rig.uuid("b")]


def test_bucket():
    bucket = Bucket(10.0, 5.0)
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert not bucket.take(0.0)  # a clock that goes back gives nothing
    assert bucket.borrow(0.1, 2.0) == pytest.approx(0.2)
    assert bucket.borrow(100.0, 0.0) == 0.0
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]


@pytest.mark.parametrize(
    "limits",
    [{"payload": 0}, {"payload": MIB}, {"first_window": 256 * KIB}, {"window": KIB}],
    ids=str,
)
def test_limits_that_cannot_work_are_refused(limits):
    with pytest.raises(ValueError, match="has to be"):
        RelayLimits(**limits)
