"""The control socket and its clients: restarts, hanging daemons, strangers, broken messages."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from proxystore_endpoint import exceptions
from proxystore_endpoint.endpoint import Endpoint
from proxystore_endpoint.exceptions import (
    AccessDeniedError,
    DurabilityUnavailableError,
    EndpointError,
    EndpointRunningError,
    EndpointUnreachableError,
    LocalProtocolError,
    PeerUnreachableError,
)
from proxystore_endpoint.local import messages as m
from proxystore_endpoint.local import server as server_module
from proxystore_endpoint.local.client import LocalClient
from proxystore_endpoint.local.server import LocalServer
from proxystore_endpoint.storage import Storage
from proxystore_endpoint.storage.index import Name

from proxystore_core.exceptions import (
    InvalidKeyError,
    MissingReason,
    ObjectTooLargeError,
    StorageFullError,
)
from tests.conftest import wait_until
from tests.endpoint.local.solo import Solo, running

MB = 1_000_000
OTHER = "0c6e0d6e-9c52-4a33-9d5e-2f0c9e5b7d11"


@pytest.fixture
def solo(tmp_path: Path) -> Iterator[Solo]:
    options = {"spill_dir": str(tmp_path / "spill"), "persist_dir": str(tmp_path / "persist")}
    with running(tmp_path, memory_quota="20 MB", durability="memory", **options) as solo:
        yield solo


@pytest.fixture
def client(solo: Solo) -> Iterator[LocalClient]:
    with LocalClient(solo.socket, timeout=5) as client:
        yield client


class TestClient:
    def test_every_place(self, client: LocalClient) -> None:
        here = client.endpoint_id
        for size in (0, 10, 60_000, 200_000, 25 * MB):
            for level in ("memory", "spill", "durable"):
                data = os.urandom(size)
                stored = client.put("key", [data[:5], data[5:]], durability=level)
                fits = level != "memory" or size < 20 * MB
                assert stored[:2] == (size, level if fits else "spill")
                assert memoryview(client.get("key", here)) == data
                view = client.get_view("key", here)
                assert view == data
                if size:
                    view[0] ^= 255
                assert memoryview(client.get("key", here)) == data
                assert client.exists("key", here)
        assert list(client.keys()) == ["key"]
        assert client.usage()[:2] == (1, 25 * MB)
        assert client.evict("key", here)
        assert not client.evict("key", here)
        assert client.get("key", here) is None
        assert client.missing_reason("key", here) is MissingReason.EVICTED

    def test_what_it_got_outlives_the_daemon(self, solo: Solo, client: LocalClient) -> None:
        data = {level: os.urandom(200_000) for level in ("memory", "spill", "durable")}
        for level, one in data.items():
            client.put(level, [one], durability=level)
        held = {level: client.get(level, client.endpoint_id) for level in data}
        solo.stop()
        assert all(memoryview(held[level]) == one for level, one in data.items())

    def test_many_keys(self, client: LocalClient) -> None:
        for number in range(2500):
            client.put(f"k{number}", [b""])
        assert set(client.keys()) == {f"k{number}" for number in range(2500)}

    def test_errors_arrive_as_they_are(self, solo: Solo, client: LocalClient) -> None:
        with pytest.raises(InvalidKeyError):
            client.put("../x", [b""])
        with pytest.raises(InvalidKeyError):
            client.get("x", "no uuid")
        with pytest.raises(PeerUnreachableError) as caught:
            client.get("x", OTHER)
        assert "no peers" in str(caught.value)
        assert caught.value.peer == OTHER
        with pytest.raises(PeerUnreachableError):
            client.push("x", OTHER, [b"data"])
        assert client.usage().objects == 0
        with pytest.raises(ValueError, match="above 0"):
            client.put("x", [b""], ttl=-1)
        with pytest.raises(TypeError, match="not str"):
            client.put("x", ["text"])
        assert client.get("x", client.endpoint_id) is None

    def test_ttl(self, client: LocalClient) -> None:
        client.put("key", [b"data"], ttl=0.3)
        client.put("kept", [b"data"], ttl=60)
        assert client.exists("key", client.endpoint_id)
        assert wait_until(lambda: client.get("key", client.endpoint_id) is None, 5)
        assert client.missing_reason("key", client.endpoint_id) is MissingReason.EXPIRED
        assert client.get("kept", client.endpoint_id) == b"data"

    def test_threads(self, client: LocalClient) -> None:
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(30):
                    key, data = (
                        f"{number}-{turn}",
                        bytes([number]) * (10, 70_000, 500_000)[turn % 3],
                    )
                    client.put(key, [data], durability=("memory", "durable")[turn % 2])
                    assert memoryview(client.get(key, client.endpoint_id)) == data
                    client.evict(key, client.endpoint_id)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert client.usage()[:2] == (0, 0)

    def test_forked_children_have_connections_of_their_own(self, client: LocalClient) -> None:
        client.put("key", [b"data"])
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                client.put("child", [b"x" * MB])
                status = 0 if client.get("key", client.endpoint_id) == b"data" else 2
            finally:
                os._exit(status)
        for _ in range(100):
            assert client.exists("key", client.endpoint_id)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert memoryview(client.get("child", client.endpoint_id)) == b"x" * MB

    def test_limits(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"memory_quota": "4 MB", "object_limit": "6 MB"}
        with running(tmp_path, **options) as solo, LocalClient(solo.socket) as client:
            with pytest.raises(ObjectTooLargeError):
                client.put("key", [bytes(7 * MB)])
            with pytest.raises(StorageFullError, match="does not spill"):
                client.put("key", [bytes(5 * MB)])
            with pytest.raises(DurabilityUnavailableError):
                client.put("key", [b"x"], durability="durable")
            assert client.usage()[:2] == (0, 0)
            client.put("key", [bytes(3 * MB)])

    def test_four_times_the_quota(self, tmp_path: Path) -> None:
        options = {"memory_quota": "10 MB", "disk_quota": "10 MB"}
        options["spill_dir"] = str(tmp_path / "spill")
        with running(tmp_path, **options) as solo, LocalClient(solo.socket) as client:
            kept = []
            for number in range(80):
                try:
                    client.put(f"key{number}", [bytes([number]) * MB])
                    kept.append(number)
                except StorageFullError:
                    pass
            assert 17 <= len(kept) <= 20
            for number in kept:
                assert bytes(client.get(f"key{number}", client.endpoint_id)) == bytes([number]) * MB
            shared = sum(
                p.stat().st_size for p in Path(os.environ["PROXYSTORE_SHM_ROOT"]).rglob("*")
            )
            spilled = sum(p.stat().st_size for p in (tmp_path / "spill").rglob("*") if p.is_file())
            assert shared <= 11 * MB
            assert spilled <= 11 * MB


class TestDaemons:
    def test_a_restart_is_not_noticed(self, solo: Solo, client: LocalClient) -> None:
        for size in (10, 200_000):
            client.put("durable", [b"d" * size], durability="durable")
            client.put("memory", [b"m" * size])
            solo.kill()
            solo.start()
            assert bytes(client.get("durable", client.endpoint_id)) == b"d" * size
            client.put("memory", [b"n" * size])
            assert bytes(client.get("memory", client.endpoint_id)) == b"n" * size
            solo.kill()
            solo.start()
            assert client.get("memory", client.endpoint_id) is None

    def test_one_that_is_gone(self, solo: Solo, client: LocalClient) -> None:
        solo.stop()
        started = time.monotonic()
        for act in (
            lambda: client.put("key", [b"data"]),
            lambda: client.put("key", [bytes(30 * MB)]),
            lambda: client.get("key", client.endpoint_id),
            lambda: client.evict("key", client.endpoint_id),
            lambda: list(client.keys()),
            lambda: LocalClient(solo.socket),
        ):
            with pytest.raises(EndpointUnreachableError, match="proxystore-endpoint start"):
                act()
        assert time.monotonic() - started < 5

    def test_one_that_hangs(self, solo: Solo) -> None:
        with LocalClient(solo.socket, timeout=0.5) as client:
            solo.process.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(EndpointUnreachableError, match=r"no answer within 0.5 s"):
                    client.put("key", [b"data"])
                with pytest.raises(EndpointUnreachableError, match=r"no answer within 0.5 s"):
                    LocalClient(solo.socket, timeout=0.5)
            finally:
                solo.process.send_signal(signal.SIGCONT)
            assert client.put("key", [b"data"]).nbytes == 4

    def test_dead_clients_leave_nothing(self, solo: Solo, client: LocalClient) -> None:
        code = """
            import os, sys
            from proxystore_endpoint.local import messages as m
            from proxystore_endpoint.local.channel import Connection
            connection = Connection(sys.argv[1], 5)
            for level in ("spill", "durable"):
                room = connection.ask(m.Reserve("key", 1_000_000, level), m.Granted)
                assert os.path.getsize(room.path) == 1_000_000
            print("reserved", flush=True)
            os.kill(os.getpid(), 9)
        """
        args = [sys.executable, "-c", textwrap.dedent(code), str(solo.socket)]
        done = subprocess.run(args, capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout == "reserved\n", done.stderr
        assert wait_until(lambda: client.status()["storage"]["in_flight"] == 0)
        assert client.status()["storage"]["disk"] == 0
        assert not list(solo.home.rglob(".partial*"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[LocalServer, asyncio.AbstractEventLoop]]:
    """A server on a loop in a thread of this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    storage = Storage(OTHER, memory_quota="10 MB")
    server = LocalServer(Endpoint(UUID(OTHER), "here", storage), tmp_path / "control.sock")
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield server, loop
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
    storage.close()


class TestServer:
    def raw(self, server: LocalServer, data: bytes) -> bytes:
        """Send bytes, and return all that is answered until the server hangs up."""
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(str(server.path))
            answer = b""
            try:
                raw.sendall(data)
                while piece := raw.recv(65536):
                    answer += piece
            except ConnectionError:
                pass
            return answer

    def test_refuses_what_is_no_message(self, served) -> None:
        server, _ = served
        for data in (
            m.LENGTH.pack(m.MAX_REQUEST + 1),
            b"\xff" * 64,
            m.LENGTH.pack(3) + b"\x93\x01\x02",
            m.LENGTH.pack(1) + b"\xc0",
            m.LENGTH.pack(0),
            m.encode(m.Answer(True)),
        ):
            answer = self.raw(server, data)
            reply = m.decode_reply(answer[m.LENGTH.size :])
            assert reply.error == "LocalProtocolError"
        with LocalClient(server.path) as client:
            assert client.put("key", [b"data"]).nbytes == 4

    def test_mutated_requests(self, served) -> None:
        server, _ = served
        chance = random.Random(3)
        for _ in range(300):
            body = bytearray(m.encode(chance.choice(REQUESTS))[m.LENGTH.size :])
            for _ in range(chance.randrange(1, 4)):
                body[chance.randrange(len(body))] = chance.randrange(256)
            with socket.socket(socket.AF_UNIX) as raw:
                raw.settimeout(10)
                raw.connect(str(server.path))
                raw.sendall(m.LENGTH.pack(len(body)) + body)
                answer = raw.recv(65536)
                m.decode_reply(answer[m.LENGTH.size :])
        with LocalClient(server.path) as client:
            assert client.put("key", [b"data"]).nbytes == 4
        assert wait_until(lambda: server.clients == 0)

    def test_requests_that_come_in_pieces_or_all_at_once(self, served) -> None:
        server, _ = served
        data = m.encode(m.Hello()) * 3
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(str(server.path))
            for byte in data:
                raw.sendall(bytes([byte]))
            raw.sendall(data)
            answer = b""
            while answer.count(b"welcome") < 6:
                answer += raw.recv(65536)

    def test_other_users(self, served, monkeypatch: pytest.MonkeyPatch) -> None:
        server, _ = served
        monkeypatch.setattr(server_module.os, "geteuid", lambda: os.getuid() + 1)
        with pytest.raises((AccessDeniedError, EndpointUnreachableError)):
            LocalClient(server.path)
        monkeypatch.undo()
        assert server.path.stat().st_mode & 0o777 == 0o600

    def test_two_on_one_path(self, served) -> None:
        server, loop = served
        with Storage(OTHER, memory_quota="1 MB") as storage:
            second = LocalServer(Endpoint(UUID(OTHER), "second", storage), server.path)
            starting = asyncio.run_coroutine_threadsafe(second.start(), loop)
            with pytest.raises(EndpointRunningError):
                starting.result(10)
            asyncio.run_coroutine_threadsafe(second.close(), loop).result(10)
        with LocalClient(server.path) as client:
            assert client.endpoint_id == OTHER

    def test_waiting_for_a_peer_holds_nobody_up(self, served, monkeypatch) -> None:
        server, _ = served
        cancelled = threading.Event()

        async def get(key: str, endpoint_id: str, *, timeout: float | None = None) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        monkeypatch.setattr(server.backend, "get", get)
        with LocalClient(server.path, timeout=0.2) as slow, LocalClient(server.path) as quick:
            errors: list[EndpointError] = []

            def wait() -> None:
                try:
                    slow.get("key", "f" * 36, timeout=0.5)
                except EndpointError as error:
                    errors.append(error)

            thread = threading.Thread(target=wait)
            thread.start()
            for _ in range(50):
                quick.put("key", [b"data"])
            thread.join(10)
            assert isinstance(errors[0], EndpointUnreachableError)
            assert cancelled.wait(5)

    def test_a_slow_disk_holds_nobody_up(self, served, monkeypatch, tmp_path: Path) -> None:
        server, _ = served
        storage, go_on, begun = server.backend.storage, threading.Event(), threading.Event()
        commit = storage.commit

        def slow(key: str, nbytes: int, **options: Any) -> Any:
            if options["durability"] == "durable":
                with storage._areas.lock(Name("", key)):
                    begun.set()
                    go_on.wait(10)
                options["durability"] = "memory"
            return commit(key, nbytes, **options)

        monkeypatch.setattr(storage, "commit", slow)
        with LocalClient(server.path) as client:
            threads = [
                threading.Thread(target=client.put, args=("key", [b"x"]), kwargs=options)
                for options in ({"durability": "durable"}, {})
            ]
            threads[0].start()
            assert begun.wait(10)
            threads[1].start()  # of the same key: it waits, and nobody else does
            assert wait_until(lambda: server.pool._work_queue.qsize() == 0)
            for number in range(200):
                client.put(f"key{number}", [b"data"])
                assert client.evict(f"key{number}", OTHER)
            assert all(thread.is_alive() for thread in threads)
            go_on.set()
            for thread in threads:
                thread.join(10)
            assert client.get("key", OTHER) == b"x"


REQUESTS = (
    m.Hello(),
    m.Commit("key", 10, 1.5, "memory", 3),
    m.MakeRoom(1000, 2),
    m.Reserve("key", 1000),
    m.Abandon(3),
    m.Fetch("key", OTHER),
    m.Exists("key", OTHER),
    m.Evict("key", OTHER, 1.0),
    m.Expire("key"),
    m.Push("key", OTHER, "source"),
    m.Keys("a"),
    m.Count(),
    m.Status(),
    m.Stat("key", OTHER),
)
REPLIES = (
    m.Welcome(OTHER, 1, "1.0", 10, {"directory": "/dev/shm/x", "host": "h"}),
    m.Committed(10, "durable", "e" * 64),
    m.Granted(3, "/tmp/x"),
    m.Found(10, path="/tmp/x", data=b"data", expires_in=1.5),
    m.Missing("evicted"),
    m.Answer(True),
    m.KeyList(["a", "b"], more=True),
    m.Counted(1, 2, 3, 4),
    m.Report({"a": [1, {"b": None}]}),
    m.Failure("EndpointError", "x", {"peer": OTHER}),
)


def mutate(count: int, seed: int) -> None:
    """Decode so many messages in which bytes were changed, cut or put in."""
    chance = random.Random(seed)
    kinds = ((m.decode_request, REQUESTS), (m.decode_reply, REPLIES))
    bodies = [[m.encode(one)[m.LENGTH.size :] for one in messages] for _, messages in kinds]
    tracemalloc.start()
    refused = 0
    for turn in range(count):
        decode = kinds[turn % 2][0]
        body = bytearray(chance.choice(bodies[turn % 2]))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(body))
            body[at : at + chance.choice((0, 1, 1, 5))] = chance.randbytes(
                chance.choice((0, 1, 1, 4))
            )
            body = body or bytearray(1)
        try:
            decode(bytes(body))
        except LocalProtocolError:
            refused += 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert refused > count / 2


class TestMessages:
    def test_travel(self) -> None:
        for decode, messages in ((m.decode_request, REQUESTS), (m.decode_reply, REPLIES)):
            for message in messages:
                assert decode(m.encode(message)[m.LENGTH.size :]) == message

    def test_mutated(self) -> None:
        mutate(20_000, seed=1)

    @pytest.mark.soak
    @pytest.mark.timeout(600)
    def test_a_million_mutated(self) -> None:
        mutate(1_000_000, seed=2)


class TestErrors:
    def test_travel(self) -> None:
        for error in (
            StorageFullError("full", nbytes=3, used=2, limit=1),
            exceptions.PeerUnreachableError("gone", peer=UUID(OTHER), paths={"tcp": "refused"}),
            exceptions.EndpointTimeoutError("late"),
            exceptions.DurabilityUnavailableError("no", durability="durable"),
        ):
            sent = m.encode(m.to_failure(error))
            back = m.to_error(m.decode_reply(sent[m.LENGTH.size :]))
            assert type(back) is type(error)
            assert str(back) == str(error)
            assert {name: str(value) for name, value in vars(back).items()} == {
                name: str(value) for name, value in vars(error).items()
            }

    def test_of_other_kinds(self) -> None:
        assert type(m.to_error(m.to_failure(ZeroDivisionError("x")))) is EndpointError
        assert type(m.to_error(m.to_failure(TypeError("x")))) is ValueError
        assert type(m.to_error(m.Failure("SystemExit", "x"))) is EndpointError

    def test_unknown_fields_are_ignored(self) -> None:
        import msgspec

        body = msgspec.msgpack.encode({"op": "keys", "after": "a", "later": [1]})
        assert m.decode_request(body) == m.Keys("a")
        with pytest.raises(LocalProtocolError):
            m.decode_request(msgspec.msgpack.encode({"op": "unknown"}))
