"""What `map` makes of its calls, and of their futures."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from proxystore_core.proxy import extract, is_proxy


def tasks_of(calls: Iterable[tuple[Any, ...]], chunksize: int) -> Iterable[tuple[Any, ...]]:
    """Make tasks of calls, which take a list of several where `chunksize` is more than one."""
    if chunksize == 1:
        return calls
    several = iter(calls)
    chunks = iter(lambda: list(itertools.islice(several, chunksize)), [])
    return ((chunk,) for chunk in chunks)


def results_of(futures: deque[Any], deadline: float | None, *, chunked: bool) -> Iterator[Any]:
    """Give the results of tasks in their order, and cancel the rest if nobody wants them.

    Args:
        futures: The tasks; each is forgotten with its result.
        deadline: When the last result must be there, as of `time.monotonic`; `None` for never.
        chunked: Each task gives a list of results.

    Raises:
        TimeoutError: If a result is late.
    """
    try:
        while futures:
            value = _result(futures[0], deadline)
            futures.popleft()
            if not chunked:
                yield value
                del value  # the caller may want it gone before the next one
                continue
            values = list(extract(value) if is_proxy(value) else value)
            del value
            values.reverse()
            while values:
                yield values.pop()
    finally:
        for future in futures:
            future.cancel()


def _result(future: Future[Any], deadline: float | None) -> Any:
    return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
