"""Map and reduce as one writes them with any executor: nothing here depends on which it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from examples.hubble import stages
from examples.hubble.scene import Exposures, Size


def run(executor: Executor, rows: Sequence[list[Exposures]]) -> dict[str, Any]:
    """Send the tasks, wave after wave; return what the last one made.

    A result is taken from its future and passed on. With the plain executor it is downloaded and
    uploaded again; with ours it is a reference, and goes from worker to worker.
    """
    futures = [[executor.submit(stages.combine, tile) for tile in row] for row in rows]
    # Sent before any result is waited for, all tiles of a row at a time.
    strips = [executor.submit(stages.strip, results(row)) for row in futures]
    del futures
    last = executor.submit(stages.survey, results(strips))
    found: dict[str, Any] = last.result()
    return found


def results(futures: Sequence[Future[Any]]) -> list[Any]:
    """Wait for futures."""
    return [future.result() for future in futures]


def here(rows: Sequence[list[Exposures]]) -> dict[str, Any]:
    """Do the same in this process, to know what the answer should be."""
    strips = [stages.strip([stages.combine(tile) for tile in row]) for row in rows]
    return stages.survey(strips)


def count(size: Size) -> int:
    """Count the tasks."""
    rows, columns = size.grid
    return rows * columns + rows + 1


STAGES: tuple[Callable[..., Any], ...] = (stages.combine, stages.strip, stages.survey)
