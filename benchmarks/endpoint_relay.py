"""A circuit through the relay on loopback: sender, relay and receiver are three processes.

What travels here is not encrypted by the endpoints' channel: this is what the relay itself leaves
to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from proxystore_endpoint.identity import Identity
from proxystore_endpoint.relay.client import RelayClient

from benchmarks._child import Child
from benchmarks._harness import KB, MB, Options, Report, interleave, median, parse, progress, size

TARGET = 100  # MB/s
WAIT = 30.0  # seconds for anything to be there
ECHOES = 200


@contextlib.contextmanager
def relay() -> Iterator[str]:
    """Run a relay in a process of its own; give its address."""
    command = [sys.executable, "-c", "from proxystore_endpoint.relay.cli import main; main()"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"ws://127.0.0.1:{process.stdout.readline().split()[-1]}"
    finally:
        process.terminate()
        process.communicate()


async def _serve(address: str, identity: Identity, circuits: int) -> None:
    done = asyncio.Event()
    left = circuits

    async def take(source: UUID, pipe: Any) -> None:
        nonlocal left
        echo, total = (int(word) for word in (await pipe.receive()).split())
        while total > 0:
            message = await pipe.receive()
            total -= len(message)
            if echo:
                await pipe.send(message)
        await pipe.send(b"all")
        left -= 1
        if not left:
            await asyncio.wait_for(pipe.receive(), WAIT)
            done.set()

    async with RelayClient(address, identity, on_circuit=take):
        await done.wait()


def receive(address: str, key: bytes, circuits: int) -> None:
    """Take what comes on so many circuits; runs in the other process."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    identity = Identity(Ed25519PrivateKey.from_private_bytes(key))
    asyncio.run(_serve(address, identity, circuits))


async def _send(pipe: Any, nbytes: int, message: int) -> float:
    body = memoryview(bytes(message))
    await pipe.send(f"0 {nbytes}".encode())
    start = time.perf_counter()
    left = nbytes
    while left > 0:
        part = body[: min(left, message)]
        await pipe.send(part)
        left -= len(part)
    await pipe.receive()
    return time.perf_counter() - start


async def _echo(pipe: Any, count: int) -> float:
    body = bytes(KB)
    await pipe.send(f"1 {count * KB}".encode())
    start = time.perf_counter()
    for _ in range(count):
        await pipe.send(body)
        await pipe.receive()
    taken = time.perf_counter() - start
    await pipe.receive()
    return taken / count


class Circuits:
    """Opens circuits from this process to the other one, and measures them."""

    def __init__(self, address: str, peer: UUID) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = RelayClient(address, Identity.generate())
        self._peer = peer
        self._loop.run_until_complete(self._client.start())
        self._loop.run_until_complete(self._client.wait_connected(WAIT))

    async def _measure(self, call: Any, *args: int) -> float:
        pipe = await self._open()
        taken: float = await call(pipe, *args)
        with contextlib.suppress(ConnectionError):
            await pipe.send(b"bye")
        await pipe.close()
        return taken

    async def _open(self) -> Any:
        deadline = time.monotonic() + WAIT
        while True:
            try:
                return await self._client.open_circuit(self._peer, WAIT)
            except LookupError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    def send(self, nbytes: int, message: int) -> float:
        """Seconds to send so many bytes in messages of a size, until the other side has all."""
        return self._loop.run_until_complete(self._measure(_send, nbytes, message))

    def echo(self, count: int) -> float:
        """Seconds for 1 kB there and back."""
        return self._loop.run_until_complete(self._measure(_echo, count))

    def close(self) -> None:
        """Leave the relay."""
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


def add_rows(report: Report, options: Options) -> None:
    """Measure, and add the rows to a report."""
    nbytes = 4 * MB if options.quick else 256 * MB
    key = Identity.generate()
    raw = key._key.private_bytes_raw()  # to be the same one in the other process
    sizes = (16 * 1024, 64 * 1024)
    runs = (options.rounds + 1) * (len(sizes) + 1)
    child = Child()
    try:
        with relay() as address, ThreadPoolExecutor(1) as pool:
            other = pool.submit(child.call, receive, address, raw, runs)
            circuits = Circuits(address, key.uuid)
            try:
                cases = {
                    f"send {n}": (lambda message=n: circuits.send(nbytes, message)) for n in sizes
                }
                samples = interleave(
                    cases | {"echo": lambda: circuits.echo(ECHOES)}, options.rounds
                )
                other.result(WAIT)
            finally:
                circuits.close()
    finally:
        child.close()
    for message in sizes:
        taken = median(samples[f"send {message}"])
        report.add(
            f"relayed circuit, {size(nbytes)} in messages of {message // 1024} KiB",
            value=nbytes / taken / MB,
            unit="MB/s",
            target=TARGET,
        )
    report.within("relayed circuit, 1 kB there and back", median(samples["echo"]), None)
    report.samples.update(samples)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse(argv, __doc__)
    progress("relayed circuits")
    report = Report("relay")
    add_rows(report, options)
    report.finish(options)


if __name__ == "__main__":
    main()
