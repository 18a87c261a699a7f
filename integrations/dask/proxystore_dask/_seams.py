"""Everything that is used of distributed and is not its public interface.

Each seam is looked for before it is used: `missing` names those that a release of
distributed does not have, and what leans on them stays off there.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from distributed import Client, Nanny, Scheduler, Worker
from distributed.protocol.pickle import dumps
from distributed.protocol.serialize import ToPickle, to_serialize
from distributed.utils_comm import gather_from_workers, retry_operation

try:
    from distributed.client import _MapExpr
except ImportError:
    _MapExpr = None

__all__ = ["ToPickle", "gather_from_workers", "retry_operation", "to_serialize"]

T = TypeVar("T")

_WANTED: dict[type, dict[str, tuple[str, ...]]] = {
    Client: {
        "_graph_to_futures": ("expr", "keys"),
        "_gather_remote": ("direct", "local_worker"),
        "_scatter": ("data", "workers", "broadcast", "direct", "local_worker", "timeout", "hash"),
        "_close": ("fast",),
        "_send_to_scheduler": ("msg",),
        "_start": ("timeout",),
    },
    Worker: {
        "execute": ("key", "stimulus_id"),
        "get_data": ("comm", "keys", "who", "serializers"),
        "update_data": ("data", "stimulus_id"),
        "batched_send": ("msg",),
        "get_metrics": (),
    },
    Scheduler: {
        "gather": ("keys", "serializers"),
        "get_who_has": ("keys",),
        "update_data": ("who_has", "nbytes", "client"),
        "remove_worker": ("address",),
        "add_replica": ("ts", "ws"),
        "worker_send": ("worker", "msg"),
    },
}


def missing(cls: type) -> list[str]:
    """Name the seams of a class that this release of distributed does not have."""
    found = []
    for name, wanted in _WANTED[cls].items():
        try:
            there: Any = inspect.signature(getattr(cls, name)).parameters
        except (AttributeError, TypeError, ValueError):
            there = None
        if there is None or not all(parameter in there for parameter in wanted):
            found.append(f"{cls.__name__}.{name}")
    return found


def map_parts(expr: Any) -> tuple[Any, Iterable[Any], Any, dict[str, Any]] | None:
    """Return function, keys, iterables and keyword arguments of what `Client.map` sends."""
    if _MapExpr is None or type(expr) is not _MapExpr:
        return None
    return (
        expr.operand("func"),
        expr.keys,
        expr.operand("iterables"),
        expr.operand("kwargs"),
    )


# Of clients


def hook(obj: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], None]:
    """Put a function in front of a method of one object; return what undoes it."""
    original = getattr(obj, name)
    setattr(obj, name, make(original))

    def undo() -> None:
        with suppress(AttributeError):
            delattr(obj, name)

    return undo


def send(client: Client, message: dict[str, Any]) -> None:
    """Send a message to the scheduler, in the order of all that this client sends."""
    client._send_to_scheduler(message)


def send_with_next(client: Client, message: dict[str, Any]) -> None:
    """Send a message to the scheduler together with the next one, and before it.

    By itself it would be sent at once, and what comes next be held back for 10 ms.
    """

    def append() -> None:
        comm = client.scheduler_comm
        if hasattr(comm, "buffer"):
            comm.buffer.append(message)
        elif comm is not None:
            comm.send(message)

    client.loop.add_callback(append)


def serves(client: Client) -> bool:
    """Tell whether messages of the client still reach the scheduler."""
    comm = client.scheduler_comm
    return bool(client.scheduler is not None and comm and comm.comm and not comm.comm.closed())


async def gather(client: Client, direct: bool, local_worker: Any, who: str) -> dict[str, Any]:
    """Do what `Client._gather_remote` does, and let the workers know who asks."""
    async with client._gather_semaphore:
        keys = list(client._gather_keys)
        client._gather_keys = None  # keys that are asked for from now on go with the next request
        client._gather_future = None
        if direct or local_worker:
            who_has = await retry_operation(client.scheduler.who_has, keys=keys)
            data, absent, failed, _ = await gather_from_workers(who_has, rpc=client.rpc, who=who)
            response: dict[str, Any] = {"status": "OK", "data": data}
            if absent or failed:
                response = await gather_rest(client, data, absent + failed)
        else:
            response = await retry_operation(client.scheduler.proxystore_gather, keys=keys, who=who)
    return response


async def gather_rest(client: Client, data: dict[Any, Any], keys: list[Any]) -> dict[str, Any]:
    """Ask the scheduler for some keys as plain Dask does, and add what others brought."""
    response: dict[str, Any] = await retry_operation(client.scheduler.gather, keys=keys)
    if response["status"] == "OK":
        response["data"].update(data)
    return response


def finish(client: Client, types: Mapping[Any, type]) -> None:
    """Set the types of finished futures."""
    for key, cls in types.items():
        if key in client.futures:
            client.futures[key].finish(type=cls)


_OFFLOAD = 10 << 20  # from where Dask itself thinks a thread worth it


async def offload(nbytes: int, function: Callable[..., T], *args: Any) -> T:
    """Call a function that copies so many bytes, in a thread if they are many."""
    return function(*args) if nbytes < _OFFLOAD else await asyncio.to_thread(function, *args)


# Of workers


def replace_data(worker: Worker, data: Any) -> None:
    """Let a worker keep its results in another mapping."""
    worker.state.data = data
    worker.memory_manager.data = data


def task_state(worker: Worker, key: Any) -> Any:
    """Return what a worker knows of a task, or `None`."""
    return worker.state.tasks.get(key)


def is_local_comm(worker: Worker) -> bool:
    """Tell whether all that a worker talks to is in its own process."""
    return str(worker.address).startswith("inproc:")


def on_rpc(server: Any, name: str, handler: Callable[..., Any]) -> Callable[[], None]:
    """Answer requests of a name; return what undoes it."""
    before = server.handlers.get(name)
    server.handlers[name] = handler

    def undo() -> None:
        if before is None:
            server.handlers.pop(name, None)
        else:
            server.handlers[name] = before

    return undo


async def call(server: Any, address: str, name: str, **message: Any) -> Any:
    """Send a request to another server and return its answer."""
    return await getattr(server.rpc(address), name)(**message)


def on_stream(server: Any, name: str, handler: Callable[..., Any]) -> Callable[[], None]:
    """Take the messages of a name that a scheduler or worker gets; return what undoes it."""
    server.stream_handlers[name] = handler

    def undo() -> None:
        server.stream_handlers[name] = _ignore  # one that is still on its way must do no harm

    return undo


def _ignore(**message: Any) -> None:
    """Take a message that comes too late."""


def raw(buffer: Any) -> Any:
    """Let bytes, or `None`, be sent without being copied."""
    return None if buffer is None else to_serialize(memoryview(buffer))


# Of nannies


def guard_monitor(nanny: Nanny, may_run: Callable[[int, float], bool]) -> Callable[[], None]:
    """Ask before a nanny looks whether its worker is to be restarted for its memory.

    Args:
        nanny: The nanny.
        may_run: Called with the process id of the worker, and the bytes that it may take.

    Returns:
        What undoes it.
    """
    callback = nanny.periodic_callbacks.get("memory_monitor")
    manager = getattr(nanny, "memory_manager", None)
    limit = getattr(manager, "memory_limit", None)
    fraction = getattr(manager, "memory_terminate_fraction", None)
    if callback is None or not limit or not fraction or not hasattr(callback, "callback"):
        return lambda: None
    original = callback.callback

    def guarded() -> Any:
        pid = getattr(getattr(nanny.process, "process", None), "pid", None)
        if pid is not None and may_run(pid, limit * fraction):
            return original()
        return None

    callback.callback = guarded

    def undo() -> None:
        callback.callback = original

    return undo


# Of the scheduler


def release_what_is_done(scheduler: Scheduler) -> Callable[[], None]:
    """Let go of tasks that were done before the scheduler heard that they are to be forgotten.

    Whoever fires and forgets a short task loses this race now and then, and Dask then
    keeps the task, with all that it needs. Returns what undoes it.
    """
    name, nobody = "client-desires-keys", "fire-and-forget"
    original = scheduler.stream_handlers.get(name)
    if original is None:
        return lambda: None

    def client_desires_keys(keys: Iterable[Any], client: str, **options: Any) -> None:
        keys = list(keys)
        original(keys=keys, client=client, **options)
        tasks = [scheduler.tasks.get(key) for key in keys if client == nobody]
        done = [task.key for task in tasks if task is not None and task.state in _DONE]
        if done:
            scheduler.client_releases_keys(done, client=nobody, stimulus_id="proxystore-done")

    scheduler.stream_handlers[name] = client_desires_keys

    def undo() -> None:
        scheduler.stream_handlers[name] = original

    return undo


_DONE = ("memory", "erred")


def let_run(scheduler: Scheduler, task: Any, run_spec: Any) -> None:
    """Let data that no task made be made by one."""
    task.run_spec = run_spec
    task.priority = task.priority or (0, scheduler.generation, 0)
    spans = scheduler.extensions.get("spans")
    if spans is not None and task.group.span_id is None:  # else a worker that runs it fails
        spans.observe_tasks([task], code=(), span_metadata={})


def tell_worker(scheduler: Scheduler, worker: str, message: dict[str, Any]) -> None:
    """Send a message to a worker, in the order of all that the scheduler sends it."""
    if worker in scheduler.stream_comms:
        scheduler.worker_send(worker, message)


def address_of(scheduler: Scheduler, worker: Any) -> str:
    """Return the address of a worker that may be given by a name."""
    return str(scheduler.coerce_address(worker))


def held_by(scheduler: Scheduler, address: str) -> list[Any]:
    """Return the tasks whose results are on one worker and no other, actors excepted."""
    worker = scheduler.workers.get(address)
    if worker is None:
        return []
    return [
        task
        for task in worker.has_what
        if len(task.who_has) == 1 and task not in worker.actors and task.state == "memory"
    ]


def add_replica(scheduler: Scheduler, task: Any, address: str) -> None:
    """Take note that a worker has, or is about to have, the result of a task, too."""
    scheduler.add_replica(task, scheduler.workers[address])


def least_loaded(scheduler: Scheduler, candidates: Iterable[str], but: str) -> str | None:
    """Return the running worker with the fewest bytes among some, except for one."""
    running = {worker.address: worker for worker in scheduler.running}
    found = [address for address in candidates if address in running and address != but]
    return min(found, key=lambda address: running[address].nbytes, default=None)


async def register_on(
    scheduler: Scheduler, name: str, plugin: Any, for_workers: Any, for_nannies: Any
) -> None:
    """Register plugins from within the scheduler, for itself, all workers and all nannies."""
    await scheduler.register_scheduler_plugin(plugin, name=name, idempotent=True)
    await scheduler.register_worker_plugin(None, dumps(for_workers), name, idempotent=True)
    await scheduler.register_nanny_plugin(None, dumps(for_nannies), name, idempotent=True)


def unpickled(value: Any) -> Any:
    """Return what was sent by `ToPickle`, which in one process arrives as it was sent."""
    return value.data if isinstance(value, ToPickle) else value


async def gather_as(scheduler: Scheduler, keys: list[Any], who: str) -> dict[str, Any]:
    """Do what `Scheduler.gather` does, and let the workers know who asks."""
    data, absent, failed, _ = await gather_from_workers(
        scheduler.get_who_has(keys), rpc=scheduler.rpc, who=who
    )
    if not absent and not failed:
        return {"status": "OK", "data": data}
    response: dict[str, Any] = await scheduler.gather(absent + failed)
    if response["status"] == "OK":
        response["data"].update(data)
    return response
