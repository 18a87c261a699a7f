"""Sites that let nothing out but through an HTTP proxy still reach a relay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from proxystore_endpoint.relay.server import RelayServer

from tests.endpoint.relay.support import asynchronous, client, eventually, self_signed

HOST = "relay.invalid"  # a name that only the proxy knows


@contextlib.asynccontextmanager
async def proxy(port: int) -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP proxy that connects to a port of this host, whatever it is asked for."""
    asked: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.decode().splitlines()[0])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(carry(reader, back), carry(there, writer))

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("tls", [False, True])
def test_a_relay_behind_an_http_proxy(tmp_path: Path, monkeypatch, tls):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False  # the certificate is for another name

    @asynchronous
    async def connect() -> None:
        async with (
            RelayServer(ssl_context=context if tls else None) as relay,
            proxy(relay.port) as (address, asked),
        ):
            monkeypatch.setenv("https_proxy", address)
            url = f"{'wss' if tls else 'ws'}://{HOST}:8700"
            options = {"ssl_context": trusting} if tls else {}
            async with (
                client(url, **options) as (one, _, _),
                client(url, **options) as (_, identity, inbox),
            ):
                assert asked == [f"CONNECT {HOST}:8700 HTTP/1.1"] * 2
                pipe = await one.open_circuit(identity.uuid)
                _, far = await inbox.circuits.get()
                for number in range(50):
                    await pipe.send(bytes([number]) * 60_000)
                    assert await far.receive() == bytes([number]) * 60_000
            assert await eventually(lambda: relay.connections == 0)

    connect()
