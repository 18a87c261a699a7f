"""How a worker gets objects that lie in the memory of another node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

from distributed import Worker

from proxystore_dask import _seams, access
from proxystore_dask.access import Handle
from proxystore_dask.memory import Memory
from proxystore_dask.scheduler import NAME

logger = logging.getLogger("distributed.worker.proxystore")

_PAUSES = (0.1, 0.5, 2.0)  # seconds to wait before an object is asked for again


class Fetcher:
    """Fetches objects of other nodes into the memory of this one, each once.

    Args:
        worker: The worker that needs them.
        memory: The memory of its node, or `None` where it has none.
    """

    def __init__(self, worker: Worker, memory: Memory | None) -> None:
        self._worker = worker
        self._memory = memory
        self._bringing: dict[Any, asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def reach(self, handles: Iterable[Handle]) -> AsyncIterator[None]:
        """Have objects on this node for a while, wherever they lie."""
        far = [handle for handle in handles if not access.is_near(handle)]
        if not far:
            yield
            return
        with access.held(far):
            await asyncio.gather(*map(self._bring_once, far))
            yield

    async def _bring_once(self, handle: Handle) -> None:
        if handle.key not in self._bringing:
            if access.is_brought(handle):
                return
            self._bringing[handle.key] = asyncio.create_task(self._bring(handle))
        await asyncio.shield(self._bringing[handle.key])

    async def _bring(self, handle: Handle) -> None:
        """Fetch an object of another node, once for all workers of this one."""
        try:
            for pause in _PAUSES:
                try:
                    copy = await self._copy(handle)
                    break
                except OSError as error:  # who had it may be gone, and another may have it
                    logger.warning("%s could not be fetched: %s", handle, error)
                    await asyncio.sleep(pause)
            else:
                return  # the task says that its argument cannot be reached
            if copy is not None and self._memory is not None:
                config = self._memory.config
                near = Handle(config, copy, handle.nbytes, handle.mapped, handle.info)
                access.remember(handle, near)
        finally:
            del self._bringing[handle.key]

    async def _copy(self, handle: Handle) -> Any:
        """Return the key of a copy on this node, made if need be, or `None`."""
        wanted, copy = _seams.ToPickle(handle.key), None
        found = await self._worker.scheduler.proxystore_find(key=wanted, party=self._worker.address)
        address = found["address"]
        if address is None:
            return _seams.unpickled(found["copy"])
        try:
            there = _seams.ToPickle(_seams.unpickled(found["key"]))
            answer = await _seams.call(self._worker, address, f"{NAME}_read", key=there)
            data = answer["data"]
            if data is not None and self._memory is not None:
                copy = await asyncio.to_thread(self._memory.put_raw, [data])
            if data is not None and copy is None:  # there is no room to share it
                access.bring(handle, data)
            return copy
        finally:
            self._worker.batched_send(
                {"op": f"{NAME}-copied", "key": wanted, "copy": _seams.ToPickle(copy)}
            )
