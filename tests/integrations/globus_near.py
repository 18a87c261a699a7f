"""A stack in this process, and executors over it, for the tests of the integration itself.

A test module asks for these with `pytest_plugins = ["tests.integrations.globus_near"]`, which
makes them known to all tests of a run: so nothing here acts by itself.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack
from typing import Any

import pytest
from globus_compute_endpoint.engines import ThreadPoolEngine
from proxystore_globus_compute import ProxyExecutor

from examples.compute_stack.in_process import InProcess
from proxystore_core.store import Store
from tests.integrations.globus_kit import left, wait_for_none

BIG = 20_000  # floats: 160 kB
THRESHOLD = "10 kB"

Make = Callable[..., ProxyExecutor]


@pytest.fixture(scope="module")
def near() -> Iterator[InProcess]:
    """Start an engine of threads, and what stands in for the service."""
    engine = ThreadPoolEngine(max_workers=2)
    with InProcess(engine) as made:
        meeting = threading.Barrier(2)  # start both threads before a test is watched
        wait([engine.executor.submit(meeting.wait) for _ in range(2)])
        yield made


@pytest.fixture
def near_store(near: InProcess) -> Iterator[Store[Any]]:
    """Make a store that must be empty at the end; also end the faults of a test that failed."""
    with Store("globus", cache_size=0) as made:
        yield made
        near.clear_faults()
        near.set_limit()
        gc.collect()
        assert wait_for_none(made), f"{left(made)} objects left"


@pytest.fixture
def make(near: InProcess, near_store: Store[Any]) -> Iterator[Make]:
    """Return what makes executors, which end with the test."""
    with ExitStack() as open_:

        def made(**options: Any) -> ProxyExecutor:
            options = {"store": near_store, "threshold": THRESHOLD, **options}
            return open_.enter_context(near.executor(ProxyExecutor, **options))

        yield made


@pytest.fixture
def ex(make: Make) -> ProxyExecutor:
    """Make an executor."""
    return make()
