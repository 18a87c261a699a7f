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

from examples.common.meter import Processes, files
from examples.common.place import store_root
from examples.imaging import workflow
from examples.imaging.meter import Traffic
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


def occupy(workers: int, directory: str) -> None:
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
    executor = make_executor(mode, workers, threshold)
    scratch = Path(tempfile.mkdtemp(prefix="imaging-"))
    config = Config(
        executors=[executor],
        run_dir=str(scratch),
        strategy="none",
        strategy_period=0.2,
        initialize_logging=False,
    )
    try:
        with store_root("imaging-") as root:
            progress.say("starting workers")
            with parsl.load(config):
                _wait_for_workers(workers, scratch / "up")
                traffic = Traffic(executor)
                start = time.perf_counter()
                with Processes(_blocks(executor), root) as processes:
                    submitted = workflow.submit(fields, progress.watch)
                    mosaics = {name: f.result() for name, f in submitted.mosaics.items()}
                    found = {field: f.result() for field, f in submitted.shifts.items()}
                    seconds = time.perf_counter() - start
                # Copies, since the store is going away and the answers are to stay.
                mosaics = {name: np.array(mosaic) for name, mosaic in mosaics.items()}
                shifts = np.array(list(found.values()))
                stored = _bytes_stored(executor)
                progress.close()
            left = len(files(root))
    finally:
        parsl.clear()
        _remove(scratch)
    truth = np.array([field.shifts() for field in found])
    return Outcome(
        mosaics,
        shifts,
        shift_error=float(np.abs(shifts - truth).max()),
        tasks=sum(counts.values()),
        parsl_bytes=traffic.sent + traffic.received,
        store_bytes=stored,
        seconds=seconds,
        cpu_seconds=processes.cpu,
        peak_bytes=processes.peak,
        objects_left=left,
    )


def _wait_for_workers(workers: int, directory: Path) -> None:
    directory.mkdir()
    up = python_app(occupy)
    for future in [up(workers, str(directory)) for _ in range(workers)]:
        future.result()


def _blocks(executor: Any) -> list[int]:
    """Name the manager, which is no child of ours: its provider's shell has ended."""
    return [job["remote_pid"] for job in executor.provider.resources.values()]


def _remove(directory: Path) -> None:
    """Remove the run directory, in which a manager that is still shutting down may be writing."""
    deadline = time.monotonic() + 5
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)


def _bytes_stored(executor: HighThroughputExecutor) -> int:
    """Bytes that client and workers have put into the store; 0 where there is none."""
    if not hasattr(executor, "proxy_stats"):
        return 0
    stats = executor.proxy_stats()
    return int(stats.nbytes + stats.result_nbytes)
