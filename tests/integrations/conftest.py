"""Real Parsl executors and Dask clusters for the tests, and what their workers need."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import parsl
import proxystore_dask
import pytest
from distributed import Client, LocalCluster
from parsl.config import Config
from parsl.providers import LocalProvider
from proxystore_parsl import ProxyHighThroughputExecutor

from tests.conftest import wait_until
from tests.integrations.dask_kit import THRESHOLD, usage

ROOT = Path(__file__).parents[2]
BIN = str(Path(sys.executable).parent)
sys.path.append(str(ROOT))  # for the workers of process pools
# For all other processes: globus-compute-endpoint installs a package `tests` of its own.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
if BIN not in os.environ["PATH"].split(os.pathsep):  # Parsl starts its processes by name
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"

# Globus Compute's endpoint is for Linux only, and is installed nowhere else.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_globus_*.py"]


class Kit:
    """Makes and loads configurations that fit a small machine."""

    worker_init = f"export PYTHONPATH={ROOT}:$PYTHONPATH"

    def __init__(self, path: Path) -> None:
        self.path = path

    def settings(self, label: str = "htex", workers: int = 2, **options: Any) -> dict[str, Any]:
        """Return arguments of a HighThroughputExecutor with one block on this node."""
        provider = {"worker_init": self.worker_init, "init_blocks": 1, "max_blocks": 1}
        provider.update(options.pop("provider", {}))
        return {
            "label": label,
            "address": "127.0.0.1",
            "max_workers_per_node": workers,
            "cores_per_worker": 0.1,
            "encrypted": False,
            "heartbeat_period": 1,
            "heartbeat_threshold": 5,
            "provider": LocalProvider(**provider),
            **options,
        }

    def htex(self, label: str = "htex", **options: Any) -> ProxyHighThroughputExecutor:
        """Make a proxy executor with two workers and a threshold of 10 kB."""
        options.setdefault("threshold", "10 kB")
        return ProxyHighThroughputExecutor(**self.settings(label, **options))

    def config(self, *executors: Any, **options: Any) -> Config:
        """Make a configuration whose files lie in the test's directory."""
        options.setdefault("strategy", "none")
        options.setdefault("strategy_period", 0.1)
        options.setdefault("initialize_logging", False)
        options.setdefault("run_dir", str(self.path / "runinfo"))
        return Config(executors=list(executors), **options)

    @contextmanager
    def load(self, *executors: Any, **options: Any) -> Iterator[parsl.DataFlowKernel]:
        """Load a configuration, and clean up and forget it afterwards."""
        with parsl.load(self.config(*executors, **options)) as kernel:
            yield kernel

    @staticmethod
    def wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> bool:
        """Poll until the condition holds; tell whether it did within `timeout` seconds."""
        return wait_until(condition, timeout)


@pytest.fixture(scope="module")
def parsl_kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("parsl"))


@pytest.fixture(autouse=True)
def no_leaks(watch_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Let Python's own helper process be there before the watch begins."""
    resource_tracker.ensure_running()
    with watch_leaks():
        yield


@pytest.fixture(scope="module")
def cluster(watch_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[LocalCluster]:
    """Start a Dask cluster for all tests of a module, and watch what it leaves."""
    resource_tracker.ensure_running()  # a process of Python's own, which stays
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    # Every two seconds it would drop replicas, which some tests count.
    still = {"distributed.scheduler.active-memory-manager.start": False}
    with (
        watch_leaks(),
        dask.config.set(still),
        LocalCluster(resources={"CHAIR": 1}, **options) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def enabled(cluster: LocalCluster) -> Iterator[Client]:
    """Return a client whose arguments and results travel by reference."""
    with Client(cluster) as made:
        proxystore_dask.enable(made, threshold=THRESHOLD)
        yield made


@pytest.fixture
def client(enabled: Client) -> Iterator[Client]:
    """Return that client, and see that a test leaves no objects."""
    before = usage(enabled)  # more than zero only if an earlier test failed
    yield enabled
    gc.collect()  # a traceback may hold a future
    assert wait_until(lambda: usage(enabled) <= before), "objects left"


@pytest.fixture(scope="module")
def plain(cluster: LocalCluster) -> Iterator[Client]:
    """Return a client of the same cluster whose data travels as in plain Dask."""
    with Client(cluster, set_as_default=False) as made:
        yield made
