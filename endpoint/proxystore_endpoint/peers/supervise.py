"""Tasks whose failure ends nothing but themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class Tasks:
    """Background tasks of one owner: kept alive, their failures logged, ended together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.failures = 0

    def start(
        self, work: Coroutine[Any, Any, Any], name: str, *, awaited: bool = False
    ) -> asyncio.Task[Any]:
        """Start a task; once `close` was called it is cancelled at once.

        Args:
            work: What it does.
            name: Its name, for the log.
            awaited: Whether somebody looks at how it ends, so that it need not be logged.
        """
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._seen if awaited else self._done)
        if self._closed:
            task.cancel()
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures += 1
            _log.error("task %s failed", task.get_name(), exc_info=error)

    def _seen(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever awaited it may be gone by now

    async def close(self) -> None:
        """Cancel all, and wait for their ends."""
        self._closed = True
        while tasks := tuple(self._tasks):  # ends may start others
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
