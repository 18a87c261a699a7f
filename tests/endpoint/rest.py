"""A REST API over a real storage, served in a thread, for tests of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxystore_endpoint.app import Access, HttpServer, create_app
from proxystore_endpoint.endpoint import Endpoint
from proxystore_endpoint.storage import Storage
from quart import Quart

TOKEN = "a-token-of-forty-three-characters-0123456789"


class Answer:
    """What came back."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A server that runs."""

    def __init__(self, server: HttpServer, endpoint: Endpoint) -> None:
        self.server = server
        self.endpoint = endpoint
        self.storage = endpoint.storage
        self.loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return self.server.url

    def connect(self, timeout: float = 10.0) -> socket.socket:
        return socket.create_connection((self.server.host, self.server.port), timeout)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = TOKEN,
        **headers: str,
    ) -> Answer:
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        try:
            connection.request(method, path, body, sent)
            return Answer(connection.getresponse())
        finally:
            connection.close()


@contextmanager
def serve(
    directory: Path,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    make: Any = None,
    access: dict[str, Any] | None = None,
    **limits: Any,
) -> Iterator[Served]:
    """Serve an endpoint that has no peers, or the one that `make(storage)` makes."""
    identity = uuid.uuid4()
    with Storage(str(identity), spill_dir=str(directory / "spill"), **limits) as storage:
        endpoint = Endpoint(identity, "tested", storage) if make is None else make(storage)
        app: Quart = create_app(endpoint, Access(TOKEN, host, **(access or {})))
        server = HttpServer(app, host, 0, tls=tls)
        served = Served(server, endpoint)
        up = threading.Event()

        async def run() -> None:
            served.loop = asyncio.get_running_loop()
            up.set()
            await server.run()

        thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        up.wait()
        try:
            yield served
        finally:
            server.stop()
            thread.join()
