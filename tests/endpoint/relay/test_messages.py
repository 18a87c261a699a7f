"""The relay's messages: there and back, and what is none."""

from __future__ import annotations

import random
import tracemalloc
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxystore_endpoint.exceptions import RelayMessageError
from proxystore_endpoint.limits import MAX_CIRCUIT_MESSAGE, MAX_SIGNAL, MIB
from proxystore_endpoint.relay import messages as m

from tests.endpoint.relay.support import mutated

ID = UUID("6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b")
RAW = msgspec.Raw(b'{"sdp":"v=0"}')
FROM_CLIENT = [
    m.Register(uuid=ID, public_key=b"k" * 32, signature=b"s" * 64, audience="relay:443"),
    m.Register(
        uuid=ID,
        public_key=b"k" * 32,
        signature=b"s" * 64,
        audience="relay:443",
        replace=False,
        auth=m.Proof("secret", b"m" * 32),
    ),
    m.Ping(3),
    m.Signal(1, ID, RAW),
    m.Open(2, ID, 4 * MIB),
    m.Accept(5, 4 * MIB),
    m.Close(5, "closed"),
]
FROM_RELAY = [
    m.Challenge(b"n" * 32, "globus"),
    m.Welcome(ID, "192.0.2.1:4000"),
    m.Goodbye("replaced", "A newer one."),
    m.Pong(3),
    m.Result(1, "unknown"),
    m.Signalled(ID, RAW),
    m.Incoming(5, ID, 512 * 1024),
    m.Opened(2, 5, 512 * 1024),
    m.Closed(5, "gone"),
]
BINARY = [m.encode_data(5, b"x" * 100), m.encode_data(2**63, b""), m.encode_credit(5, 70_000)]


@pytest.mark.parametrize("message", FROM_CLIENT, ids=lambda message: type(message).__name__)
def test_a_clients_message_arrives(message):
    assert m.decode_from_client(m.encode(message)) == message


@pytest.mark.parametrize("message", FROM_RELAY, ids=lambda message: type(message).__name__)
def test_a_relays_message_arrives(message):
    assert m.decode_from_relay(m.encode(message)) == message


@given(st.integers(0, 2**64 - 1), st.binary(max_size=2000))
def test_data_arrives(circuit, payload):
    frame = m.encode_data(circuit, memoryview(payload))
    for decode in (m.decode_from_client, m.decode_from_relay):
        message = decode(frame)
        assert isinstance(message, m.Data)
        assert message.circuit == circuit
        assert message.payload == payload
        assert message.frame is frame  # passed on as it is
        assert message.cost == m.cost(len(payload))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_credit_arrives(circuit, amount):
    assert m.decode_from_relay(m.encode_credit(circuit, amount)) == m.Credit(circuit, amount)


def test_unknown_types_and_fields_are_ignored():
    assert m.decode_from_client(b'{"type":"dance","with":1}') == m.Unknown("dance")
    assert m.decode_from_relay(b"\x7fwhatever") == m.Unknown("0x7f")
    assert m.decode_from_client(b'{"type":"ping","id":3,"new":[1,{}]}') == m.Ping(3)


def test_a_message_of_the_other_direction_is_unknown():
    assert m.decode_from_client(m.encode(m.Pong(1))) == m.Unknown("pong")
    assert m.decode_from_relay(m.encode(m.Ping(1))) == m.Unknown("ping")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01",
        b"\x02" + bytes(8),
        b"\x02" + bytes(13),
        b"{",
        b"{}",
        b'{"type":3}',
        b'{"type":"ping"}',
        b'{"type":"ping","id":-1}',
        b'{"type":"ping","id":4294967296}',
        b'{"type":"ping","id":"x"}',
        b'{"type":"signal","id":1,"to":"nobody","body":{}}',
        b'{"type":"signal","id":1,"to":"' + str(ID).encode() + b'","body":{]}',
        b'{"type":"open","id":1,"to":"' + str(ID).encode() + b'","window":1e9}',
        b'{"type":"close","circuit":1,"reason":"' + b"x" * 300 + b'"}',
        b'{"type":"register"}',
        b'{"type":"ping","id":1}' + b" " * m.MAX_CONTROL,
        b'{"type":"x","a":' + b"[" * 50_000,
    ],
    ids=lambda frame: repr(frame[:40]),
)
def test_what_is_no_message_is_a_named_error(frame):
    with pytest.raises(RelayMessageError):
        m.decode_from_client(frame)


def test_bodies():
    assert m.decode_body(m.encode_body({"a": [1, "ü"]})) == {"a": [1, "ü"]}
    loop: dict = {}
    loop["loop"] = loop
    for bad in ({"a": "x" * MAX_SIGNAL}, {"a": object()}, [1], loop):
        with pytest.raises(RelayMessageError):
            m.encode_body(bad)
    for raw in (b"[1]", b"{", b'"x"', b"[" * 10_000):
        with pytest.raises(RelayMessageError):
            m.decode_body(msgspec.Raw(raw))


def test_the_largest_messages_fit_their_limits():
    assert len(m.encode(m.Signal(2**32 - 1, ID, m.encode_body({"a": "x" * (MAX_SIGNAL - 8)})))) < (
        m.MAX_CONTROL
    )
    assert len(m.encode_data(1, bytes(MAX_CIRCUIT_MESSAGE))) == MAX_CIRCUIT_MESSAGE + m.DATA_HEADER


def test_what_is_signed_differs_in_every_part():
    parts = (b"n" * 32, ID, b"k" * 32, "relay:443")
    others = (b"m" * 32, uuid4(), b"l" * 32, "other:443")
    signed = {m.registration(*parts)}
    for i, other in enumerate(others):
        signed.add(m.registration(*parts[:i], other, *parts[i + 1 :]))
    signed.add(m.secret_claim(b"n" * 32, ID, "relay:443"))
    assert len(signed) == 6


def fuzz(count: int, seed: int) -> None:
    frames = [m.encode(x) for x in (*FROM_CLIENT, *FROM_RELAY)] + BINARY
    rng = random.Random(seed)
    bad = 0
    for number in range(count):
        decode = m.decode_from_client if number % 2 else m.decode_from_relay
        try:
            decode(mutated(rng, frames))
        except RelayMessageError:
            bad += 1
    assert count * 0.2 < bad < count  # the mutations neither miss nor only hit the syntax


def test_mutated_messages_are_decoded_or_refused():
    fuzz(20_000, seed=1)


@pytest.mark.soak
def test_a_million_mutated_messages():
    fuzz(1_000_000, seed=2)


def test_a_mutated_message_takes_little_memory():
    frames = [m.encode(x) for x in (*FROM_CLIENT, *FROM_RELAY)] + BINARY
    rng = random.Random(3)
    cases = [mutated(rng, frames) for _ in range(2_000)]
    tracemalloc.start()
    try:
        for case in cases:
            for decode in (m.decode_from_client, m.decode_from_relay):
                try:
                    decode(case)
                except RelayMessageError:
                    continue
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
