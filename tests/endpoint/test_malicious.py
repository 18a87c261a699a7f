"""Everything that a stranger or a false friend can send, at an endpoint that is alive."""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from proxystore_endpoint.identity import Identity, uuid_of
from proxystore_endpoint.limits import MAX_DATA, MIB
from proxystore_endpoint.membership import ALL_RIGHTS, Membership
from proxystore_endpoint.secure import (
    MemoryTls,
    check_server,
    client_context,
    make_auth,
    make_hello,
)
from proxystore_endpoint.wire import frames as f
from proxystore_endpoint.wire.messages import (
    Auth,
    GoAway,
    Hello,
    Op,
    Request,
    Response,
    decode,
    encode,
)

from tests.conftest import wait_until
from tests.endpoint.wire.test_fuzz import VALID, mutate

CONTEXT = client_context()


class Target:
    """The process under attack, and the identities that it knows."""

    def __init__(self) -> None:
        self.friend, self.guest, self.writer, self.stranger = (
            Identity.generate() for _ in range(4)
        )
        self.canary = secrets.token_bytes(32)
        self.key = str(uuid4())
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("malicious_target.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = self.ask(
            json.dumps(
                {
                    "friend": str(self.friend.uuid),
                    "guest": str(self.guest.uuid),
                    "writer": str(self.writer.uuid),
                    "key": self.key,
                    "canary": self.canary.hex(),
                }
            )
        )
        self.public_key = bytes.fromhex(found["key"])
        host, port = found["address"].rsplit(":", 1)
        self.address = host, int(port)

    def ask(self, line: str = "") -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"it exited: {self.process.wait(30)}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0, "it did not end well"
        self.process.stdout.close()


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.close()


class Talk:
    """A connection to the target, by hand; what comes back is kept."""

    def __init__(self, target: Target) -> None:
        self.target = target
        raw = socket.create_connection(target.address, timeout=10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.raw = raw
        self.tls = MemoryTls(CONTEXT, server=False)
        self.got = bytearray()
        while not self.tls.handshake():
            raw.sendall(self.tls.drain())
            self._feed()
        raw.sendall(self.tls.drain())
        check_server(self.tls.channel, uuid_of(target.public_key))

    def _feed(self) -> bool:
        data = self.raw.recv(65536)
        self.tls.feed(data)
        return bool(data)

    def _read(self) -> bool:
        view = memoryview(bytearray(65536))
        while (n := self.tls.read_into(view)) is None:
            if not self._feed():
                return False
        self.got += view[:n]
        return n > 0

    def frame(self) -> tuple[int, int, bytes]:
        """The next frame: type, stream, body."""
        while len(self.got) < 12 or len(self.got) < 12 + int.from_bytes(self.got[8:12], "big"):
            if not self._read():
                raise ConnectionError("it is closed")
        kind, _, _, stream, length = f.HEADER.unpack_from(self.got)
        body = bytes(self.got[12 : 12 + length])
        del self.got[: 12 + length]
        return kind, stream, body

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.raw.sendall(self.tls.drain())

    def hello(self) -> Hello:
        kind, _, body = self.frame()
        assert kind == f.HELLO
        return decode(Hello, body)

    def enter(self, identity: Identity, **options: Any) -> None:
        """Prove who we are, truly, and wait to be let in."""
        auth = make_auth(identity, self.target.public_key, self.hello(), **options)
        self.send(f.pack(f.AUTH, 0, encode(auth)))
        kind, _, body = self.frame()
        assert kind == f.READY, body

    def rest(self) -> bytes:
        """End our half, and return all that comes until the other half ends."""
        with contextlib.suppress(OSError, ssl.SSLError):
            self.raw.shutdown(socket.SHUT_WR)
            while self._read():
                pass
        self.raw.close()
        assert self.target.canary not in self.got, "the object was read"
        return bytes(self.got)


def frames_in(data: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while len(data) >= 12:
        kind, _, _, stream, length = f.HEADER.unpack_from(data)
        found.append((kind, stream, data[12 : 12 + length]))
        data = data[12 + length :]
    return found


def wants(target: Target, *, first: int = 1) -> list[bytes]:
    """Requests for the object, by all operations there are."""
    made = []
    for number, op in enumerate((*Op, "fly", "")):
        nbytes = 5 if op == Op.PUT else 0
        request = Request(op=op, key=target.key, nbytes=nbytes)
        made.append(f.pack(f.REQUEST, first + 2 * number, encode(request)))
    return made


Attack = Callable[[Target, random.Random], int]


def _push(talk: Talk, parts: list[bytes]) -> int:
    """Send until it hangs up, and read what comes; return how much was sent."""
    sent = 0
    with contextlib.suppress(OSError, ssl.SSLError):
        for part in parts:
            talk.send(part)
            sent += 1
    talk.rest()
    return max(sent, 1)


def stolen_id(target: Target, rng: random.Random) -> int:
    """A friend's key, without what belongs to it."""
    talk = Talk(target)
    auth = make_auth(target.stranger, target.public_key, talk.hello())
    signature = rng.choice((auth.signature, bytes(64), rng.randbytes(64)))
    auth = msgspec.structs.replace(auth, public_key=target.friend.public_key, signature=signature)
    return _push(talk, [f.pack(f.AUTH, 0, encode(auth)), *wants(target)])


def replayed(target: Target, rng: random.Random) -> int:
    """What a friend once said here, or what it says elsewhere now."""
    talk = Talk(target)
    hello = talk.hello()
    if rng.random() < 0.5:
        auth = make_auth(target.friend, target.public_key, make_hello())
    else:
        auth = make_auth(target.friend, target.stranger.public_key, hello)
    return _push(talk, [f.pack(f.AUTH, 0, encode(auth)), *wants(target)])


def flipped(target: Target, rng: random.Random) -> int:
    """A friend's true words with one bit changed."""
    talk = Talk(target)
    auth = make_auth(target.friend, target.public_key, talk.hello())
    name = rng.choice(("public_key", "signature"))
    value = bytearray(getattr(auth, name))
    value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
    auth = msgspec.structs.replace(auth, **{name: bytes(value)})
    return _push(talk, [f.pack(f.AUTH, 0, encode(auth)), *wants(target)])


def early(target: Target, rng: random.Random) -> int:
    """Requests before, or instead of, the proof."""
    return _push(Talk(target), rng.sample(wants(target), 4))


def unknown(target: Target, rng: random.Random) -> int:
    """A stranger that says truly who it is, shows what it has, and asks at once."""
    talk = Talk(target)
    hello = talk.hello()
    own = Membership.issue(target.stranger, target.stranger.uuid, ALL_RIGHTS)
    others = Membership.issue(target.stranger, target.friend.uuid, ALL_RIGHTS)
    auth = make_auth(
        target.stranger,
        target.public_key,
        hello,
        memberships=[own.raw, others.raw, rng.randbytes(100)],
        ticket=rng.choice((b"", rng.randbytes(16))),
    )
    talk.send(f.pack(f.AUTH, 0, encode(auth)))
    kind, _, body = talk.frame()
    assert kind == f.GOAWAY
    assert decode(GoAway, body).reason == "refused"
    return 1 + _push(talk, wants(target))


def noise_before(target: Target, rng: random.Random) -> int:
    """Spoiled frames instead of a proof."""
    return _push(Talk(target), [mutate(rng, rng.choice(VALID)) for _ in range(10)])


def no_tls(target: Target, rng: random.Random) -> int:
    """What is not even TLS, or only begins like it."""
    with socket.create_connection(target.address, timeout=10) as sock, contextlib.suppress(OSError):
        begin = rng.choice((b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        sock.sendall(begin + rng.randbytes(rng.randrange(500)))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    return 1


def broken_record(target: Target, rng: random.Random) -> int:
    """A friend's connection in which someone on the way changes a bit."""
    talk = Talk(target)
    talk.enter(target.friend)
    talk.tls.write(wants(target)[0])
    record = bytearray(talk.tls.drain())
    record[rng.randrange(5, len(record))] ^= 1 << rng.randrange(8)
    with contextlib.suppress(OSError):
        talk.raw.sendall(record)
    talk.rest()
    return 1


def no_rights(target: Target, rng: random.Random) -> int:
    """One that may come in and do nothing tries everything."""
    talk = Talk(target)
    talk.enter(target.guest)
    asked = wants(target)
    with contextlib.suppress(OSError, ssl.SSLError):
        for frame in asked:
            talk.send(frame)
    answers = [
        decode(Response, body) for kind, _, body in frames_in(talk.rest()) if kind == f.RESPONSE
    ]
    assert answers
    assert {answer.status for answer in answers} <= {"refused", "bad_request"}
    assert not any(answer.found or answer.keys or answer.size for answer in answers)
    return len(asked)


def unasked(target: Target, rng: random.Random) -> int:
    """Answers that nobody asked for, credit that nobody needs, and the like."""
    talk = Talk(target)
    talk.enter(rng.choice((target.guest, target.writer)))
    number = rng.choice((1, 2, 3, 4, 1000, 0xFFFFFFFF))
    frames = [
        f.pack(f.RESPONSE, number, encode(Response(nbytes=1 << 40))),
        f.pack(f.DATA, number, rng.randbytes(1000)),
        f.pack(f.END, number, b"\x80"),
        f.pack(f.CREDIT, number, struct.pack(">I", 0xFFFFFFFF)),
        f.pack(f.CANCEL, number, b"\x80"),
        f.pack(f.PONG, 0, bytes(8)),
        f.pack(f.HELLO, 0, encode(make_hello())),
        f.pack(f.AUTH, 0, encode(Auth(version=1, public_key=bytes(32), signature=bytes(64)))),
    ]
    return _push(talk, rng.sample(frames, 3))


def endless(target: Target, rng: random.Random) -> int:
    """A body that never stops, larger than announced, or of an absurd size."""
    talk = Talk(target)
    talk.enter(rng.choice((target.guest, target.writer)))
    size = rng.choice((1, 1000, 3 * MIB, 1 << 40, 1 << 46))
    put = f.pack(f.REQUEST, 1, encode(Request(op="put", key=str(uuid4()), nbytes=size)))
    chunk = f.pack(f.DATA, 1, bytes(rng.choice((1, 1001, MAX_DATA))))
    return _push(talk, [put, *[chunk] * 6])


def spoiled(target: Target, rng: random.Random) -> int:
    """Spoiled frames from one that was let in."""
    talk = Talk(target)
    talk.enter(rng.choice((target.guest, target.writer)))
    return _push(talk, [mutate(rng, rng.choice(VALID)) for _ in range(10)])


def strange_keys(target: Target, rng: random.Random) -> int:
    """Keys that would leave the store, if they were paths."""
    talk = Talk(target)
    talk.enter(target.writer)
    keys = (
        "../../etc/passwd",
        "/etc/passwd",
        "",
        ".",
        "a\0b",
        "x" * 256,
        "\ud7ff",
        f"../{target.key}",
    )
    asked = [
        f.pack(f.REQUEST, 1 + 2 * i, encode(Request(op=rng.choice(("put", "evict")), key=key)))
        for i, key in enumerate(keys)
    ]
    with contextlib.suppress(OSError, ssl.SSLError):
        for frame in asked:
            talk.send(frame)
    answers = [
        decode(Response, body) for kind, _, body in frames_in(talk.rest()) if kind == f.RESPONSE
    ]
    assert answers
    assert not any(answer.status == "ok" and answer.found for answer in answers)
    return len(asked)


def in_and_out(target: Target, rng: random.Random) -> int:
    """Asks and gives up at once, in one write, many times."""
    talk = Talk(target)
    talk.enter(target.writer)
    parts = b""
    for number in range(1, 101, 2):
        put = Request(op="put", key=str(uuid4()), nbytes=100_000)
        parts += f.pack(f.REQUEST, number, encode(put)) + f.pack(f.CANCEL, number, b"\x80")
    return _push(talk, [parts]) * 20


ATTACKS: tuple[Attack, ...] = (
    stolen_id,
    replayed,
    flipped,
    early,
    unknown,
    noise_before,
    no_tls,
    broken_record,
    no_rights,
    unasked,
    endless,
    spoiled,
    strange_keys,
    in_and_out,
)


def served(target: Target) -> float:
    """A friend still gets the object, whole; return how long it took."""
    begin = time.monotonic()
    talk = Talk(target)
    talk.enter(target.friend)
    talk.send(f.pack(f.REQUEST, 1, encode(Request(op="get", key=target.key))))
    body = b""
    while len(body) < 32 * 4096:
        kind, _, part = talk.frame()
        if kind == f.RESPONSE:
            assert decode(Response, part).status == "ok"
        elif kind == f.DATA:
            body += part
    assert body == target.canary * 4096
    talk.raw.close()
    return time.monotonic() - begin


def attack(target: Target, messages: int) -> None:
    rng = random.Random(messages)
    before: dict[str, Any] = {}
    half_open = [socket.create_connection(target.address) for _ in range(50)]
    slowest = 0.0
    sent = count = 0
    while sent < messages:
        sent += ATTACKS[count % len(ATTACKS)](target, rng)
        count += 1
        if count % (3 * len(ATTACKS)) == 0:
            slowest = max(slowest, served(target))
            before = before or target.ask()
    for sock in half_open:
        sock.close()
    assert target.process.poll() is None, "it exited"
    assert slowest < 5.0
    served(target)
    assert wait_until(lambda: target.ask()["guests"] == target.ask()["lanes"] == 0, timeout=15.0)
    after = target.ask()
    assert after["anonymous"] - before["anonymous"] < 20 * MIB
    assert after["threads"] <= before["threads"] + 8  # the executor may have grown
    assert after["descriptors"] <= before["descriptors"] + 8
    friends = (target.friend, target.guest, target.writer)
    assert sorted(after["known"]) == sorted(str(identity.uuid) for identity in friends)


def test_nothing_is_read_and_nothing_breaks(target: Target) -> None:
    attack(target, 3_000)


@pytest.mark.soak
def test_nothing_is_read_and_nothing_breaks_for_long(target: Target) -> None:
    attack(target, 100_000)


@pytest.mark.parametrize("each", ATTACKS, ids=lambda each: each.__name__)
def test_each_attack_once(target: Target, each: Attack) -> None:
    assert each(target, random.Random(1)) > 0
    assert served(target) < 5.0


def test_the_fixtures_know_whom_they_mean(target: Target) -> None:
    assert UUID(target.ask()["known"][0])
    assert target.public_key != target.friend.public_key
