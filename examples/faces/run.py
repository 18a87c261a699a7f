"""One run of the workflow, with what it cost."""

from __future__ import annotations

import contextlib
import gc
import importlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from distributed import Client, LocalCluster

from examples.common.meter import Processes, files
from examples.common.place import store_root
from examples.faces import workflow
from examples.faces.meter import Traffic
from examples.faces.outcome import Mode, Outcome
from examples.faces.windows import SIZES, Matrix
from proxystore_core.connectors.shared_memory import SharedMemoryConnector

PATIENCE = 10.0  # seconds that the scheduler has to evict what nobody needs any more
IMPORTED = ("dask.array", "dask.dataframe", "examples.faces.workflow", "skimage.data")


def run(mode: Mode, size: str, workers: int, threshold: str) -> Outcome:
    """Run the workflow once.

    Args:
        mode: How large data travels.
        size: Name in `SIZES`.
        workers: Worker processes.
        threshold: From which size on an object goes through the store, such as '1 MB'.
    """
    laps = Laps(mode)
    with store_root("faces-") as root:
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0"
            ) as cluster,
            Client(cluster) as client,
        ):
            enable(mode, client, threshold)
            client.run(warm_up)
            traffic = Traffic(client)
            with Processes([], root) as processes, _large_graphs() as large:
                answers = workflow.follow(client, SIZES[size], laps.stage, sharing(mode, client))
                hub_bytes, worker_bytes = traffic.read()
            used = _objects_used(root)
        left = len(files(root))
    laps.close()
    return Outcome(
        answers,
        stages=laps.seconds,
        cpu_seconds=processes.cpu,
        hub_bytes=hub_bytes,
        worker_bytes=worker_bytes,
        peak_bytes=processes.peak,
        stored_bytes=processes.stored,
        warnings=len(large),
        objects_used=used,
        objects_left=left,
    )


def enable(mode: Mode, client: Client, threshold: str) -> None:
    """Enable the integration: this is all that differs between the runs plain and proxied."""
    if mode == "proxied":
        import proxystore_dask

        proxystore_dask.enable(client, threshold=threshold)


def sharing(mode: Mode, client: Client) -> workflow.Share:
    """Say what tasks get in place of the matrix: by hand, what Dask advises."""

    def by_hand(matrix: Matrix) -> object:
        return client.scatter(matrix, broadcast=True)

    def unchanged(matrix: Matrix) -> object:
        return matrix

    return by_hand if mode == "scattered" else unchanged


def warm_up() -> None:
    """Import what the stages use."""
    for name in IMPORTED:
        importlib.import_module(name)


class Laps:
    """Takes the time of stages, and says how long each took.

    Args:
        title: What is running.
    """

    def __init__(self, title: str) -> None:
        self.seconds: dict[str, float] = {}
        print(f"{title:10}", end="", flush=True)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of one stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        print(f"  {name} {self.seconds[name]:.1f} s", end="", flush=True)

    def close(self) -> None:
        """End the line."""
        print(flush=True)


@contextlib.contextmanager
def _large_graphs() -> Iterator[list[str]]:
    """Collect the warnings of Dask that a graph is large, instead of showing them."""
    large: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield large
    for warning in caught:
        if "large graph" in str(warning.message):
            large.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _objects_used(root: Path) -> int:
    """Poll until no store has an object, now that nobody has a future; return how many have."""
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    while (used := sum(map(_objects, root.iterdir()))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return used


def _objects(directory: Path) -> int:
    with SharedMemoryConnector(str(directory)) as store:
        return store.usage().objects
