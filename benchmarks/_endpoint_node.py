"""An endpoint's peers in a process of their own, or what they are compared with.

Commands come on standard input and answers go to standard output, a JSON value a line.

    python -m benchmarks._endpoint_node node|tls|echo [RELAY]

`node` has a storage and peers; `tls` sends and receives over bare TLS sockets of Python's ssl,
into memory as the storage's; `echo` is an echo of bare asyncio streams, and who asks it.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

from proxystore_endpoint.grants import Grants
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.membership import ALL_RIGHTS
from proxystore_endpoint.peers import AddressBook, Fetched, Peers
from proxystore_endpoint.relay.client import RelayClient
from proxystore_endpoint.secure import client_context, server_context
from proxystore_endpoint.storage import Storage

ROOT = Path(__file__).resolve().parent.parent


class Process:
    """A process that does what it is told."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._endpoint_node", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def tell(self, do: str, **arguments: Any) -> None:
        """Have it do something; `hear` has the result."""
        assert self._process.stdin is not None
        print(json.dumps([do, arguments]), file=self._process.stdin, flush=True)

    def hear(self) -> Any:
        """Wait for the result of what it was told first."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process ended with status {self._process.wait()}")
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have it do something and return the result."""
        self.tell(do, **arguments)
        return self.hear()

    def close(self) -> None:
        """End it."""
        self._process.communicate()


class Role(Protocol):
    """What a process is."""

    async def start(self) -> None:
        """Begin."""

    async def close(self) -> None:
        """End."""


class Node:
    """A storage and peers."""

    def __init__(self, relay: str | None = None) -> None:
        self.identity = Identity.generate()
        self.grants = Grants()
        self.book = AddressBook()
        self.storage = Storage(str(self.identity.uuid), memory_quota="6 GB")
        self.peers = Peers(self.identity, self.grants, self.storage, self.book, webrtc=False)
        self.relay = None if relay is None else RelayClient(relay, self.identity)
        self.flow: asyncio.Task[float] | None = None

    async def start(self) -> None:
        """Listen, unless peers are to come through a relay."""
        if self.relay is None:
            await self.peers.start("127.0.0.1", 0)
            return
        self.peers.relay = self.relay
        self.relay.on_signal = self.peers.on_signal
        self.relay.on_circuit = self.peers.on_circuit
        await self.peers.start()
        await self.relay.start()
        await self.relay.wait_connected(30)

    async def close(self) -> None:
        """Stop."""
        await self.peers.close()
        if self.relay is not None:
            await self.relay.close()
        self.storage.close()

    async def who(self) -> list[Any]:
        """Say who and where this is."""
        return [str(self.identity.uuid), self.peers.addresses]

    async def know(self, uuid: str, addresses: list[str]) -> None:
        """Let a peer in, and remember where it is."""
        self.grants.grant(UUID(uuid), ALL_RIGHTS)
        self.book.add(UUID(uuid), addresses)

    async def put(self, nbytes: int) -> str:
        """Store an object."""
        key = str(uuid4())
        reservation = self.storage.reserve(key, nbytes)
        block = os.urandom(min(nbytes, 1 << 20))
        for start in range(0, nbytes, 1 << 20):
            reservation.buffer[start : start + (1 << 20)] = block[: nbytes - start]
        reservation.publish()
        return key

    async def get(self, uuid: str, key: str) -> float:
        """Fetch an object and publish it; return the seconds. It is evicted afterwards."""
        peer = UUID(uuid)
        begin = time.perf_counter()
        found = await self.peers.get(
            peer, key, lambda nbytes: self.storage.reserve(key, nbytes, origin=uuid)
        )
        if not isinstance(found, Fetched):
            raise TypeError(f"no object: {found}")
        found.reservation.publish()
        took = time.perf_counter() - begin
        self.storage.evict(key, origin=uuid)
        return took

    async def round_trips(self, uuid: str, key: str, count: int) -> list[float]:
        """Fetch a small object into memory that is there; return the seconds of each time."""
        peer, taken = UUID(uuid), []
        place = _Place(memoryview(bytearray(1000)))
        for _ in range(count):
            begin = time.perf_counter()
            await self.peers.get(peer, key, lambda nbytes: place)
            taken.append(time.perf_counter() - begin)
        return taken

    async def begin(self, uuid: str, key: str) -> None:
        """Begin to fetch an object."""
        self.flow = asyncio.create_task(self.get(uuid, key))

    async def end(self) -> float:
        """Wait for it."""
        assert self.flow is not None
        return await self.flow

    async def during(self, uuid: str, key: str, flow: str = "", large: str = "") -> list[float]:
        """Fetch a small object for as long as a large one flows here from another peer."""
        taken: list[float] = []
        await self.begin(flow, large)
        assert self.flow is not None
        while not self.flow.done():
            taken += await self.round_trips(uuid, key, 1)
        return taken

    async def beside(self, uuid: str, key: str) -> int:
        """Fetch an object; return the bytes of this process's memory that it took beside it."""
        before, peak, done = _own_memory(), 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.005):
                peak = max(peak, _own_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        await self.get(uuid, key)
        done.set()
        watcher.join()
        return peak - before


class _Place:
    """Memory that is given for an object again and again."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer

    def publish(self, **options: Any) -> Any:
        raise NotImplementedError

    def abandon(self) -> None:
        """Nothing was reserved."""


def _own_memory() -> int:
    """Bytes that this process has in memory, without shared memory."""
    total = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(("RssAnon:", "RssFile:")):
            total += int(line.split()[1]) * 1024
    return total


class Tls:
    """One end of a bare TLS 1.3 connection; blocking sockets, memory in `/dev/shm`."""

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.sock: ssl.SSLSocket | None = None
        self.memory = memoryview(b"")

    async def start(self) -> None:
        """Listen."""
        self.listener = socket.create_server(("127.0.0.1", 0))

    async def close(self) -> None:
        """Stop."""
        self.listener.close()
        if self.sock is not None:
            self.sock.close()

    async def where(self) -> int:
        """Return the port."""
        port: int = self.listener.getsockname()[1]
        return port

    async def connect(self, port: int, nbytes: int) -> None:
        """Connect to the other end."""
        self._prepare(socket.create_connection(("127.0.0.1", port)), nbytes, server=False)

    async def accept(self, nbytes: int) -> None:
        """Wait for the other end."""
        self._prepare(self.listener.accept()[0], nbytes, server=True)

    def _prepare(self, raw: socket.socket, nbytes: int, *, server: bool) -> None:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = server_context(self.identity) if server else client_context()
        self.sock = context.wrap_socket(raw, server_side=server)
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        with tempfile.TemporaryFile(dir=base) as file:
            file.truncate(nbytes)
            self.memory = memoryview(mmap.mmap(file.fileno(), nbytes))
        for start in range(0, nbytes, 1 << 20):
            self.memory[start : start + (1 << 20)] = bytes(min(1 << 20, nbytes - start))

    async def send(self) -> None:
        """Send all when the other end asks for it."""
        assert self.sock is not None
        self.sock.recv(1)
        self.sock.sendall(self.memory)

    async def receive(self) -> float:
        """Ask for all and wait for it."""
        assert self.sock is not None
        begin = time.perf_counter()
        self.sock.sendall(b"x")
        count, nbytes, memory = 0, len(self.memory), self.memory
        while count < nbytes:
            count += self.sock.recv_into(memory[count:])
        return time.perf_counter() - begin


class Echo:
    """An echo of asyncio streams, and who asks it."""

    async def start(self) -> None:
        """Listen."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        """Stop."""
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def where(self) -> int:
        """Return the port."""
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def round_trips(self, port: int, nbytes: int, count: int) -> list[float]:
        """Send so many bytes and wait for them; return the seconds of each time."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data, taken = bytes(nbytes), []
        for _ in range(count):
            begin = time.perf_counter()
            writer.write(data)
            await reader.readexactly(nbytes)
            taken.append(time.perf_counter() - begin)
        writer.close()
        return taken


async def main(kind: str, *arguments: str) -> None:
    """Do what is asked for until standard input ends."""
    roles: dict[str, Callable[..., Role]] = {"node": Node, "tls": Tls, "echo": Echo}
    role = roles[kind](*arguments)
    await role.start()
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            do, options = json.loads(line)
            print(json.dumps(await getattr(role, do)(**options)), flush=True)
    finally:
        await role.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
