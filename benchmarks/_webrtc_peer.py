"""One end of a WebRTC connection, as a process: ours, or that of ProxyStore.

Signalling goes over standard input and output, a JSON object a line, so that whoever starts two of
them carries it: `Ends`. When they are connected, the offerer sends objects and the answerer says
when it has them.

    python -m benchmarks._webrtc_peer ours|proxystore offer|answer [ICE_SERVER...]
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from benchmarks._netns import Namespace

OURS, PROXYSTORE = "ours", "proxystore"
_PIECE = 2**18  # bytes of a message of ours; ProxyStore takes objects whole


class Channel(Protocol):
    """What a connection of either kind does here."""

    async def send(self, data: bytes) -> None:
        """Send an object."""

    async def receive(self, nbytes: int) -> None:
        """Wait for an object."""

    async def close(self) -> None:
        """Close it."""


class _Lines:
    """Signalling over standard input and output."""

    async def start(self) -> None:
        self._reader = asyncio.StreamReader(limit=2**20)
        protocol = asyncio.StreamReaderProtocol(self._reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)

    async def send(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), flush=True)

    async def receive(self) -> dict[str, Any]:
        line = await self._reader.readline()
        if not line:
            raise EOFError
        message: dict[str, Any] = json.loads(line)
        return message


class _Ours:
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            await self._pipe.send(view[start : start + _PIECE])

    async def receive(self, nbytes: int) -> None:
        while nbytes > 0:
            nbytes -= len(await self._pipe.receive())

    async def close(self) -> None:
        await self._pipe.close()


async def _open_ours(role: str, lines: _Lines, servers: Sequence[str]) -> Channel:
    from proxystore_endpoint.transports import webrtc

    if role == "offer":
        return _Ours(await webrtc.offer(lines, servers))
    return _Ours(await webrtc.answer(await lines.receive(), lines, servers))


class _ProxyStores:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        await self._connection.send(data)

    async def receive(self, nbytes: int) -> None:
        got = len(await self._connection.recv())
        if got != nbytes:
            raise RuntimeError(f"{got} bytes came instead of {nbytes}")

    async def close(self) -> None:
        await self._connection.close()


async def _open_proxystores(role: str, lines: _Lines, servers: Sequence[str]) -> Channel:
    from aiortc import RTCIceServer
    from proxystore.p2p.connection import PeerConnection
    from proxystore.p2p.relay.messages import PeerConnectionRequest

    class Client:
        name = role
        uuid = uuid.uuid4()

        async def send(self, message: PeerConnectionRequest) -> None:
            kind = message.description_type
            await lines.send({"type": kind, "description": message.description})

    client: Any = Client()  # stands for a relay, as far as a connection uses one
    connection = PeerConnection(client, ice_servers=[RTCIceServer(url) for url in servers])
    if role == "offer":
        await connection.send_offer(uuid.uuid4())
    message = await lines.receive()
    await connection.handle_server_message(
        PeerConnectionRequest(
            source_uuid=uuid.uuid4(),
            source_name="peer",
            peer_uuid=Client.uuid,
            description_type=message["type"],
            description=message["description"],
        )
    )
    await connection.ready(30)
    return _ProxyStores(connection)


async def main(system: str, role: str, servers: Sequence[str]) -> None:
    """Connect and do what is asked for until standard input ends."""
    lines = _Lines()
    await lines.start()
    begin = time.perf_counter()
    try:
        open_channel = _open_ours if system == OURS else _open_proxystores
        channel = await open_channel(role, lines, servers)
    except Exception as error:
        await lines.send({"type": "failed", "error": f"{type(error).__name__}: {error}"})
        return
    await lines.send({"type": "connected", "seconds": time.perf_counter() - begin})
    try:
        while True:
            nbytes = (await lines.receive())["nbytes"]
            if role == "answer":
                await channel.receive(nbytes)
                await channel.send(b"x")
                continue
            data = bytes(nbytes)
            begin = time.perf_counter()
            await channel.send(data)
            await channel.receive(1)
            await lines.send({"type": "sent", "seconds": time.perf_counter() - begin})
    except EOFError:
        await channel.close()


class Ends:
    """Both ends of one connection, each a process in a namespace of its own.

    Args:
        offerer: Where one runs.
        answerer: Where the other one runs.
        system: `OURS` or `PROXYSTORE`.
        servers: STUN and TURN servers.

    Attributes:
        connected: Seconds until the connection was there, `None` if there is none.
        error: Why there is none, in the words of the offerer.
    """

    def __init__(
        self, offerer: Namespace, answerer: Namespace, system: str, servers: Sequence[str] = ()
    ) -> None:
        self._processes = [
            space.popen(
                *(sys.executable, "-m", "benchmarks._webrtc_peer", system, role, *servers),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).resolve().parent.parent,
            )
            for space, role in ((offerer, "offer"), (answerer, "answer"))
        ]
        self.connected: float | None = None
        self.error = ""
        offer, answer = self._processes
        self._tell(answer, self._hear(offer))
        self._tell(offer, self._hear(answer))
        outcome = self._hear(offer)
        self._hear(answer)
        self.connected, self.error = outcome.get("seconds"), outcome.get("error", "")

    def carry(self, nbytes: int) -> float:
        """Send an object; return the seconds until its receiver's answer is back."""
        offer, answer = self._processes
        for process in (answer, offer):
            self._tell(process, {"nbytes": nbytes})
        seconds: float = self._hear(offer)["seconds"]
        return seconds

    def _tell(self, process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()

    def _hear(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"one end of the connection ended: status {process.wait()}")
        message: dict[str, Any] = json.loads(line)
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> list[int]:
        """Close the connection; return how both processes ended."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        statuses = [process.wait(timeout=20) for process in self._processes]
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.close()
        return statuses


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
