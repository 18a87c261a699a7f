"""One run of the workflow on one executor, with what it cost."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import parsl
from parsl import python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from examples.imaging import workflow
from examples.imaging.meter import PeakMemory, Traffic, files
from examples.imaging.outcome import Mode, Outcome
from examples.imaging.progress import Progress
from examples.imaging.scene import SIZES, plan

ROOT = Path(__file__).parents[2]


def make_executor(mode: Mode, workers: int, threshold: str) -> HighThroughputExecutor:
    """Make the executor: this is all that differs between the two runs."""
    settings: dict[str, Any] = {
        "label": "htex",
        "address": "127.0.0.1",
        "cores_per_worker": 0.01,  # so that max_workers_per_node alone decides
        "max_workers_per_node": workers,
        "provider": LocalProvider(  # type: ignore[no-untyped-call]  # it has no annotations
            init_blocks=1,
            max_blocks=1,
            worker_init=f"export PYTHONPATH={shlex.quote(str(ROOT))}:$PYTHONPATH",
        ),
    }
    if mode == "plain":
        return HighThroughputExecutor(**settings)
    from proxystore_parsl import ProxyHighThroughputExecutor

    executor: HighThroughputExecutor = ProxyHighThroughputExecutor(**settings, threshold=threshold)
    return executor


def wait_for(workers: int, directory: str) -> None:
    """Occupy a worker until all workers are up and have imported what the stages use."""
    here = Path(directory)
    (here / str(os.getpid())).touch()
    while len(list(here.iterdir())) < workers:
        time.sleep(0.01)


def run(mode: Mode, size: str, workers: int, threshold: str) -> Outcome:
    """Run the workflow once.

    Args:
        mode: Which executor.
        size: Name in `SIZES`.
        workers: Worker processes.
        threshold: From which size on an object goes through the store, such as '100 kB'.
    """
    fields = plan(SIZES[size])
    counts = workflow.count(fields)
    progress = Progress(f"{mode:8}", counts)
    scratch = Path(tempfile.mkdtemp(prefix="imaging-"))
    executor = make_executor(mode, workers, threshold)
    config = Config(
        executors=[executor],
        run_dir=str(scratch),
        strategy="none",
        strategy_period=0.2,
        initialize_logging=False,
    )
    try:
        progress.say("starting workers")
        with parsl.load(config):
            (scratch / "up").mkdir()
            up = python_app(wait_for)
            for future in [up(workers, str(scratch / "up")) for _ in range(workers)]:
                future.result()
            store = store_directory(executor)
            traffic = Traffic(executor)
            start = time.perf_counter()
            with PeakMemory(executor, store) as memory:
                submitted = workflow.submit(fields, progress.watch)
                mosaics = {name: np.asarray(f.result()) for name, f in submitted.mosaics.items()}
                found = {field: f.result() for field, f in submitted.shifts.items()}
                seconds = time.perf_counter() - start
            # Copies, since the store is going away and the answers are to stay.
            mosaics = {name: mosaic.copy() for name, mosaic in mosaics.items()}
            shifts = np.array([np.asarray(s) for s in found.values()])
            error = float(np.abs(shifts - [field.shifts() for field in found]).max())
            stored = bytes_stored(executor)
            progress.close()
    finally:
        parsl.clear()
        _remove(scratch)
    return Outcome(
        mosaics,
        shifts,
        error,
        sum(counts.values()),
        traffic.sent + traffic.received,
        stored,
        seconds,
        memory.peak,
        len(files(store)),
    )


def _remove(directory: Path) -> None:
    """Remove the run directory, in which a manager that is still shutting down may be writing."""
    deadline = time.monotonic() + 5
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)


def store_directory(executor: Any) -> Path | None:
    """Where an executor of ours keeps what it stores; None for another executor."""
    store = getattr(executor, "store", None)
    return Path(store.connector.directory) if store is not None else None


def bytes_stored(executor: Any) -> int:
    """Bytes that tasks and client have put into the store of an executor of ours."""
    session = getattr(executor, "session", None)
    return int(session.stats().stored_bytes) if session is not None else 0
