"""A small daemon of its own: storage, an endpoint without peers, the control socket.

`python solo.py HOME NAME OPTIONS` runs until its standard input is closed, or it is killed.
It prints the UUID once clients may come.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from proxystore_endpoint.config import EndpointConfig, write_config
from proxystore_endpoint.endpoint import Endpoint
from proxystore_endpoint.local.server import LocalServer
from proxystore_endpoint.running import Running, node_name, process_started, write_running
from proxystore_endpoint.storage import Storage

from proxystore_core.connectors.shared_memory import SharedMemoryConnector


class Solo:
    """A daemon in a process of its own.

    Args:
        home: Directory of the configurations.
        name: Name of the endpoint.
        options: Arguments of its storage.
    """

    def __init__(self, home: Path, name: str = "solo", uuid: str = "", **options: Any) -> None:
        self.home, self.name, self.options = home, name, options
        self.uuid = uuid or str(uuid4())
        self.socket = home / name / "control.sock"
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        args = [str(self.home), self.name, self.uuid, json.dumps(self.options)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"up\n":
            raise RuntimeError(f"the daemon ended: {self.process.wait()}")

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self._reap()

    def stop(self) -> None:
        """Have it end by itself."""
        self.process.stdin.close()
        self._reap()

    def clean_up(self) -> None:
        """Stop it if it runs; remove the memory that killed ones left."""
        if self.process.returncode is None:
            self.stop()
        SharedMemoryConnector().close()

    def _reap(self) -> None:
        self.process.wait(30)
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()


@contextmanager
def running(home: Path, name: str = "solo", **options: Any) -> Iterator[Solo]:
    """Run a daemon for as long as the block lasts."""
    made = Solo(home, name, **options)
    try:
        yield made
    finally:
        made.clean_up()


async def serve(home: Path, name: str, uuid: str, options: dict[str, Any]) -> None:
    directory = home / name
    write_config(EndpointConfig(name=name, uuid=uuid, port=1), directory)
    control = directory / "control.sock"
    with Storage(uuid, **options) as storage:
        server = LocalServer(Endpoint(UUID(uuid), name, storage), control)
        await server.start()
        me = Running(
            pid=os.getpid(),
            started=process_started(os.getpid()) or "",
            node=node_name(),
            hostname=os.uname().nodename,
            url="http://127.0.0.1:1",
            control=str(control),
        )
        write_running(directory, me)

        async def tick() -> None:
            while True:
                await asyncio.sleep(min(0.05, await asyncio.to_thread(storage.tick)))

        ticking = asyncio.create_task(tick())
        print("up", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        ticking.cancel()
        await server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
