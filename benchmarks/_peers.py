"""The stores that are compared, each behind the same few calls."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._harness import have

OURS = "ours"
PROXYSTORE_FILE = "ProxyStore, file on /dev/shm"
PROXYSTORE_REDIS = "ProxyStore, Redis"

SHM = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


class MissingPeerError(Exception):
    """A peer cannot run here; the text says how to install it."""


def open_ours(name: str = OURS) -> Any:
    """Open a store of ours with its defaults."""
    from proxystore_core.store import Store

    return Store(f"bench-{name}-{os.getpid()}")


def open_proxystore_file(directory: Path) -> Any:
    """Open ProxyStore's file store in a directory."""
    _need_proxystore()
    from proxystore.connectors.file import FileConnector
    from proxystore.store import Store

    return Store(f"bench-file-{os.getpid()}", FileConnector(str(directory)), cache_size=0)


def open_proxystore_redis(port: int) -> Any:
    """Open ProxyStore's Redis store on a local port."""
    _need_proxystore()
    if not have("redis"):
        raise MissingPeerError("needs: pip install 'proxystore-core[bench]'")
    from proxystore.connectors.redis import RedisConnector
    from proxystore.store import Store

    return Store(f"bench-redis-{os.getpid()}", RedisConnector("127.0.0.1", port), cache_size=0)


def _need_proxystore() -> None:
    if not have("proxystore"):
        raise MissingPeerError("needs: pip install 'proxystore-core[bench]'")


_opened: dict[str, Any] = {}


def reopen(system: str, config: Any) -> Any:
    """Open in this process the store that another process configured, once."""
    if system not in _opened:
        if system == OURS:
            from proxystore_core.store import Store as Kind
        else:
            from proxystore.store import Store as Kind
        _opened[system] = Kind.from_config(config)
    return _opened[system]


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """Run a Redis server of our own on a free port of 127.0.0.1, and yield the port."""
    program = shutil.which("redis-server")
    if program is None:
        raise MissingPeerError(
            "needs redis-server: apt-get install redis-server, or brew install redis"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        options |= {"dir": directory, "proto-max-bulk-len": "2gb"}
        command = [program]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _await_port(port, server)
            yield port
        finally:
            server.terminate()
            server.wait(30)


def _await_port(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start on port {port}") from error
            time.sleep(0.02)


@contextlib.contextmanager
def stores() -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Open every store that can run here, and close all of them at the end.

    Yields:
        The stores by system, and for each system that is missing what it needs.
    """
    opened: dict[str, Any] = {}
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:

        def start(system: str, make: Callable[[], Any]) -> None:
            try:
                store = make()
            except MissingPeerError as error:
                missing[system] = str(error)
                return
            stack.callback(store.close)
            opened[system] = store

        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=SHM))
        start(OURS, open_ours)
        start(PROXYSTORE_FILE, lambda: open_proxystore_file(Path(directory, "store")))
        start(PROXYSTORE_REDIS, lambda: open_proxystore_redis(stack.enter_context(redis_server())))
        yield opened, missing
