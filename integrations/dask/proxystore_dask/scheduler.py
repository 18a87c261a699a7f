"""The scheduler's part: it knows where each object lies, and how long it is needed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from proxystore_core.autoproxy import Policy
from proxystore_core.store.config import StoreConfig
from proxystore_dask import _seams
from proxystore_dask.access import Handle
from proxystore_dask.books import Books, home_of
from proxystore_dask.memory import Memory
from proxystore_dask.nodemap import NodeMap
from proxystore_dask.nodes import StoredNode

NAME = "proxystore"


class SchedulerMemory(SchedulerPlugin):  # type: ignore[misc]  # Dask has no types
    """Keeps the books of all objects, and evicts what no task needs any more.

    An object that a client stored lives until the last task that needs it is
    forgotten; a result that a worker stored, until it is no longer in memory. What a
    client or worker stored and did not tell of goes when it does.

    Args:
        policy: What the workers store.
        config: A store to use instead of shared memory on every node.
    """

    name = NAME
    idempotent = True

    def __init__(self, policy: Policy, config: StoreConfig | None = None) -> None:
        self.policy = policy
        self.given = config
        self.books = Books()
        self.nodes = NodeMap()
        self._scattered: dict[Any, Handle] = {}
        self._fetching: dict[tuple[Any, str], tuple[str, asyncio.Event]] = {}
        self._held: dict[Any, bytes] = {}  # what came from far and did not fit into the memory
        self._undo: list[Callable[[], None]] = []

    async def start(self, scheduler: Scheduler) -> None:
        """Open the memory, and take the messages about it."""
        self.scheduler = scheduler
        self.memory = Memory.open(scheduler.id, self.policy, self.given)
        self._pool = ThreadPoolExecutor(1, "proxystore-evict")
        for name in ("hello", "gather", "find", "read"):
            self._undo.append(_seams.on_rpc(scheduler, f"{NAME}_{name}", getattr(self, name)))
        for name in ("claim", "upload", "settle", "drop", "published", "copied"):
            self._undo.append(_seams.on_stream(scheduler, f"{NAME}-{name}", getattr(self, name)))
        self._undo.append(_seams.release_what_is_done(scheduler))
        if not _seams.missing(Scheduler):
            for name, make in (
                ("update_data", self._make_update_data),
                ("remove_worker", self._make_remove_worker),
            ):
                self._undo.append(_seams.hook(scheduler, name, make))
            for name, method in (("update_data", "update_data"), ("unregister", "remove_worker")):
                self._undo.append(_seams.on_rpc(scheduler, name, getattr(scheduler, method)))

    async def close(self) -> None:
        """Evict everything, and let go of the memory."""
        if self.given is not None:
            self._evict(self.books.clear())
        self._pool.shutdown()
        self.memory.close()
        for undo in reversed(self._undo):
            undo()

    # Requests

    def hello(self, party: str, prefix: str | None = None) -> dict[str, Any]:
        """Take note of a client or worker and of how its ids begin; tell it where it is."""
        leads = False
        if prefix is not None:
            leads = self.nodes.arrive(party, prefix, is_worker=party in self.scheduler.workers)
        return {
            "config": _seams.to_serialize(self.given),
            "cluster": self.scheduler.id,
            "home": self.memory.home,
            "leads": leads,
        }

    async def gather(self, keys: list[Any], who: str) -> dict[str, Any]:
        """Collect results, by reference where they are large."""
        return await _seams.gather_as(self.scheduler, keys, who)

    async def find(self, key: Any, party: str) -> dict[str, Any]:
        """Tell a worker where an object lies that it cannot reach.

        Returns:
            `copy`, its key in the memory of that worker's own node, if another worker
            there fetched it; else `address` of who has it, and its `key` there. The worker
            then fetches it and says `copied`; others of its node wait for that.
        """
        stored = _seams.unpickled(key)
        home = self.nodes.home_of(party)
        while home:
            copy = self.books.places(stored).get(home)
            if copy is not None:
                return {"copy": _seams.ToPickle(copy), "address": None}
            if (stored, home) not in self._fetching:
                break
            await self._fetching[stored, home][1].wait()
        places = self._places(stored)
        if not places:
            return {"copy": None, "address": None}
        if home:
            self._fetching[stored, home] = party, asyncio.Event()
        address, there = random.choice(places)  # noqa: S311  # nothing to guess
        return {"copy": None, "address": address, "key": _seams.ToPickle(there)}

    def read(self, key: Any) -> dict[str, Any]:
        """Return the stored form of an object, for a worker of another node."""
        stored = _seams.unpickled(key)
        held = self._held.get(stored)
        return {"data": _seams.raw(self.memory.store.get_view(stored) if held is None else held)}

    # Messages

    def claim(self, client: str, needs: Any, scattered: Any = None) -> None:
        """Take note of the tasks that need objects of a client; they may be yet to come.

        The client itself needs them until it settles: a task of the same key may be
        forgotten after this, and before the new one comes.
        """
        for stored, tasks in _seams.unpickled(needs).items():
            self.books.claim(stored, [client, *tasks])
        for task, handle in (_seams.unpickled(scattered) or {}).items():
            self._scattered[task] = handle
            self._reloadable(task)

    def upload(self, client: str, key: Any, data: Any) -> None:
        """Take an object of a client on another node, which needs it until tasks do."""
        stored, buffers = _seams.unpickled(key), _seams.unpickled(data)
        self.books.claim(stored, [client])
        copy = self.memory.put_raw(buffers)
        if copy is not None:
            self._evict(self.books.copied(stored, copy))
        else:
            self._held[stored] = b"".join(buffers)

    def settle(self, client: str, needs: Any) -> None:
        """Take note that the tasks of a claim came; what is needed by none of them goes."""
        for stored, tasks in _seams.unpickled(needs).items():
            came = [task for task in tasks if task in self.scheduler.tasks]
            self.books.claim(stored, [client, *came])
            for task in {client, *tasks}.difference(came):
                self._evict(self.books.release(task, [stored]))

    def drop(self, client: str, needs: Any) -> None:
        """Let go of claims for tasks that will not come."""
        for stored, tasks in _seams.unpickled(needs).items():
            for task in (*tasks, client):
                self._evict(self.books.release(task, [stored]))

    def published(self, worker: str, key: Any, handle: Any) -> None:
        """Take note that a result lies in the memory of a node."""
        handle = _seams.unpickled(handle)
        if self.books.is_needed(handle.key):  # scattered, and passed on from worker to worker
            return
        task = self.scheduler.tasks.get(key)
        if task is None or task.state != "memory":
            self._evict([handle.key])
        else:
            self.books.publish(key, handle)

    def copied(self, worker: str, key: Any, copy: Any) -> None:
        """Take note that a worker fetched an object, or could not."""
        stored, copy = _seams.unpickled(key), _seams.unpickled(copy)
        self._fetched(worker, stored)
        if copy is not None:
            self._evict(self.books.copied(stored, copy))

    # Events

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Evict what a task needed, or was, when that is over."""
        if start == "memory" and finish != "memory":
            self._evict(self.books.unpublish(key))
        if finish == "forgotten":
            self._scattered.pop(key, None)
            self._evict(self.books.release(key))

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Evict what a client stored and no task needs."""
        self._evict(self.books.release(client))
        self._left(client)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Evict what a worker stored and did not tell of."""
        self._fetched(worker)
        self._left(worker)

    def restart(self, scheduler: Scheduler) -> None:
        """Evict everything."""
        self._scattered.clear()
        self._evict(self.books.clear())

    # Helpers

    def _evict(self, keys: Iterable[Any]) -> None:
        """Evict objects, each where it lies."""
        here: list[Any] = []
        far: dict[str, list[Any]] = {}
        for key in keys:
            self._held.pop(key, None)
            home = home_of(key)
            if home in ("", self.memory.home):
                here.append(key)
            else:
                far.setdefault(home, []).append(key)
        if here:
            self._pool.submit(self.memory.evict, here)
        for home, there in far.items():
            worker = self.nodes.worker_at(home)
            if worker is not None:  # else the memory went with the last who was there
                self._tell(worker, "evict", keys=there)

    def _tell(self, worker: str, op: str, **message: Any) -> None:
        message = {name: _seams.ToPickle(value) for name, value in message.items()}
        _seams.tell_worker(self.scheduler, worker, {"op": f"{NAME}-{op}", **message})

    def _places(self, stored: Any) -> list[tuple[str, Any]]:
        """Return who has an object, with its key there."""
        if stored in self._held:
            return [(self.scheduler.address, stored)]
        found = []
        for home, key in self.books.places(stored).items():
            if home == self.memory.home:
                found.append((self.scheduler.address, key))
            elif (worker := self.nodes.worker_at(home)) is not None:
                found.append((worker, key))
        return found

    def _fetched(self, worker: str, stored: Any = None) -> None:
        """Let those go on who wait for a worker to fetch an object, or any."""
        for (key, home), (party, event) in list(self._fetching.items()):
            if party == worker and stored in (None, key):
                del self._fetching[key, home]
                event.set()

    def _left(self, party: str) -> None:
        """Evict what a party that is gone stored and nobody knows of."""
        gone = self.nodes.leave(party)
        if gone is None:
            return
        known = set(self.books)
        if gone.home == self.memory.home:
            self._pool.submit(self.memory.evict_unknown, gone.prefix, known)
        elif gone.other is not None:
            self._tell(gone.other, "sweep", prefix=gone.prefix, known=known)
        else:
            self.books.leave(gone.home)
        if gone.leader is not None:
            self._tell(gone.leader, "lead")

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
            _seams.let_run(self.scheduler, task, StoredNode.of(key, handle, self.policy))

    def _make_remove_worker(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def remove_worker(address: str, **options: Any) -> Any:
            self._hand_on(_seams.address_of(self.scheduler, address))
            return await original(address, **options)

        return remove_worker

    def _hand_on(self, address: str) -> None:
        """Give what lies in a node's memory to another worker there before one is removed."""
        found: dict[str, dict[Any, Handle]] = {}
        for task in _seams.held_by(self.scheduler, address):
            handles = list(self.books.results(task.key))
            if task.key in self._scattered:
                handles.append(self._scattered[task.key])
            for handle in handles:
                heir = self._heir(home_of(handle.key), address)
                if heir is not None:
                    found.setdefault(heir, {})[task.key] = handle
                    _seams.add_replica(self.scheduler, task, heir)
                    break
        for heir, inherited in found.items():
            self._tell(heir, "inherit", handles=inherited)

    def _heir(self, home: str, address: str) -> str | None:
        candidates = self.nodes.workers_at(home) if home else list(self.scheduler.workers)
        return _seams.least_loaded(self.scheduler, candidates, address)
