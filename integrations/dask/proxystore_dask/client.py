"""A client's part: large constants are stored before the graph is sent."""

from __future__ import annotations

import asyncio
import functools
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dask.config
import distributed
from distributed import Scheduler, Worker

from proxystore_core.autoproxy import Policy
from proxystore_core.exceptions import ExecutorConfigError, ProxyStoreError
from proxystore_core.store import Store
from proxystore_dask import _seams, memory
from proxystore_dask.graphs import Taker
from proxystore_dask.lazy import make_proxy
from proxystore_dask.memory import FarMemory, Handle, Memory
from proxystore_dask.pages import NannyMemory
from proxystore_dask.scatter import make_scatter
from proxystore_dask.scheduler import NAME, SchedulerMemory
from proxystore_dask.tokens import Giver
from proxystore_dask.versions import check, here
from proxystore_dask.worker import WorkerMemory

_enabled: weakref.WeakKeyDictionary[Any, Enabled] = weakref.WeakKeyDictionary()


def enable(
    client: distributed.Client,
    threshold: int | str | None = None,
    *,
    policy: Policy | None = None,
    store: Store[Any] | None = None,
) -> Any:
    """Let large arguments and results of a client's tasks travel by reference.

    The scheduler and the workers, those included that come later, learn it from the
    first client that does this. Arrays arrive as private memory that can be written to,
    unless the policy says otherwise.

    Args:
        client: A connected client.
        threshold: Smallest size that travels by reference, in bytes or as `'1 MB'`, which
            is the default.
        policy: What else decides about what travels by reference, and how.
        store: A store that all nodes reach, to use instead of shared memory. It is emptied
            of what was put into it, but stays open.

    Returns:
        Nothing; something to await where the client is asynchronous.

    Raises:
        DaskSetupError: If the scheduler or a worker cannot import this package, or has
            another version of it.
        ExecutorConfigError: If an option is not what it should be.
    """
    used = _policy(threshold, policy)
    if store is not None and not isinstance(store, Store):
        raise ExecutorConfigError(f"store must be a Store or None, not {store!r}")
    return client.sync(_enable, client, used, store)


def disable(client: distributed.Client) -> None:
    """Let the arguments and results of a client travel as in plain Dask again.

    What is stored stays as long as its tasks. The workers go on to exchange large
    results by reference until the cluster ends.
    """
    enabled = _enabled.pop(client, None)
    if enabled is not None:
        enabled.close()


def is_enabled(client: distributed.Client) -> bool:
    """Tell whether large arguments and results of a client travel by reference."""
    return client in _enabled


async def dask_setup(server: Any) -> None:
    """Enable a client or a whole cluster, for Dask's preloads.

    As `distributed.client.preload` it enables the client; as `distributed.scheduler.preload`
    it lets the workers share results from the start, whatever clients come. Workers and
    nannies, which learn it from the scheduler, may preload it, too: it then does nothing
    there but to fail early where the package is missing.

    The configuration entries `proxystore.threshold` and `proxystore.writable` are heeded.
    """
    if isinstance(server, Scheduler):
        policy = _policy(None, None)
        scheduler, worker, nanny = (
            SchedulerMemory(policy), WorkerMemory(server.id, None, policy, here()), NannyMemory()
        )  # fmt: skip
        await _seams.register_on(server, NAME, scheduler, worker, nanny)
    elif isinstance(server, distributed.Client) and server not in _enabled:
        await _enable(server, _policy(None, None), None)


class Client(distributed.Client):  # type: ignore[misc]  # Dask has no types
    """A Dask client whose large arguments and results travel by reference.

    Args:
        ps_store: A store that all nodes reach; by default the shared memory of the node.
        ps_threshold: Smallest size that travels by reference, in bytes.
    """

    def __init__(
        self,
        *args: Any,
        ps_store: Store[Any] | None = None,
        ps_threshold: int | str = 100_000,
        **kwargs: Any,
    ) -> None:
        self._ps_options = _policy(ps_threshold, None), ps_store
        super().__init__(*args, **kwargs)

    async def _start(self, *args: Any, **kwargs: Any) -> Any:
        started = await super()._start(*args, **kwargs)
        if self not in _enabled:
            await _enable(self, *self._ps_options)
        return started


def _policy(threshold: int | str | None, policy: Policy | None) -> Policy:
    if policy is not None and not isinstance(policy, Policy):
        raise ExecutorConfigError(f"policy must be a Policy or None, not {policy!r}")
    writable = dask.config.get("proxystore.writable", True)
    default = dask.config.get("proxystore.threshold", "1 MB")
    try:
        if policy is None:
            policy = Policy(threshold=default, writable=writable)
        return policy if threshold is None else replace(policy, threshold=threshold)
    except (TypeError, ValueError) as error:
        raise ExecutorConfigError(f"threshold={threshold!r}: {error}") from error


async def _enable(client: distributed.Client, policy: Policy, store: Store[Any] | None) -> None:
    if client in _enabled:
        disable(client)
    absent = [
        name for cls in (distributed.Client, Worker, Scheduler) for name in _seams.missing(cls)
    ]
    if absent:
        warnings.warn(
            f"This release of distributed ({distributed.__version__}) has no {', '.join(absent)}: "
            "arguments and results travel as in plain Dask.",
            stacklevel=2,
        )
        return
    await check(client)
    config = None if store is None else store.config()
    await client.register_plugin(SchedulerMemory(policy, config), name=NAME)
    there = await client.scheduler.proxystore_hello(party=client.id)
    config, cluster = there["config"], there["cluster"]
    mine = Memory.try_open(cluster, policy, config)
    if mine is not None and mine.home != there["home"]:
        mine = FarMemory(mine, _sender(client))
    prefix = None if mine is None else mine.prefix
    await client.scheduler.proxystore_hello(party=client.id, prefix=prefix)
    await client.register_plugin(WorkerMemory(cluster, config, policy, here()), name=NAME)
    await client.register_plugin(NannyMemory(), name=NAME)
    if mine is None:
        warnings.warn(
            "This client can reach no memory of its node: its arguments, and the results that it "
            "gathers, travel as in plain Dask. Between workers results travel by reference.",
            stacklevel=2,
        )
        return
    _enabled[client] = Enabled(client, mine)


def _sender(client: distributed.Client) -> Callable[..., None]:
    """Return what sends messages to the scheduler, as long as there is a client."""
    found = weakref.ref(client)

    def send(op: str, *, with_next: bool = False, **message: Any) -> None:
        client = found()
        if client is not None and _seams.serves(client):
            message = {name: _seams.ToPickle(value) for name, value in message.items()}
            out = _seams.send_with_next if with_next else _seams.send
            out(client, {"op": f"{NAME}-{op}", **message})

    return send


class Enabled:
    """What was put in front of the methods of one client.

    Args:
        client: The client.
        memory: Its access to the memory of its node, closed with this.
    """

    def __init__(self, client: distributed.Client, memory: Memory) -> None:
        self._client = weakref.ref(client)
        self._memory = memory
        self._send = _sender(client)
        self._undo = [
            _seams.hook(client, "submit", self._make_submit),
            _seams.hook(client, "map", self._make_map),
            _seams.hook(client, "_graph_to_futures", self._make_graph_to_futures),
            _seams.hook(client, "_gather_remote", self._make_gather_remote),
            _seams.hook(client, "_close", self._make_close),
            _seams.hook(client, "_scatter", make_scatter(client, memory, self.tell)),
        ]

    def close(self) -> None:
        """Give the client its methods back, and let go of the memory."""
        for undo in self._undo:
            undo()
        self._memory.close()

    def tell(self, op: str, needs: dict[Any, list[Any]], **more: Any) -> None:
        """Tell the scheduler about objects and the tasks that need them."""
        if needs:
            # A claim goes ahead of the graph, a settlement after it: with what comes next.
            alone = op == "drop" or "scattered" in more
            self._send(op, with_next=not alone, needs=needs, **more)

    def _make_submit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def submit(func: Any, *args: Any, **kwargs: Any) -> Any:
            give = self._giver()
            args = tuple(map(give, args))
            return original(func, *args, **{name: give(v) for name, v in kwargs.items()})

        return submit

    def _make_map(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def map_(func: Any, *iterables: Any, **kwargs: Any) -> Any:
            give = self._giver()
            given = (
                list(map(give, items)) if type(items) in (list, tuple) else items
                for items in iterables
            )
            return original(func, *given, **{name: give(v) for name, v in kwargs.items()})

        return map_

    def _giver(self) -> Callable[[Any], Any]:
        client = self._client()
        if not self._memory.policy.args or client is None or not _seams.serves(client):
            return lambda value: value
        return Giver(self._memory).give

    def _make_graph_to_futures(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _graph_to_futures(expr: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
            client = self._client()
            if not self._memory.policy.args or client is None or not _seams.serves(client):
                return original(expr, keys, *args, **kwargs)
            taker = Taker(self._memory)
            expr = taker.take(expr)
            if not taker.needs:
                return original(expr, keys, *args, **kwargs)
            try:
                self.tell("claim", taker.needs)
                futures = original(expr, keys, *args, **kwargs)
                self.tell("settle", taker.needs)
            except BaseException:
                self._memory.evict(taker.stored)
                self.tell("drop", taker.needs)
                raise
            return futures

        return _graph_to_futures

    def _make_gather_remote(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def _gather_remote(direct: bool, local_worker: Any) -> Any:
            client = self._client()
            if client is None or not self._memory.policy.results:
                return await original(direct, local_worker)
            response, _ = await _seams.gather(client, direct, local_worker, self._memory.token)
            if response["status"] != "OK":
                return response
            data = dict(response["data"])
            handles = {key: value for key, value in data.items() if type(value) is Handle}
            if not handles:
                return response
            if self._memory.policy.resolve == "lazy":
                return {**response, "data": data | self._proxies(client, handles)}
            found = await asyncio.gather(
                *(
                    _seams.offload(0 if handle.mapped else handle.nbytes, self._get, handle)
                    for handle in handles.values()
                )
            )
            lost = []
            for key, got in zip(handles, found, strict=True):
                if got is None:
                    lost.append(key)
                    del data[key]
                else:
                    data[key] = got[0]
            if lost:  # the worker that had them is gone: Dask knows what to do
                return await _seams.gather_rest(client, data, lost)
            return {**response, "data": data}

        return _gather_remote

    def _proxies(self, client: Any, handles: dict[Any, Handle]) -> dict[Any, Any]:
        writable = self._memory.policy.writable
        return {
            key: make_proxy(handle, writable, distributed.Future(key, client))
            for key, handle in handles.items()
        }

    def _get(self, handle: Handle) -> tuple[Any] | None:
        try:
            return (memory.get(handle, writable=self._memory.policy.writable),)
        except ProxyStoreError:
            return None

    def _make_close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def _close(fast: bool = False) -> Any:
            try:
                return await original(fast=fast)
            finally:
                client = self._client()
                if client is not None:
                    disable(client)

        return _close
