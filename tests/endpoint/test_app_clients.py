"""Clients that are slow, broken or hostile: dropped in time; nothing left, others served."""

from __future__ import annotations

import hashlib
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from proxystore_endpoint.app import limits

from tests.conftest import wait_until
from tests.endpoint.rest import TOKEN, Served, serve

HEAD = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limits, thirty times shorter."""
    for name in ("HEAD_TIMEOUT_S", "STALL_S", "HANDSHAKE_TIMEOUT_S"):
        assert getattr(limits, name) == 15.0
        monkeypatch.setattr(limits, name, 0.5)


@pytest.fixture
def served(quick: None, tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, memory_quota="128 MB") as running:
        yield running


def request(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *HEAD.splitlines(), *headers, "", ""]
    return "\r\n".join(lines).encode()


def rest_of(sock: socket.socket) -> bytes:
    """Read until the server closes, by whatever means."""
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def nothing_left(served: Served) -> bool:
    usage = served.storage.usage()
    return usage.in_flight == 0 and usage.objects == 0


class TestHeads:
    @pytest.mark.parametrize("part", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: 127"])
    def test_half_open(self, served: Served, part: bytes) -> None:
        with served.connect() as sock:
            sock.sendall(part)
            assert rest_of(sock) == b""

    def test_drop_by_drop(self, served: Served) -> None:
        with served.connect() as sock:
            sock.settimeout(0.1)
            began = time.monotonic()
            sock.sendall(b"GET / HTTP/1.1\r\n")
            closed = False
            while not closed and time.monotonic() < began + 10:
                try:
                    sock.sendall(b"X: y\r\n")
                    closed = sock.recv(1) == b""
                except TimeoutError:
                    continue
                except OSError:
                    closed = True
            assert closed

    def test_between_requests(self, served: Served) -> None:
        with served.connect() as sock:
            sock.sendall(request("GET", "/health"))
            got = b""
            while not got.endswith(b'{"status":"ok"}\n'):
                got += sock.recv(65536)
            sock.sendall(b"GET /hea")
            assert rest_of(sock) == b""

    @pytest.mark.parametrize(
        "text",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to a port without
            b"nonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",  # no Host
            b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
            b"GET /" + b"a" * 100_000,
            b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000,
        ],
    )
    def test_malformed(self, served: Served, text: bytes) -> None:
        with served.connect() as sock:
            with suppress(ConnectionError):
                sock.sendall(text)
            assert re.match(rb"HTTP/1.1 4\d\d |$", rest_of(sock))
        assert served.ask("GET", "/health").status == 200

    def test_random(self, served: Served) -> None:
        chance = random.Random(5)
        good = request("PUT", "/objects/k?ttl=5", "Content-Length: 3", "Range: bytes=0-1") + b"abc"
        for _ in range(150):
            text = bytearray(good)
            for _ in range(chance.randint(1, 6)):
                at = chance.randrange(len(text))
                text[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            with served.connect() as sock:
                sock.sendall(bytes(text))
                sock.shutdown(socket.SHUT_WR)
                rest_of(sock)
        assert served.ask("GET", "/health").status == 200
        assert served.storage.usage().in_flight == 0

    def test_pipelined(self, served: Served) -> None:
        with served.connect() as sock:
            sock.sendall(request("GET", "/health") * 3 + b"GET /part")
            assert rest_of(sock).count(b"HTTP/1.1 200") == 3


class TestBodies:
    def test_stalled(self, served: Served) -> None:
        with served.connect() as sock:
            sock.sendall(request("PUT", "/objects/k", "Content-Length: 1000000") + b"some")
            answer = rest_of(sock)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"timeout"' in answer
        assert wait_until(lambda: nothing_left(served))

    def test_drop_by_drop(self, served: Served) -> None:
        """A byte now and then is no progress."""
        with served.connect() as sock:
            sock.sendall(request("PUT", "/objects/k", "Content-Length: 1000000"))
            stop = threading.Event()

            def drip() -> None:
                while not stop.wait(0.05):
                    try:
                        sock.sendall(b"x")
                    except OSError:
                        return

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                assert sock.recv(65536).startswith(b"HTTP/1.1 408")
                assert rest_of(sock) is not None
            finally:
                stop.set()
                dripping.join()
        assert wait_until(lambda: nothing_left(served))

    def test_slow_but_steady(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "MIN_BODY_BYTES", 10)
        with served.connect() as sock:
            sock.sendall(request("PUT", "/objects/k", "Content-Length: 100"))
            pause = threading.Event()
            for _ in range(10):
                pause.wait(0.12)
                sock.sendall(b"0123456789")
            assert sock.recv(65536).startswith(b"HTTP/1.1 201")

    @pytest.mark.parametrize("sent", [0, 1, 70_000, 999_999])
    def test_truncated(self, served: Served, sent: int) -> None:
        with served.connect() as sock:
            sock.sendall(request("PUT", "/objects/k", "Content-Length: 1000000") + bytes(sent))
        assert wait_until(lambda: nothing_left(served))
        assert not served.storage.exists("k")

    def test_truncated_keeps_what_was_there(self, served: Served) -> None:
        served.storage.put("k", [b"old"])
        with served.connect() as sock:
            sock.sendall(request("PUT", "/objects/k", "Content-Length: 1000000") + bytes(5))
        assert wait_until(lambda: served.storage.usage().in_flight == 0)
        found = served.storage.open("k")
        assert found is not None
        assert bytes(found.view) == b"old"

    def test_truncated_chunks(self, served: Served) -> None:
        with served.connect() as sock:
            sock.sendall(
                request("POST", "/set?key=k", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n"
            )
        assert wait_until(lambda: not served.server._server.server_state.connections)
        assert not served.storage.exists("k")

    def test_malformed_chunks(self, served: Served) -> None:
        with served.connect() as sock:
            sock.sendall(request("POST", "/set?key=k", "Transfer-Encoding: chunked") + b"zz\r\n")
            rest_of(sock)
        assert not served.storage.exists("k")

    def test_without_token_nothing_is_taken_in(self, served: Served) -> None:
        with served.connect() as sock:
            sock.sendall(
                b"PUT /objects/k HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50000000\r\n\r\n"
            )
            assert sock.recv(65536).startswith(b"HTTP/1.1 401")
            assert rest_of(sock) is not None  # and then it is closed
        assert nothing_left(served)

    def test_asks_before_it_sends(self, served: Served) -> None:
        """`Expect: 100-continue` is answered by an error, or by a go-ahead."""
        expect = "Expect: 100-continue"
        with served.connect() as sock:
            sock.sendall(request("PUT", "/objects/k", f"Content-Length: {10**12}", expect))
            assert sock.recv(65536).startswith((b"HTTP/1.1 507", b"HTTP/1.1 413"))
        with served.connect() as sock:
            sock.sendall(request("PUT", "/objects/k", "Content-Length: 2", expect))
            assert sock.recv(65536).startswith(b"HTTP/1.1 100")
            sock.sendall(b"ok")
            assert sock.recv(65536).startswith(b"HTTP/1.1 201")

    def test_absurd_length(self, served: Served) -> None:
        with served.connect() as sock:
            sock.sendall(request("PUT", "/objects/k", f"Content-Length: {10**18}") + b"x")
            assert sock.recv(65536).startswith((b"HTTP/1.1 507", b"HTTP/1.1 413"))


class TestAnswers:
    def test_not_read(self, served: Served) -> None:
        served.storage.put("large", [bytes(60_000_000)])
        with served.connect() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.sendall(request("GET", "/objects/large"))
            dropped = wait_until(lambda: not served.server._server.server_state.connections, 10)
            assert dropped
            assert len(rest_of(sock)) < 60_000_000

    def test_read_slowly(self, served: Served) -> None:
        data = random.Random(1).randbytes(3_000_000)
        served.storage.put("large", [data])
        with served.connect() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.sendall(request("GET", "/objects/large", "Connection: close"))
            pause, got = threading.Event(), b""
            while part := sock.recv(100_000):
                got += part
                pause.wait(0.03)
        body = got.partition(b"\r\n\r\n")[2]
        assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()

    def test_left_in_the_middle(self, served: Served) -> None:
        served.storage.put("large", [bytes(60_000_000)])
        for _ in range(20):
            with served.connect() as sock:
                sock.sendall(request("GET", "/objects/large"))
                assert sock.recv(1000)
        assert wait_until(lambda: not served.server._server.server_state.connections)
        assert served.ask("GET", "/objects/large", Range="bytes=0-0").status == 206


def crowd(served: Served, half_open: int, stalled: int, within: float) -> None:
    """Keep many connections busy with nothing; others are served, and all are dropped in time."""
    with ExitStack() as stack:
        socks = []
        for number in range(half_open + stalled):
            sock = stack.enter_context(served.connect())
            if number < half_open:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: 127"[: number % 26])
            else:
                sock.sendall(request("PUT", f"/objects/{number}", "Content-Length: 100000") + b"x")
            socks.append(sock)
        last = time.monotonic()
        assert served.ask("PUT", "/objects/k", b"x").status == 201
        assert served.ask("GET", "/objects/k").body == b"x"
        for sock in socks:
            sock.settimeout(max(0.1, last + within - time.monotonic()))
            rest_of(sock)
    assert wait_until(lambda: served.storage.usage().in_flight == 0)
    assert served.storage.usage().objects == 1


def test_many(served: Served) -> None:
    crowd(served, 100, 40, within=3)


@pytest.mark.soak
def test_500_half_open_and_200_stalled(tmp_path: Path) -> None:
    with serve(tmp_path, memory_quota="128 MB") as running:
        crowd(running, 500, 200, within=16)


def test_unfinished_handshakes(quick: None, tmp_path: Path) -> None:
    from proxystore_endpoint.identity import Identity
    from proxystore_endpoint.service import https_context

    tls = https_context(Identity.generate())
    with (
        serve(tmp_path, memory_quota="16 MB", tls=tls) as running,
        running.connect() as silent,
        running.connect() as half,
    ):
        half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert rest_of(silent) == b""
        assert rest_of(half) is not None
