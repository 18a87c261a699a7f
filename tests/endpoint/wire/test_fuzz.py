"""Mutated frames, by the ten thousand: an `Ended` event at worst, and no memory for a header."""

from __future__ import annotations

import random
import struct
import tracemalloc

import msgspec
import pytest
from proxystore_endpoint.exceptions import WireError
from proxystore_endpoint.limits import KIB, MAX_DATA, MIB, Limits
from proxystore_endpoint.wire import frames as f
from proxystore_endpoint.wire.connection import Connection, Role
from proxystore_endpoint.wire.events import (
    AuthReceived,
    Ended,
    Event,
    HelloReceived,
    RequestReceived,
    ResponseReceived,
)
from proxystore_endpoint.wire.messages import (
    Cancel,
    End,
    GoAway,
    Request,
    Response,
    Status,
    encode,
)

from tests.endpoint.wire.kit import AUTH, HELLO, READY

LIMITS = Limits(max_streams=16)
BATCH = 25  # frames that one connection is given


def _raw(body: dict[str, object]) -> bytes:
    return msgspec.msgpack.encode(body)


HANDSHAKE = [
    f.pack(f.HELLO, 0, encode(HELLO)),
    f.pack(f.AUTH, 0, encode(AUTH)),
    f.pack(f.READY, 0, encode(READY)),
    f.pack(f.GOAWAY, 0, encode(GoAway(reason="refused", detail="no"))),
]
VALID = [
    *HANDSHAKE,
    f.pack(f.REQUEST, 1, encode(Request(op="get", key="k", deadline_ms=1000))),
    f.pack(f.REQUEST, 3, encode(Request(op="put", key="k", nbytes=20, durability="durable"))),
    f.pack(f.REQUEST, 5, encode(Request(op="list", cursor="c", limit=10))),
    f.pack(f.REQUEST, 2, encode(Request(op="put", key="k" * 256, nbytes=1 << 40))),
    f.pack(f.RESPONSE, 1, encode(Response(nbytes=100, size=100, etag="e" * 64))),
    f.pack(f.RESPONSE, 3, encode(Response(keys=["a", "b"] * 50, cursor="b"))),
    f.pack(f.RESPONSE, 2, encode(Response(status=Status.MISSING, reason="evicted"))),
    f.pack(f.DATA, 1, bytes(50)),
    f.pack(f.DATA, 3, bytes(20)),
    f.pack(f.DATA, 2, bytes(1000)),
    f.pack(f.END, 1, encode(End(status=Status.ERROR, detail="x"))),
    f.pack(f.CREDIT, 1, struct.pack(">I", 1000)),
    f.pack(f.CANCEL, 3, encode(Cancel())),
    f.pack(f.PING, 0, bytes(8)),
    f.pack(f.PONG, 0, struct.pack(">Q", 1)),
    f.pack(99, 7, b"unknown", flags=f.IGNORABLE),
    f.pack(f.REQUEST, 7, _raw({"op": "get", "key": "k", "more": [[[[1.5, None, True]]]]})),
]
PIECES = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 500]
PIECES += [b"\xff" * 8, bytes(8), b"\x80\x04\x95", b"\xa1\xff", b"\xcf" + b"\xff" * 8, b"\xc1"]


def mutate(random: random.Random, frame: bytes) -> bytes:
    """One of the ways to spoil a frame."""
    raw = bytearray(frame)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        kind = random.randrange(9)
        at = random.randrange(len(raw)) if raw else 0
        if kind == 0 and raw:
            raw[at] ^= 1 << random.randrange(8)
        elif kind == 1 and raw:
            raw[at] = random.randrange(256)
        elif kind == 2:
            del raw[at : at + random.randrange(1, 20)]
        elif kind == 3:
            raw[at:at] = random.choice(PIECES)
        elif kind == 4 and len(raw) >= 12:
            size = random.choice((0, 1, 0xFFFFFFFF, 1 << 20, (1 << 20) + 1, 65536, 65537, len(raw)))
            raw[8:12] = struct.pack(">I", size)
        elif kind == 5 and len(raw) >= 12:
            raw[4:8] = struct.pack(">I", random.choice((0, 1, 2, 3, 4, 0xFFFFFFFF)))
        elif kind == 6 and raw:
            raw[0] = random.choice((*f.NAMES, 0, 13, 255))
        elif kind == 7 and len(raw) > 12:  # the body changes and the header fits it
            raw[12 + (at % (len(raw) - 12))] = random.randrange(256)
        elif kind == 8:
            raw += random.choice(VALID)
    return bytes(raw)


class Target:
    """A connection in one of its states, with a user that trusts nobody and allocates little."""

    def __init__(self, random: random.Random) -> None:
        role = random.choice((Role.CLIENT, Role.SERVER))
        self.connection = Connection(role, limits=LIMITS, now=0.0)
        self.ended = False
        depth = random.randrange(4)  # how far the handshake has come
        if role is Role.SERVER:
            if depth > 0:
                self.connection.send_hello(HELLO)
            if depth > 1:
                self.feed(HANDSHAKE[1])
        else:
            if depth > 0:
                self.feed(HANDSHAKE[0])
            if depth > 1:
                self.feed(HANDSHAKE[2])
        if self.connection.ready:
            for request in (
                Request(op="get", key="k"),
                Request(op="put", key="p", nbytes=5000),
                Request(op="get", key="x", length=100),
            ):
                self.connection.request(request, now=0.0, body=bytes(request.nbytes) or None)
            self.connection.tick(0.0)
            self.connection.to_send()

    def feed(self, raw: bytes) -> None:
        data = memoryview(raw)
        connection = self.connection
        while len(data) and not connection.ended:
            view = connection.buffer()
            take = min(len(view), len(data))
            view[:take] = data[:take]
            data = data[take:]
            self.handle(connection.received(take, 0.0))
            while connection.paused:
                self.handle(connection.received(0, 0.0))

    def handle(self, events: list[Event]) -> None:
        for event in events:
            assert not self.ended
            if isinstance(event, HelloReceived):
                if not self.connection.ended:
                    self.connection.send_auth(AUTH)
            elif isinstance(event, AuthReceived):
                if not self.connection.ended:
                    self.connection.send_ready(READY)
            elif isinstance(event, RequestReceived):
                if 0 < event.request.nbytes < 10_000:
                    sink = memoryview(bytearray(event.request.nbytes))
                    self.take(event.stream, sink)
                elif event.stream % 3:
                    self.answer(event.stream)
            elif isinstance(event, ResponseReceived):
                if 0 < event.response.nbytes < 10_000:
                    self.take(event.stream, memoryview(bytearray(event.response.nbytes)))
            elif isinstance(event, Ended):
                assert isinstance(event.error, WireError)
                self.ended = True

    def take(self, stream: int, sink: memoryview) -> None:
        try:
            self.connection.set_sink(stream, sink)
        except WireError:  # the rest of the same bytes ended it
            return

    def answer(self, stream: int) -> None:
        try:
            self.connection.respond(stream, Response(nbytes=100), bytes(100))
        except WireError:
            return


def fuzz(frames: int, seed: int) -> tuple[int, int]:
    """Feed so many mutated frames; return how many were taken, and how many connections ended."""
    rng = random.Random(seed)
    taken = ends = 0
    while taken < frames:
        target = Target(rng)
        for _ in range(BATCH):
            frame = rng.choice(VALID)
            target.feed(mutate(rng, frame) if rng.random() < 0.8 else frame)
            taken += 1
            if target.connection.ended:
                assert target.ended
                ends += 1
                break
        target.connection.tick(rng.choice((0.0, 5.0, 100.0)))
        target.connection.eof(100.0)
        target.connection.to_send()
        assert target.connection.incoming == target.connection.outgoing == 0
    return taken, ends


def test_mutated_frames_never_raise() -> None:
    taken, ends = fuzz(20_000, seed=1)
    assert ends > taken // 20, "hardly anything was noticed"


@pytest.mark.soak
def test_a_million_mutated_frames_never_raise() -> None:
    for seed in range(100):
        fuzz(10_000, seed=1000 + seed)


def test_no_header_makes_us_allocate() -> None:
    rng = random.Random(7)
    headers = [
        f.HEADER.pack(kind, flags, 0, stream, length)
        for kind in (*f.NAMES, 99)
        for flags in (0, f.IGNORABLE)
        for stream in (0, 1, 2)
        for length in (0xFFFFFFFF, 1 << 31, MAX_DATA, 64 * KIB)
    ]
    bodies = [f.pack(f.REQUEST, 1, piece * (60_000 // len(piece))) for piece in PIECES]
    bodies += [
        f.pack(f.REQUEST, 1, encode(Request(op="put", key="k", nbytes=1 << 46))),
        f.pack(f.RESPONSE, 1, encode(Response(nbytes=1 << 46))),
        f.pack(f.RESPONSE, 1, b"\x81\xa4keys\xdd\xff\xff\xff\xff"),
        f.pack(f.RESPONSE, 1, b"\x81\xa6detail\xdb\xff\xff\xff\xff"),
    ]
    tracemalloc.start()
    try:
        for raw in headers + bodies:
            for _ in range(2):
                target = Target(rng)
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                target.feed(raw)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - before < MIB, raw[:50]
    finally:
        tracemalloc.stop()
