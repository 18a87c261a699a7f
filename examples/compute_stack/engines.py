"""Configurations of the engines that endpoints run tasks with, fit for a small machine."""

from __future__ import annotations

from typing import Any


def engine(kind: str = "htex", workers: int = 2, **options: Any) -> dict[str, Any]:
    """Configure an engine.

    Args:
        kind: "threads", "processes", "htex" (the engine of real endpoints, on Parsl's
            HighThroughputExecutor) or the name of an engine's class.
        workers: How many tasks run at a time.
        **options: More of the engine's own; `worker_init` is handed to its provider.
    """
    if kind == "threads":
        return {"type": "ThreadPoolEngine", "max_workers": workers, **options}
    if kind == "processes":
        return {"type": "ProcessPoolEngine", "max_workers": workers, **options}
    provider = {"type": "LocalProvider", "init_blocks": 1, "min_blocks": 1, "max_blocks": 1}
    if "worker_init" in options:
        provider["worker_init"] = options.pop("worker_init")
    return {
        "type": "GlobusComputeEngine" if kind == "htex" else kind,
        "address": "127.0.0.1",
        "max_workers_per_node": workers,
        "cores_per_worker": 0.1,
        "heartbeat_period": 5,
        "heartbeat_threshold": 30,
        "job_status_kwargs": {"strategy_period": 0.5, "max_idletime": 300},
        "provider": provider,
        **options,
    }
