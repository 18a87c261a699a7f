"""Nodes of a task graph that stand for stored objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dask._task_spec import DataNode, GraphNode, NestedContainer, Task

from proxystore_core.autoproxy import Policy
from proxystore_dask import access
from proxystore_dask.access import Handle
from proxystore_dask.lazy import make_proxy


class StoredNode(DataNode):  # type: ignore[misc]  # Dask has no types
    """A constant that lies in the memory of the node until a worker executes its task.

    Args:
        key: Its key in the graph, or `None` for an argument of a task.
        handle: Where the object lies.
        writable: Whether the task gets private memory that it can write to.
        lazy: Whether the task gets a proxy.
    """

    def __init__(self, key: Any, handle: Handle, writable: bool = True, lazy: bool = False) -> None:
        super().__init__(("stored", str(handle.key)) if key is None else key, None)
        self.typ = object
        self.handle = handle
        self.writable = writable
        self.lazy = lazy

    @classmethod
    def of(cls, key: Any, handle: Handle, policy: Policy) -> StoredNode:
        """Return a node that hands out an object as a policy says."""
        return cls(key, handle, policy.writable, policy.resolve == "lazy")

    def __call__(self, values: object = ()) -> Any:
        """Return the object."""
        if self.lazy:
            return make_proxy(self.handle, self.writable)
        return access.get(self.handle, writable=self.writable)

    def copy(self) -> StoredNode:
        """Return a node of the same object."""
        return StoredNode(self.key, self.handle, self.writable, self.lazy)

    def substitute(self, subs: Mapping[Any, Any], key: Any = None) -> StoredNode:
        """Return this node, under another key if one is given."""
        if key is not None and key != self.key:
            return StoredNode(key, self.handle, self.writable, self.lazy)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredNode, (self.key, self.handle, self.writable, self.lazy)

    def __repr__(self) -> str:
        return f"StoredNode({self.handle!r})"

    def __iter__(self) -> Iterator[Any]:
        return iter(self())

    def __dask_tokenize__(self) -> Any:
        return self.handle.__dask_tokenize__()

    def __sizeof__(self) -> int:
        return 256


class Resolving(GraphNode):  # type: ignore[misc]  # Dask has no types
    """A task that gets objects for the handles among its inputs, in the thread that runs it.

    Args:
        inner: The task.
        begin: Called in that thread before anything else.
        writable: Whether the task gets private memory that it can write to.
        lazy: Whether the task gets proxies.
    """

    def __init__(
        self,
        inner: Any,
        begin: Callable[[], object] | None = None,
        writable: bool = True,
        lazy: bool = False,
    ) -> None:
        self.key = inner.key
        self.inner = inner
        self.begin = begin
        self.writable = writable
        self.lazy = lazy
        self._dependencies = inner.dependencies

    @property
    def is_coro(self) -> bool:
        """Whether the task is a coroutine."""
        return bool(self.inner.is_coro)

    def __call__(self, values: Mapping[Any, Any]) -> Any:
        """Run the task."""
        if self.begin is not None:
            self.begin()
        return self.inner({key: self._real(value) for key, value in values.items()})

    def _real(self, value: Any) -> Any:
        if type(value) is not Handle:
            return value
        if self.lazy:
            return make_proxy(value, self.writable)
        obj = access.get(value, writable=self.writable)
        if not value.mapped:  # the next task here gets it at no cost, as without us
            value.kept = (obj,)
        return obj

    def __reduce__(self) -> tuple[Any, ...]:
        return Resolving, (self.inner, None, self.writable, self.lazy)

    def __repr__(self) -> str:
        return repr(self.inner)


def stored_in(node: Any) -> Iterator[Handle]:
    """Yield the handles of all stored objects that a node, or one inside it, stands for."""
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, StoredNode):
            yield item.handle
        elif isinstance(item, Resolving):
            stack.append(item.inner)
        elif isinstance(item, Task):
            stack.extend(a for a in item.args if isinstance(a, (GraphNode, dict)))
            if not isinstance(item, NestedContainer):
                stack.extend(a for a in item.kwargs.values() if isinstance(a, GraphNode))
        elif isinstance(item, dict):  # of a fused task
            stack.extend(value for value in item.values() if isinstance(value, GraphNode))
