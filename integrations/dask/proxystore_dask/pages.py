"""Counting memory where processes share it: each page once, and for nobody twice.

The pages of shared memory that a process has touched count as its own wherever
the kernel is asked how much memory it takes. A worker would be paused, and its
nanny would kill it, for pages that all workers of the node share and that
neither could free.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from distributed import Nanny, NannyPlugin

from proxystore_dask import _seams


def shared_pages(pid: int | str = "self") -> int:
    """Count the bytes of shared memory that a process has touched; 0 where that is not known."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    _, found, rest = status.partition("RssShmem:")
    return int(rest.split(None, 1)[0]) * 1024 if found else 0


def own_memory(original: Callable[[], int]) -> Callable[[], int]:
    """Return what goes in front of a worker's measure of its memory."""

    def get_process_memory() -> int:
        return max(0, original() - shared_pages())

    return get_process_memory


class NannyMemory(NannyPlugin):  # type: ignore[misc]  # Dask has no types
    """Lets a nanny count only the memory that is its worker's own."""

    name = "proxystore"
    idempotent = True
    restart = False

    def setup(self, nanny: Nanny) -> None:
        """Put our part in front of the nanny's."""
        self._undo = _seams.guard_monitor(nanny, _takes_more)

    def teardown(self, nanny: Nanny) -> None:
        """Leave the nanny as it was."""
        self._undo()

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _takes_more(pid: int, limit: float) -> bool:
    try:
        rss = psutil.Process(pid).memory_info().rss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return bool(rss - shared_pages(pid) > limit)
