"""Runs of the workflow, each with another executor, and what they cost."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from globus_compute_sdk import Executor
from globus_sdk import GlobusAPIError

from examples.common.place import store_root
from examples.compute_stack.endpoints import CoreEndpoint
from examples.compute_stack.service import LIMIT
from examples.compute_stack.stack import Stack
from examples.hubble import workflow
from examples.hubble.outcome import Mode, Outcome
from examples.hubble.scene import SIZES, Exposures, Size, observe
from proxystore_core.proxy import extract, is_proxy
from proxystore_core.store import Store

Outcomes = dict[Mode, Outcome]

BASE64 = 1.37  # what Globus Compute makes of a byte
QUEUED = 1.2  # seconds that a task holds a worker while others come up


def run(modes: Sequence[Mode], size_name: str, workers: int, threshold: str) -> Outcomes:
    """Run the workflow once with each executor, all with the same endpoint.

    Args:
        modes: Which executors.
        size_name: Name in `SIZES`.
        workers: Worker processes.
        threshold: From which size on an object goes through the store, such as '50 kB'.
    """
    # It warns where a burst of requests makes it wait.
    logging.getLogger("globus_compute_sdk").setLevel(logging.ERROR)
    size = SIZES[size_name]
    rows = list(observe(size))
    outcomes: Outcomes = {}
    with store_root("hubble-") as root, Stack({"PROXYSTORE_SHM_ROOT": str(root)}) as stack:
        endpoint = stack.core_endpoint("htex", workers=workers)
        with stack.executor(endpoint.id, Executor) as executor:
            _wait_for_workers(executor, workers)
        for mode in modes:
            print(f"{mode}: running", flush=True)
            outcomes[mode] = _run(mode, stack, endpoint, size, rows, threshold)
    return outcomes


def _run(
    mode: Mode,
    stack: Stack,
    endpoint: CoreEndpoint,
    size: Size,
    rows: list[list[Exposures]],
    threshold: str,
) -> Outcome:
    with Store("hubble") as store:
        before = stack.traffic()
        with make_executor(mode, stack, endpoint, size, store, threshold) as executor:
            answer, refused, seconds = _timed(executor, rows)
            stored = _bytes_stored(executor)
        after = stack.traffic()
        left = store.connector.usage().objects
    return Outcome(
        answer,
        refused,
        tasks=after.tasks - before.tasks,
        requests=after.submissions - before.submissions,
        broker_bytes=after.broker_bytes - before.broker_bytes,
        store_bytes=stored,
        seconds=seconds,
        objects_left=left,
    )


def make_executor(
    mode: Mode,
    stack: Stack,
    endpoint: CoreEndpoint,
    size: Size,
    store: Store[Any],
    threshold: str,
) -> AbstractContextManager[Executor]:
    """Make the executor: this is all that differs between the two runs."""
    if mode == "plain":
        # More tiles in one request would be refused.
        fitting = max(1, int(LIMIT / (BASE64 * size.nbytes)))
        return stack.executor(endpoint.id, batch_size=fitting)
    from proxystore_globus_compute import ProxyExecutor

    return stack.executor(endpoint.id, ProxyExecutor, store=store, threshold=threshold)


def _timed(
    executor: Executor, rows: list[list[Exposures]]
) -> tuple[dict[str, Any] | None, str, float]:
    start = time.perf_counter()
    try:
        found = workflow.run(executor, rows)
        # Copies, since the store is going away and the answer is to stay.
        answer = {name: _copy(value) for name, value in found.items()}
    except GlobusAPIError as error:
        return None, str(error.message), time.perf_counter() - start
    return answer, "", time.perf_counter() - start


def _copy(value: Any) -> Any:
    return (extract(value) if is_proxy(value) else value).copy()


def occupy(seconds: float) -> int:
    """Hold a worker, which has to import what the stages use; return its process."""
    from skimage import measure

    time.sleep(seconds)
    return os.getpid() if measure else 0


def _wait_for_workers(executor: Any, workers: int) -> None:
    ready: set[int] = set()
    while len(ready) < workers:
        futures = [executor.submit(occupy, QUEUED / 4) for _ in range(workers)]
        ready |= {future.result() for future in futures}


def _bytes_stored(executor: Any) -> int:
    """Bytes that client and workers have put into the store; 0 where there is none."""
    if not hasattr(executor, "stats"):
        return 0
    stats = executor.stats()
    return int(stats.nbytes + stats.result_nbytes)
