"""Tasks of a daemon that no error ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

_LOG = logging.getLogger(__name__)
_FIRST_S, _LONGEST_S = 0.5, 30.0


class Tasks:
    """The background of a daemon: what fails is logged and begins again.

    Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.restarts = 0

    def keep(self, name: str, work: Callable[[], Awaitable[Any]]) -> None:
        """Run `work` until it returns; when it raises, run it again after a growing pause.

        Args:
            name: For the log.
            work: Makes the coroutine of one run.
        """
        self._start(self._kept(name, work), name)

    def once(self, name: str, work: Awaitable[Any]) -> None:
        """Await something; when it raises, log it."""
        self._start(self._run(name, work), name)

    def _start(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _kept(self, name: str, work: Callable[[], Awaitable[Any]]) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_S
        while True:
            began = loop.time()
            try:
                await work()
            except Exception:  # noqa: BLE001 - logged; the daemon lives on
                _LOG.exception("%s failed; it begins again in %.1f s.", name, pause)
            else:
                return
            self.restarts += 1
            await asyncio.sleep(pause)
            steady = loop.time() - began > _LONGEST_S + pause
            pause = _FIRST_S if steady else min(2 * pause, _LONGEST_S)

    async def _run(self, name: str, work: Awaitable[Any]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - logged; the daemon lives on
            _LOG.exception("%s failed.", name)

    async def close(self) -> None:
        """End all."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def log_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Have an event loop log what nobody handles, and go on."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        _LOG.error("%s", context.get("message", "An error was not handled."), exc_info=error)

    loop.set_exception_handler(handle)
