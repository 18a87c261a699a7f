"""Globus Compute's real parts for the tests, one stack for all of them.

A test module asks for these with `pytest_plugins = ["tests.integrations.globus_fixtures"]`.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from proxystore_globus_compute import endpoint_config

from examples.compute_stack.endpoints import CoreEndpoint, UserEndpoint
from examples.compute_stack.engines import engine
from examples.compute_stack.processes import running
from examples.compute_stack.stack import Stack
from proxystore_core.store import Store
from tests.conftest import shared_memory, wait_until
from tests.integrations.globus_kit import left, wait_for_none


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Start the broker and the stand-in of the service."""
    with Stack({"PROXYSTORE_SHM_ROOT": os.environ["PROXYSTORE_SHM_ROOT"]}) as made:
        yield made
        started = [psutil.Process(pid) for pid in made.pids()]
    assert not any(map(running, started)), "processes left"


@pytest.fixture(scope="session")
def threads(stack: Stack) -> Iterator[UserEndpoint]:
    """Start a user endpoint whose tasks are threads: tier 2, and fast."""
    endpoint = stack.user_endpoint("threads")
    yield endpoint
    endpoint.close()


@pytest.fixture(scope="session")
def htex(stack: Stack) -> Iterator[UserEndpoint]:
    """Start a user endpoint with the engine of real ones: tier 2."""
    endpoint = stack.user_endpoint("htex", max_retries_on_system_failure=1)
    yield endpoint
    started = [psutil.Process(pid) for pid in endpoint.pids()]
    endpoint.close()
    assert not any(map(running, started)), "processes left"


@pytest.fixture(scope="session")
def core(stack: Stack) -> Iterator[CoreEndpoint]:
    """Start a core endpoint with the configuration that we write: tier 3.

    Users may ask for threads as workers instead, and for what cannot start.
    """
    threads = json.dumps({"engine": engine("threads"), "heartbeat_period": 5})
    written = endpoint_config(
        workers_per_node=2,
        engine={
            "address": "127.0.0.1",
            "cores_per_worker": 0.1,
            "job_status_kwargs": {"strategy_period": 0.5, "max_idletime": 300},
        },
    )
    template = (
        "{% if threads is defined %}" + threads + "{% elif broken is defined %}{{ nobodys }}"
        "{% else %}\n" + written + "\n{% endif %}\n"
    )
    endpoint = stack.core_endpoint(template=template)
    yield endpoint
    endpoint.close()


@pytest.fixture
def store() -> Iterator[Store[Any]]:
    """Make a store in shared memory that is empty at the end."""
    before = shared_memory()
    with Store("globus", cache_size=0) as made:
        yield made
        assert wait_for_none(made), f"{left(made)} objects left"
    gc.collect()
    assert wait_until(lambda: shared_memory() <= before), "shared memory left"
