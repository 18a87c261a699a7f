"""The client of the REST API, against a real one and against servers that misbehave."""

from __future__ import annotations

import array
import concurrent.futures
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from proxystore_endpoint import client as functions
from proxystore_endpoint.app import limits
from proxystore_endpoint.client import EndpointClient
from proxystore_endpoint.exceptions import (
    AccessDeniedError,
    EndpointConfigError,
    EndpointError,
    EndpointTimeoutError,
    EndpointUnreachableError,
    PeerUnreachableError,
)

from proxystore_core.exceptions import InvalidKeyError, ObjectTooLargeError, StorageFullError
from tests.conftest import wait_until
from tests.endpoint.rest import TOKEN, Served, serve


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, memory_quota="64 MB", disk_quota="1 MB", object_limit="32 MB") as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[EndpointClient]:
    with EndpointClient(served.url, TOKEN) as made:
        yield made


class TestCalls:
    def test_objects(self, client: EndpointClient) -> None:
        data = os.urandom(3_000_000)
        assert client.get("k") is None
        assert client.stat("k") is None
        assert not client.exists("k")
        stored = client.put("k", data, ttl=60)
        assert (stored.nbytes, stored.durability) == (len(data), "memory")
        assert client.exists("k")
        got = client.get("k")
        assert got is not None
        assert got.readonly
        assert got == data
        assert bytes(client.get_part("k", 10, 20) or b"") == data[10:20]
        info = client.stat("k")
        assert info is not None
        assert (info.nbytes, info.etag) == (len(data), stored.etag)
        assert info.expires_in is not None
        assert 0 < info.expires_in <= 60
        assert client.evict("k")
        assert not client.evict("k")
        assert client.get_part("k", 0, 1) is None

    def test_parts(self, client: EndpointClient) -> None:
        numbers = array.array("i", range(1000))
        parts = [b"head", memoryview(numbers), bytearray(b"tail"), b""]
        client.put("k", parts)
        assert client.get("k") == b"head" + numbers.tobytes() + b"tail"
        client.put("empty", [])
        assert client.get("empty") == b""

    def test_about_the_endpoint(self, client: EndpointClient, served: Served) -> None:
        assert client.health()
        assert client.endpoint()["uuid"] == served.endpoint.endpoint_id
        assert client.status()["name"] == "tested"

    def test_functions_of_proxystore(self, served: Served) -> None:
        functions.put(served.url, "k", b"x", token=TOKEN)
        assert functions.exists(served.url, "k", token=TOKEN)
        assert functions.get(served.url, "k", token=TOKEN) == b"x"
        functions.evict(served.url, "k", token=TOKEN)
        assert functions.get(served.url, "k", served.endpoint.endpoint_id, token=TOKEN) is None

    def test_threads(self, client: EndpointClient) -> None:
        def work(number: int) -> bool:
            data = bytes([number]) * (1000 + number)
            client.put(f"k{number}", data)
            return client.get(f"k{number}") == data

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert all(pool.map(work, range(100)))

    def test_proxies_of_the_environment_are_ignored(
        self, client: EndpointClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert client.health()


class TestErrors:
    def test_named(self, served: Served, client: EndpointClient) -> None:
        with pytest.raises(InvalidKeyError):
            client.get("../x")
        with pytest.raises(ObjectTooLargeError):
            client.put("k", bytes(33_000_000))
        with pytest.raises(StorageFullError):
            for number in range(10):
                client.put(f"k{number}", bytes(20_000_000))
        with pytest.raises(PeerUnreachableError):
            client.get("k", uuid4())
        with pytest.raises(PeerUnreachableError):
            client.stat("k", uuid4())
        with EndpointClient(served.url, "wrong") as stranger:
            for ask in (stranger.get, stranger.exists, stranger.evict, stranger.stat):
                with pytest.raises(AccessDeniedError):
                    ask("k0")
            with pytest.raises(AccessDeniedError):
                stranger.put("k", bytes(30_000_000))  # more than it ever reads
            assert stranger.health()
        assert client.health()

    @pytest.mark.parametrize(
        "address", ["", "127.0.0.1:80", "ftp://h:1", "http://h", "http://h:x", "http://:1"]
    )
    def test_addresses(self, address: str) -> None:
        with pytest.raises(EndpointConfigError, match="http://host:port"):
            EndpointClient(address)

    def test_tls_needs_the_id(self) -> None:
        with pytest.raises(EndpointConfigError, match="uuid="):
            EndpointClient("https://127.0.0.1:1")

    def test_nobody_there(self) -> None:
        with EndpointClient("http://127.0.0.1:9") as client:
            assert not client.health()
            with pytest.raises(EndpointUnreachableError, match="proxystore-endpoint start") as told:
                client.get("k")
            assert told.value.address == "http://127.0.0.1:9"
            with pytest.raises(EndpointUnreachableError):
                client.put("k", b"x")


@contextlib.contextmanager
def answering(answer: bytes | None, *, times: int = 1) -> Iterator[str]:
    """A server that gives everybody the same answer, or with `None` never answers."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for _ in range(times):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    if answer is None:
                        done.wait(10)
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


class TestServersThatMisbehave:
    def test_silent(self) -> None:
        with (
            answering(None) as url,
            EndpointClient(url, timeout=0.2) as client,
            pytest.raises(EndpointTimeoutError, match=r"0\.2 s"),
        ):
            client.get("k")

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", EndpointUnreachableError),
            (b"", EndpointUnreachableError),
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", EndpointUnreachableError),
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", EndpointUnreachableError),
            (
                b'HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n{"error":"x"}',
                EndpointUnreachableError,
            ),
            (b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\n<h1>", EndpointError),
            (b"HTTP/1.1 302 Go\r\nLocation: http://x\r\nContent-Length: 0\r\n\r\n", EndpointError),
            (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", EndpointError),
        ],
    )
    def test_odd(self, answer: bytes, error: type[Exception]) -> None:
        with answering(answer) as url, EndpointClient(url) as client, pytest.raises(error):
            client.get("k")

    def test_closed_between_requests(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection that the server closed meanwhile is no error."""
        monkeypatch.setattr(limits, "HEAD_TIMEOUT_S", 1.0)
        with (
            serve(tmp_path, memory_quota="16 MB") as served,
            EndpointClient(served.url, TOKEN) as client,
        ):
            for number in range(3):
                client.put(f"k{number}", b"x")
                assert wait_until(lambda: served.server.connections == 0, 5)
            assert client.evict("k0")

    def test_stopped(self, tmp_path: Path) -> None:
        with serve(tmp_path, memory_quota="16 MB") as served:
            client = EndpointClient(served.url, TOKEN)
            client.put("k", b"x")
        with client, pytest.raises(EndpointUnreachableError):
            client.get("k")
