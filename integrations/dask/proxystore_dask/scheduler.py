"""The scheduler's part: it owns the memory, and knows how long each object is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from proxystore_core.autoproxy import Policy
from proxystore_core.store import Store
from proxystore_core.store.config import StoreConfig
from proxystore_dask import _seams
from proxystore_dask.memory import Handle, Memory
from proxystore_dask.nodes import StoredNode

NAME = "proxystore"


class SchedulerMemory(SchedulerPlugin):  # type: ignore[misc]  # Dask has no types
    """Owns the memory of the scheduler's node, and evicts what no task needs any more.

    An object that a client stored lives until the last task that needs it is
    forgotten; a result that a worker stored, until it is no longer in memory. What a
    client or worker stored and did not tell of goes when it does.

    Args:
        policy: What the workers store.
        config: A store to use instead of shared memory of the scheduler's own.
    """

    name = NAME
    idempotent = True

    def __init__(self, policy: Policy, config: StoreConfig | None = None) -> None:
        self.policy = policy
        self._given = config
        self._args: dict[Any, set[Any]] = {}  # task -> objects that it needs
        self._needed: dict[Any, set[Any]] = {}  # object -> tasks that need it
        self._results: dict[Any, set[Any]] = {}  # task -> objects that are its result
        self._scattered: dict[Any, Handle] = {}
        self._prefixes: dict[str, str] = {}  # client or worker -> how its ids begin
        self._undo: list[Callable[[], None]] = []

    async def start(self, scheduler: Scheduler) -> None:
        """Make the memory, and take the messages about it."""
        self.scheduler = scheduler
        store: Store[Any]
        store = Store("dask-" + scheduler.id) if self._given is None else self._attach(self._given)
        self.memory = Memory(store, self.policy)
        self._pool = ThreadPoolExecutor(1, "proxystore-evict")
        for name in ("hello", "gather", "fetch"):
            self._undo.append(_seams.on_rpc(scheduler, f"{NAME}_{name}", getattr(self, name)))
        for name in ("claim", "settle", "drop", "published"):
            self._undo.append(_seams.on_stream(scheduler, f"{NAME}-{name}", getattr(self, name)))
        if not _seams.missing(Scheduler):
            self._undo.append(_seams.hook(scheduler, "update_data", self._make_update_data))
            self._undo.append(_seams.on_rpc(scheduler, "update_data", scheduler.update_data))

    @staticmethod
    def _attach(config: StoreConfig) -> Store[Any]:
        return Store.from_config(config)

    async def close(self) -> None:
        """Remove the memory with all that is in it."""
        if self._given is not None:
            self._evict([*self._needed, *(key for keys in self._results.values() for key in keys)])
        self._pool.shutdown()
        self.memory.close()
        for undo in self._undo:
            undo()

    # Requests

    def hello(self, party: str, prefix: str | None = None) -> dict[str, Any]:
        """Tell a client or worker which store this is, and take note how its ids begin."""
        if prefix is not None:
            self._prefixes[party] = prefix
        return {"config": _seams.to_serialize(self.memory.config)}

    async def gather(self, keys: list[Any], who: str) -> dict[str, Any]:
        """Collect results, by reference where they are large."""
        return await _seams.gather_as(self.scheduler, keys, who)

    async def fetch(self, key: Any) -> dict[str, Any]:
        """Return the stored form of an object, for a worker that cannot reach the memory."""
        view = self.memory.store.get_view(_seams.unpickled(key))
        return {"data": _seams.to_serialize(None if view is None else bytes(view))}

    # Messages

    def claim(self, client: str, needs: Any, scattered: Any = None) -> None:
        """Take note of the tasks that need objects of a client; they may be yet to come."""
        for stored, tasks in _seams.unpickled(needs).items():
            self._needed.setdefault(stored, set()).update(tasks)
            for task in tasks:
                self._args.setdefault(task, set()).add(stored)
        for task, handle in (_seams.unpickled(scattered) or {}).items():
            self._scattered[task] = handle
            self._reloadable(task)

    def settle(self, client: str, needs: Any) -> None:
        """Let go of claims for tasks that did not come."""
        for stored, tasks in _seams.unpickled(needs).items():
            for task in tasks:
                if task not in self.scheduler.tasks:
                    self._release(task, stored)

    def drop(self, client: str, needs: Any) -> None:
        """Let go of claims for tasks that will not come."""
        for stored, tasks in _seams.unpickled(needs).items():
            for task in tasks:
                self._release(task, stored)
            self._evict([stored])

    def published(self, worker: str, key: Any, stored: Any) -> None:
        """Take note that a result lies in the memory."""
        stored = _seams.unpickled(stored)
        if stored in self._needed:  # scattered, and passed on from worker to worker
            return
        task = self.scheduler.tasks.get(key)
        if task is None or task.state != "memory":
            self._evict([stored])
        else:
            self._results.setdefault(key, set()).add(stored)

    # Events

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Evict what a task needed, or was, when that is over."""
        if start == "memory" and finish != "memory" and key in self._results:
            self._evict(self._results.pop(key))
        if finish == "forgotten":
            self._scattered.pop(key, None)
            for stored in tuple(self._args.get(key, ())):
                self._release(key, stored)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Evict what a client stored and no task needs."""
        self._sweep(client)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Evict what a worker stored and did not tell of."""
        self._sweep(worker)

    def restart(self, scheduler: Scheduler) -> None:
        """Evict everything."""
        known = [*self._needed, *(key for keys in self._results.values() for key in keys)]
        for table in (self._args, self._needed, self._results, self._scattered):
            table.clear()
        self._evict(known)

    # Helpers

    def _release(self, task: Any, stored: Any) -> None:
        mine = self._args.get(task, set())
        mine.discard(stored)
        if not mine:
            self._args.pop(task, None)
        needing = self._needed.get(stored)
        if needing is not None:
            needing.discard(task)
            if not needing:
                del self._needed[stored]
                self._evict([stored])

    def _evict(self, keys: Iterable[Any]) -> None:
        keys = list(keys)
        if keys:
            self._pool.submit(self.memory.evict, keys)

    def _sweep(self, party: str) -> None:
        prefix = self._prefixes.pop(party, None)
        if prefix is None:
            return
        known = set(self._needed).union(*self._results.values())
        self._pool.submit(self._evict_unknown, prefix, known)

    def _evict_unknown(self, prefix: str, known: set[Any]) -> None:
        stored: Iterable[Any] = self.memory.store.keys()
        self.memory.evict(
            [key for key in stored if key.object_id.startswith(prefix) and key not in known]
        )

    def _make_update_data(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def update_data(
            *, who_has: dict[Any, list[str]], nbytes: dict[Any, int], client: str | None = None
        ) -> Any:
            answer = original(who_has=who_has, nbytes=nbytes, client=client)
            for key in who_has:
                self._reloadable(key)
            return answer

        return update_data

    def _reloadable(self, key: Any) -> None:
        """Let scattered data be loaded again when the worker that has it dies."""
        handle = self._scattered.get(key)
        task = self.scheduler.tasks.get(key)
        if handle is not None and task is not None and task.run_spec is None:
            task.run_spec = StoredNode(key, handle, self.policy.writable)
            task.priority = task.priority or (0, self.scheduler.generation, 0)
