"""What is put in front of the methods of a client: large constants are stored, results mapped."""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import distributed

from proxystore_core.exceptions import ProxyStoreError
from proxystore_dask import _seams, access
from proxystore_dask.access import Handle
from proxystore_dask.graphs import Taker
from proxystore_dask.lazy import make_proxy
from proxystore_dask.memory import Memory
from proxystore_dask.scatter import make_scatter
from proxystore_dask.scheduler import NAME
from proxystore_dask.tokens import Giver


def sender(client: distributed.Client) -> Callable[..., None]:
    """Return what sends messages to the scheduler, as long as there is a client."""
    found = weakref.ref(client)

    def send(op: str, *, with_next: bool = False, **message: Any) -> None:
        client = found()
        if client is not None and _seams.serves(client):
            message = {name: _seams.ToPickle(value) for name, value in message.items()}
            out = _seams.send_with_next if with_next else _seams.send
            out(client, {"op": f"{NAME}-{op}", **message})

    return send


class Hooks:
    """What was put in front of the methods of one client.

    Args:
        client: The client.
        memory: Its access to the memory of its node, closed with this.
        on_close: Called with the client once it is closed.
    """

    def __init__(
        self,
        client: distributed.Client,
        memory: Memory,
        on_close: Callable[[distributed.Client], None],
    ) -> None:
        self._client = weakref.ref(client)
        self.memory = memory
        self._on_close = on_close
        self._send = sender(client)
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
        self.memory.close()

    def tell(self, op: str, needs: dict[Any, list[Any]], **more: Any) -> None:
        """Tell the scheduler about objects and the tasks that need them."""
        if needs:
            # A claim goes ahead of the graph, a settlement after it: with what comes next.
            alone = op == "drop" or "scattered" in more
            self._send(op, with_next=not alone, needs=needs, **more)

    def _make_submit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        options = _options_of(original)

        @functools.wraps(original)
        def submit(func: Any, *args: Any, **kwargs: Any) -> Any:
            give = self._giver()
            given = {k: v if k in options else give(v) for k, v in kwargs.items()}
            return original(func, *map(give, args), **given)

        return submit

    def _make_map(self, original: Callable[..., Any]) -> Callable[..., Any]:
        options = _options_of(original)

        @functools.wraps(original)
        def map_(func: Any, *iterables: Any, **kwargs: Any) -> Any:
            give = self._giver()
            rows = (
                list(map(give, items)) if type(items) in (list, tuple) else items
                for items in iterables
            )
            given = {k: v if k in options else give(v) for k, v in kwargs.items()}
            return original(func, *rows, **given)

        return map_

    def _giver(self) -> Callable[[Any], Any]:
        client = self._client()
        if not self.memory.policy.args or client is None or not _seams.serves(client):
            return lambda value: value
        return Giver(self.memory).give

    def _make_graph_to_futures(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _graph_to_futures(expr: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
            client = self._client()
            if not self.memory.policy.args or client is None or not _seams.serves(client):
                return original(expr, keys, *args, **kwargs)
            taker = Taker(self.memory)
            expr = taker.take(expr)
            if not taker.needs:
                return original(expr, keys, *args, **kwargs)
            try:
                self.tell("claim", taker.needs)
                futures = original(expr, keys, *args, **kwargs)
                self.tell("settle", taker.needs)
            except BaseException:
                self.memory.evict(taker.stored)
                self.tell("drop", taker.needs)
                raise
            return futures

        return _graph_to_futures

    def _make_gather_remote(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def _gather_remote(direct: bool, local_worker: Any) -> Any:
            client = self._client()
            if client is None or not self.memory.policy.results:
                return await original(direct, local_worker)
            response = await _seams.gather(client, direct, local_worker, self.memory.token)
            if response["status"] != "OK":
                return response
            data = dict(response["data"])
            handles = {key: value for key, value in data.items() if type(value) is Handle}
            if not handles:
                return response
            if self.memory.policy.resolve == "lazy":
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
        writable = self.memory.policy.writable
        return {
            key: make_proxy(handle, writable, distributed.Future(key, client))
            for key, handle in handles.items()
        }

    def _get(self, handle: Handle) -> tuple[Any] | None:
        try:
            return (access.get(handle, writable=self.memory.policy.writable),)
        except ProxyStoreError:
            return None

    def _make_close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def _close(fast: bool = False) -> Any:
            try:
                return await original(fast=fast)
            finally:
                client = self._client()
                if client is not None:
                    self._on_close(client)

        return _close


def _options_of(method: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the keyword arguments that are Dask's own, and not the task's."""
    parameters = inspect.signature(method).parameters.values()
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return frozenset(parameter.name for parameter in parameters if parameter.kind in kinds)
