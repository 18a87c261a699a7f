"""A worker's part: results that others on the node ask for lie where all can map them.

A result stays a plain object until another worker, or a client, on the same node asks
for it. It is then stored, off the event loop, and what is sent is where it lies.
So what is only used where it was made costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Any

from distributed import Worker, WorkerPlugin

from proxystore_core.autoproxy import Policy
from proxystore_core.exceptions import ProxyStoreError
from proxystore_core.store.config import StoreConfig
from proxystore_dask import _seams, access
from proxystore_dask.access import Handle
from proxystore_dask.fetcher import Fetcher
from proxystore_dask.memory import Memory
from proxystore_dask.nodes import Resolving, stored_in
from proxystore_dask.pages import own_memory
from proxystore_dask.scheduler import NAME
from proxystore_dask.shelf import Shelf, arriving, instead
from proxystore_dask.versions import DaskSetupError, here

logger = logging.getLogger("distributed.worker.proxystore")


class WorkerMemory(WorkerPlugin):  # type: ignore[misc]  # Dask has no types
    """Lets a worker share its large results with its node.

    Args:
        cluster: Id of the scheduler.
        config: A store to use instead of shared memory on every node.
        policy: What is stored.
        version: The version of the client that sends this.
    """

    name = NAME
    idempotent = True

    def __init__(
        self, cluster: str, config: StoreConfig | None, policy: Policy, version: str
    ) -> None:
        self.cluster = cluster
        self.config = config
        self.policy = policy
        self.version = version

    def __getstate__(self) -> dict[str, Any]:
        names = ("cluster", "config", "policy", "version")
        return {name: getattr(self, name) for name in names}

    async def setup(self, worker: Worker) -> None:
        """Open the memory, and put our part in front of the worker's."""
        if self.version != here():
            raise DaskSetupError(f"The worker {worker.address}", here(), self.version)
        self.worker = worker
        self._undo: list[Callable[[], None]] = []
        self._peers: dict[str, bool] = {}
        self._storing: dict[Any, asyncio.Task[Handle | None]] = {}
        self._leads = False
        self.memory = Memory.try_open(self.cluster, self.policy, self.config)
        self._fetcher = Fetcher(worker, self.memory)
        if _seams.missing(Worker):
            return
        self.shelf = Shelf(worker.data, self._tell, self.policy.writable)
        _seams.replace_data(worker, self.shelf)
        for name, make in (
            ("execute", self._make_execute),
            ("get_data", self._make_get_data),
            ("update_data", self._make_update_data),
            ("get_metrics", self._make_get_metrics),
        ):
            self._undo.append(_seams.hook(worker, name, make))
        self._undo.append(_seams.hook(worker.monitor, "get_process_memory", own_memory))
        for name in ("get_data", "update_data"):
            self._undo.append(_seams.on_rpc(worker, name, getattr(worker, name)))
        for name in ("token", "read"):
            self._undo.append(_seams.on_rpc(worker, f"{NAME}_{name}", getattr(self, name)))
        for name in ("evict", "sweep", "inherit", "lead"):
            self._undo.append(_seams.on_stream(worker, f"{NAME}-{name}", getattr(self, name)))
        worker.metrics[NAME] = self._metric
        self._undo.append(lambda: worker.metrics.pop(NAME, None))
        if self.memory is not None:
            # Here, so that what this worker leaves behind if it is killed is known to be its.
            answer = await worker.scheduler.proxystore_hello(
                party=worker.address, prefix=self.memory.prefix
            )
            self._leads = self._leads or answer["leads"]

    async def teardown(self, worker: Worker) -> None:
        """Leave the worker as it was."""
        for undo in reversed(self._undo):
            undo()
        if self._undo:
            for key, handle in list(self.shelf.handles.items()):
                with contextlib.suppress(ProxyStoreError, KeyError):
                    self.shelf.raw[key] = access.get(handle)
            _seams.replace_data(worker, self.shelf.raw)
        if self.memory is not None:
            self.memory.close()

    def token(self) -> str:
        """Name the memory that this worker shares; empty where it shares none."""
        return "" if self.memory is None else self.memory.token

    def _metric(self, worker: Worker) -> dict[str, int]:
        """Count the results that this worker has by reference: bytes that are not its own."""
        handles = self.shelf.handles.values()
        return {"objects": len(handles), "bytes": sum(handle.nbytes for handle in handles)}

    def _make_get_metrics(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def get_metrics() -> Any:
            metrics = await original()
            not_mine = sum(h.nbytes for h in self.shelf.handles.values() if h.kept is None)
            metrics["managed_bytes"] = max(0, metrics["managed_bytes"] - not_mine)
            if self._leads and self.memory is not None:  # counted here for the whole node
                shared = await asyncio.to_thread(self.memory.nbytes)
                metrics["managed_bytes"] += shared
                metrics["memory"] = metrics.get("memory", 0) + shared
            return metrics

        return get_metrics

    # What the scheduler, and workers of other nodes, ask of this node's memory

    def read(self, key: Any) -> dict[str, Any]:
        """Return the stored form of an object, for a worker of another node."""
        stored = _seams.unpickled(key)
        view = None if self.memory is None else self.memory.store.get_view(stored)
        return {"data": _seams.raw(view)}

    async def evict(self, keys: Any) -> None:
        """Remove objects that nobody needs any more."""
        if self.memory is not None:
            await asyncio.to_thread(self.memory.evict, _seams.unpickled(keys))

    async def sweep(self, prefix: Any, known: Any) -> None:
        """Remove what a party of this node that is gone stored, and nobody knows of."""
        if self.memory is not None:
            prefix, known = _seams.unpickled(prefix), _seams.unpickled(known)
            await asyncio.to_thread(self.memory.evict_unknown, prefix, known)

    def inherit(self, handles: Any) -> None:
        """Take over results of a worker that is gone, which lie in this node's memory."""
        self.worker.update_data(data=_seams.unpickled(handles), stimulus_id=f"{NAME}-inherit")

    def lead(self) -> None:
        """Count the bytes of this node's memory from now on."""
        self._leads = True

    def _tell(self, key: Any, handle: Handle) -> None:
        """Tell the scheduler that a result lies in the memory."""
        self.worker.batched_send(
            {"op": f"{NAME}-published", "key": key, "handle": _seams.ToPickle(handle)}
        )

    # Running tasks

    def _make_execute(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def execute(key: Any, *, stimulus_id: str) -> Any:
            task = _seams.task_state(self.worker, key)
            if task is None or task.run_spec is None:
                return await original(key, stimulus_id=stimulus_id)
            handles = {
                dependency.key: handle
                for dependency in task.dependencies
                if (handle := self.shelf.handles.get(dependency.key)) is not None
            }
            async with self._fetcher.reach([*stored_in(task.run_spec), *handles.values()]):
                if not handles:
                    return await original(key, stimulus_id=stimulus_id)
                if not isinstance(task.run_spec, Resolving):
                    lazy = self.policy.resolve == "lazy"
                    task.run_spec = Resolving(task.run_spec, _begin, self.policy.writable, lazy)
                token = instead.set(handles)
                try:
                    return await original(key, stimulus_id=stimulus_id)
                finally:
                    instead.reset(token)

        return execute

    # Handing out results

    def _make_get_data(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def get_data(
            comm: Any,
            keys: Collection[Any],
            who: str | None = None,
            serializers: list[str] | None = None,
        ) -> Any:
            shared = self._may_share(keys) and await self._shares(who)
            given = {}
            for key in keys:
                value = await (self._by_reference(key) if shared else self._by_value(key))
                if value is not None:
                    given[key] = value
            if not given:
                return await original(comm, keys, who=who, serializers=serializers)
            token = instead.set(given)
            try:
                return await original(comm, keys, who=who, serializers=serializers)
            finally:
                instead.reset(token)

        return get_data

    def _may_share(self, keys: Collection[Any]) -> bool:
        if self.memory is None or not self.policy.results or _seams.is_local_comm(self.worker):
            return False
        return any(map(self._is_large, keys))

    def _is_large(self, key: Any) -> bool:
        task = _seams.task_state(self.worker, key)
        return task is not None and (task.nbytes or 0) >= self.policy.nbytes

    async def _shares(self, who: str | None) -> bool:
        """Tell whether the one who asks shares the memory with this worker."""
        if not who:
            return False
        if who.startswith(f"{NAME}:"):
            return who == self.token()
        if who not in self._peers:
            try:
                answer = await _seams.call(self.worker, who, f"{NAME}_token")
            except Exception:  # noqa: BLE001  # whatever is there: it is sent the object
                return False
            self._peers[who] = answer == self.token()
        return self._peers[who]

    async def _by_value(self, key: Any) -> Any:
        """Get an object off the event loop, if it is not here but in a memory."""
        handle = self.shelf.handles.get(key)
        if handle is None:
            return None
        async with self._fetcher.reach([handle]):
            nbytes = 0 if handle.mapped else handle.nbytes
            return await _seams.offload(nbytes, access.get, handle)

    async def _by_reference(self, key: Any) -> Handle | None:
        handle = self.shelf.handles.get(key)
        if handle is not None:
            return handle
        if key not in self.shelf or not self._is_large(key):
            return None
        if key not in self._storing:
            self._storing[key] = asyncio.create_task(self._store(key))
        return await asyncio.shield(self._storing[key])

    async def _store(self, key: Any) -> Handle | None:
        try:
            value = self.shelf.raw[key]
            task = _seams.task_state(self.worker, key)
            if self.memory is None or task is None or not self.memory.wants(value):
                return None
            handle = await _seams.offload(
                task.nbytes or 0, self.memory.put, value, task.nbytes or 0
            )
            if handle is None:
                return None
            if key not in self.shelf.raw or _seams.task_state(self.worker, key) is not task:
                self.memory.evict([handle.key])  # nobody waits for it any more
                return None
            if not handle.mapped:
                handle.kept = (value,)
            self.shelf.hold(key, handle)
            # Later, so as not to compete with the answer; if this worker dies before, it is swept.
            asyncio.get_running_loop().call_later(0.005, self._tell, key, handle)
            return handle
        finally:
            self._storing.pop(key, None)

    def _make_update_data(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def update_data(data: dict[Any, Any], stimulus_id: str | None = None) -> Any:
            token = arriving.set(True)
            try:
                return original(data=data, stimulus_id=stimulus_id)
            finally:
                arriving.reset(token)

        return update_data


def _begin() -> None:
    """Let user code that looks at the worker's data see objects."""
    instead.set(None)
