"""Real Parsl executors for the tests, and what their workers need."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import parsl
import pytest
from parsl.config import Config
from parsl.providers import LocalProvider
from proxystore_parsl import ProxyHighThroughputExecutor

ROOT = Path(__file__).parents[2]
BIN = str(Path(sys.executable).parent)
sys.path.append(str(ROOT))  # for the workers of process pools
if BIN not in os.environ["PATH"].split(os.pathsep):  # Parsl starts its processes by name
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"


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
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while not condition():
            if time.monotonic() > deadline:
                return False
            pause.wait(0.02)
        return True


@pytest.fixture(scope="module")
def parsl_kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("parsl"))
