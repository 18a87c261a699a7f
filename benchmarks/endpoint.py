"""An endpoint and its clients on one node, next to ProxyStore's endpoint.

Both endpoints are processes of their own, as their users start them, and both stores
have no cache. Objects go through the connector as bytes, and through the store as what
a task passes: arrays and small values. Each is evicted outside of the clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from benchmarks._harness import (
    GB,
    KB,
    MB,
    Options,
    Report,
    have,
    interleave,
    median,
    parse,
    progress,
    size,
)
from benchmarks._peers import OURS, MissingPeerError

PEER = "ProxyStore's endpoint"
BATCH = 50  # operations behind one sample of a small object
NEEDS = ("proxystore", "uvloop", "aiosqlite", "psutil")
SERVE = """
import json, sys
from proxystore.endpoint.config import EndpointConfig, EndpointStorageConfig, write_config
from proxystore.endpoint.serve import serve
directory, options, storage = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
config = EndpointConfig(**options, storage=EndpointStorageConfig(**storage))
write_config(config, directory)
serve(config, log_level="ERROR")
"""


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def running(command: Sequence[str], ready: Callable[[], bool], **environment: str) -> Iterator[int]:
    """Run a server, wait until it is ready, and yield its process id."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)[:100]} did not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def ours(home: Path, *, persist: bool = False) -> Iterator[tuple[Any, int]]:
    """Run an endpoint of ours; yield a connector to it, and its process id."""
    from proxystore_endpoint.config import read_config
    from proxystore_endpoint.connector import EndpointConnector
    from proxystore_endpoint.exceptions import EndpointConnectorError

    command = [sys.executable, "-m", "proxystore_endpoint"]
    settings = {"PROXYSTORE_HOME": str(home), "PROXYSTORE_RUNTIME_DIR": str(home / "run")}
    os.environ |= settings
    subprocess.run(
        [*command, "configure", "ours", "--port", str(free_port())] + ["--persist"] * persist,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    uuid = read_config(home / "ours").uuid
    found: list[Any] = []

    def ready() -> bool:
        with contextlib.suppress(EndpointConnectorError):
            found.append(EndpointConnector([uuid]))
        return bool(found)

    with running([*command, "start", "ours", "--no-detach"], ready) as pid, found[0]:
        yield found[0], pid


@contextlib.contextmanager
def theirs(home: Path, *, persist: bool = False) -> Iterator[tuple[Any, int]]:
    """Run an endpoint of ProxyStore; yield a connector to it, and its process id."""
    if missing := [module for module in NEEDS if not have(module)]:
        raise MissingPeerError(f"needs {missing[0]}: pip install 'proxystore[endpoints]==1.1.0'")
    from proxystore.connectors.endpoint import EndpointConnector

    directory, port = home / "theirs", free_port()
    directory.mkdir(parents=True)
    options = {"name": "theirs", "uuid": str(uuid4()), "port": port, "host": "127.0.0.1"}
    storage: dict[str, Any] = {"max_object_size": 4 * GB}
    if persist:
        storage["database_path"] = str(directory / "blobs.db")

    def ready() -> bool:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/endpoint", timeout=1).close()
            return True
        return False

    command = [sys.executable, "-c", SERVE, str(directory), json.dumps(options)]
    with running([*command, json.dumps(storage)], ready) as pid:
        connector = EndpointConnector([options["uuid"]], str(home))
        yield connector, pid
        connector.close()


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call took, in seconds, and what it returned."""
    start = time.perf_counter()
    result = act()
    return time.perf_counter() - start, result


def round_of(channel: Any, obj: Any, batch: int) -> tuple[float, float]:
    """Put and get an object so many times; return what one of each took."""
    put = get = 0.0
    for _ in range(batch):
        took, key = timed(lambda: channel.put(obj))
        put += took
        took, found = timed(lambda key=key: channel.get(key))  # type: ignore[misc]
        get += took
        if len(found) != len(obj):
            raise RuntimeError("the wrong object came back")
        del found
        channel.evict(key)
    return put / batch, get / batch


def compare(
    report: Report, options: Options, channels: dict[str, Any], obj: Any, what: str, *, goal: bool
) -> None:
    """Measure one object through both endpoints."""
    progress(f"endpoint, {what}")
    nbytes = memoryview(obj).nbytes
    batch = BATCH if nbytes < MB and not options.quick else 1
    gets: dict[str, list[float]] = {name: [] for name in channels}

    def once(name: str) -> float:
        put, get = round_of(channels[name], obj, batch)
        gets[name].append(get)
        return put

    puts = interleave(
        {name: (lambda name=name: once(name)) for name in channels},  # type: ignore[misc]
        options.rounds,
        warmup=2,
        limit=60,
    )
    targets = {100 * MB: (10.0, 100.0), KB: (5.0, 5.0)}.get(nbytes, (None, None))
    for verb, taken, target in (("put", puts, targets[0]), ("get", gets, targets[1])):
        taken = {name: values[-options.rounds :] for name, values in taken.items()}
        report.samples |= {f"{verb} {what}, {name}": values for name, values in taken.items()}
        if PEER in taken:
            middle = {name: median(values) for name, values in taken.items()}
            wanted = target if goal else None
            report.faster(f"{verb} {what}", PEER, middle[OURS], middle[PEER], wanted)
        else:
            report.within(f"{verb} {what}", median(taken[OURS]), None)


def same_node(report: Report, options: Options, home: Path) -> None:
    """Measure the endpoints in memory: connectors, then stores."""
    from proxystore_core.store import Store

    with contextlib.ExitStack() as stack:
        mine, pid = stack.enter_context(ours(home))
        connectors = {OURS: mine}
        stores: dict[str, Any] = {OURS: Store("bench-ours", mine, cache_size=0)}
        try:
            other, _ = stack.enter_context(theirs(home / "proxystore"))
            from proxystore.store import Store as TheirStore

            connectors[PEER] = other
            stores[PEER] = TheirStore("bench-theirs", other, cache_size=0)
        except MissingPeerError as error:
            report.not_run("put and get", PEER, str(error))
        large = MB if options.quick else 100 * MB
        for nbytes in (KB, MB) if options.quick else (KB, MB, 100 * MB):
            data = os.urandom(min(nbytes, MB)) * max(1, nbytes // MB)
            compare(report, options, connectors, data, size(nbytes), goal=True)
        array = np.arange(large // 8, dtype=np.float64)
        compare(report, options, stores, array, f"array of {size(large)} in a store", goal=True)
        compare(report, options, stores, bytes(KB), f"{size(KB)} in a store", goal=True)
        memory_of(report, options, mine, pid)


def memory_of(report: Report, options: Options, connector: Any, pid: int) -> None:
    """Measure what a large put and get take in the daemon beside the object."""
    nbytes = MB if options.quick else GB
    source = np.zeros(nbytes, dtype=np.uint8)
    before = resident(pid)
    if before is None:
        report.not_run(f"memory of the daemon, {size(nbytes)}", "", "needs /proc")
        return
    key = connector.put(memoryview(source))
    found = connector.get(key)
    grown = (resident(pid) or 0) - before
    del found
    connector.evict(key)
    report.add(
        f"memory of the daemon, put and get {size(nbytes)}",
        value=float(max(grown, 0)) / (1 << 20),
        unit="MiB",
        target=16.0,
        at_most=True,
        ours=f"{grown / (1 << 20):.1f} MiB",
    )


def resident(pid: int) -> int | None:
    """Return the bytes of memory that are a process's own."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))


def durable(report: Report, options: Options, home: Path) -> None:
    """Measure small objects that are on the disk before a put returns."""
    with contextlib.ExitStack() as stack:
        mine, _ = stack.enter_context(ours(home, persist=True))
        connectors = {OURS: mine}
        with contextlib.suppress(MissingPeerError):
            connectors[PEER] = stack.enter_context(theirs(home / "proxystore", persist=True))[0]
        compare(report, options, connectors, os.urandom(KB), "1 kB, durable", goal=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("endpoint")
    for part in (same_node, durable):
        with tempfile.TemporaryDirectory() as directory:
            part(report, options, Path(directory))
    report.finish(options)


if __name__ == "__main__":
    main()
