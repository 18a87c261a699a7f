"""Real Dask clusters for the tests, and what their tasks do."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import proxystore_dask
from distributed import Client, LocalCluster
from proxystore_dask.client import _enabled

from tests.conftest import wait_until

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SIZE = 100_000  # items of eight bytes
THRESHOLD = 100_000

# A process that takes itself for one of another node, and cannot see this one's memory.
ELSEWHERE = """
import os
import proxystore_core.connectors._directory as directories
import proxystore_core.connectors.shared_memory as shm

here = {name!r}
root = os.environ['PROXYSTORE_SHM_ROOT'].removesuffix('-' + here) + '-' + here
os.environ['PROXYSTORE_SHM_ROOT'] = root  # this may be run several times
read_info = shm.read_info
shm.node_id = directories.node_id = lambda: here + '/1'
shm.read_info = lambda directory: read_info(directory) if directory.startswith(root) else None
"""


def elsewhere(name: str) -> str:
    """Return a preload for a worker, or code for a client, that makes it one of another node."""
    return ELSEWHERE.format(name=name)


def root_of(name: str) -> Path:
    """Return where the memory of such a node lies."""
    return Path(os.environ["PROXYSTORE_SHM_ROOT"] + "-" + name)


def total(values: Any) -> float:
    return float(values.sum())


def make(count: int, start: int = 0) -> np.ndarray[Any, Any]:
    return np.arange(start, start + count, dtype="f8")


def usage(client: Client) -> int:
    """Count the objects in the memory of a client's node."""
    return int(_enabled[client].memory.store.usage().objects)


def empty(client: Client) -> bool:
    """Tell whether all objects in the memory of a client's node go."""
    gc.collect()  # a traceback may hold a future
    return wait_until(lambda: not usage(client), timeout=20)


@contextmanager
def local(workers: int = 2, **options: Any) -> Iterator[Client]:
    """Start a cluster of this node with a client that is enabled."""
    options = {"threads_per_worker": 1, "dashboard_address": ":0", **options}
    with (
        LocalCluster(n_workers=workers, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        proxystore_dask.enable(client, threshold=THRESHOLD)
        yield client


@contextmanager
def started(path: Path, *preloads: str, workers: int = 2) -> Iterator[str]:
    """Start a scheduler and workers by the command line; yield the scheduler's address.

    Args:
        path: A directory for files.
        preloads: What the first workers load.
        workers: How many there are.
    """
    with contextlib.ExitStack() as stack:
        address_file = path / "scheduler.json"
        run = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
        run += ["--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(address_file)]
        stack.enter_context(_process(run, path))
        assert wait_until(
            lambda: address_file.exists() and address_file.stat().st_size > 0, timeout=30
        )
        for number in range(workers):
            run = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"]
            run += ["--no-dashboard", "--scheduler-file", str(address_file), "--no-nanny"]
            run += ["--name", f"w{number}"]
            if number < len(preloads) and preloads[number]:
                preload = path / f"preload_{number}.py"
                preload.write_text(preloads[number])
                run += ["--preload", str(preload)]
            stack.enter_context(_process(run, path))
        yield json.loads(address_file.read_text())["address"]


@contextmanager
def _process(run: list[str], path: Path) -> Iterator[None]:
    with (path / "log").open("a") as log:
        process = subprocess.Popen(run, cwd=path, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def kill(client: Client, *addresses: str) -> None:
    """Kill workers."""
    pids = client.run(os.getpid)
    for address in addresses:
        os.kill(pids[address], signal.SIGKILL)


def infos(client: Client) -> dict[str, Any]:
    """Return what the scheduler knows of each worker.

    Not what the client says of it: that is at times of no worker.
    """
    found = client.sync(client.scheduler.identity, n_workers=-1)
    return dict(found["workers"])


def beaten(client: Client) -> None:
    """Wait until every worker has sent two more heartbeats, and fail if one is gone."""

    def seen() -> dict[str, float]:
        return {address: info["last_seen"] for address, info in infos(client).items()}

    for _ in range(2):
        before = now = seen()
        pause = threading.Event()
        while not all(now[address] > before[address] for address in before):
            pause.wait(0.05)
            now = seen()
            assert now.keys() == before.keys(), "a worker is gone"


def workers(client: Client) -> list[str]:
    """Return the addresses of all workers."""
    return sorted(client.nthreads())


def unique() -> str:
    """Return a name that no other test uses."""
    return uuid.uuid4().hex


def mapped_file(array: np.ndarray[Any, Any]) -> str:
    """Return the file whose pages the data of an array are."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            return line.split(None, 5)[5] if len(line.split(None, 5)) == 6 else ""
    return "?"
