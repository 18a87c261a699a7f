"""Taking large constants out of task graphs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dask._expr import Expr, HLGExpr, LLGExpr
from dask._task_spec import (
    DataNode,
    Dict,
    GraphNode,
    List,
    NestedContainer,
    Task,
    Tuple,
    convert_legacy_graph,
    parse_input,
)
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from proxystore_core.serialize import Parts
from proxystore_dask._seams import map_parts
from proxystore_dask.access import Handle
from proxystore_dask.lazy import handle_of, has_proxies
from proxystore_dask.memory import Memory
from proxystore_dask.nodes import StoredNode
from proxystore_dask.sizes import estimate, is_foreign
from proxystore_dask.tokens import GivenNode

_SHAPES = (list, tuple, dict)
_INSIDE = 64  # items of a container that is searched
_SMALL = frozenset((bool, float, int, type(None)))


class StoredGraph(Expr):  # type: ignore[misc]  # Dask has no types
    """A graph whose large constants were taken out, with the annotations of its layers."""

    _parameters = ["dsk", "annotations"]  # noqa: RUF012  # as Dask wants it

    def __dask_keys__(self) -> list[Any]:
        return list(self.operand("dsk"))

    def __dask_annotations__(self) -> dict[str, dict[Any, Any]]:
        found: dict[str, dict[Any, Any]] = self.operand("annotations")
        return found

    def _layer(self) -> dict[Any, Any]:
        found: dict[Any, Any] = self.operand("dsk")
        return found


class Taker:
    """Takes large constants out of one graph; the same object is stored once.

    Args:
        memory: Where to store them.

    Attributes:
        needs: For the key of every object that was taken out the tasks that need it.
        stored: Keys of those that were stored for it.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.needs: dict[Any, list[Any]] = {}
        self.stored: list[Any] = []
        self._threshold: int = memory.policy.nbytes
        self._seen: dict[int, tuple[Any, Handle | None]] = {}  # alive, so that ids stay theirs

    def take(self, expr: Any) -> Any:
        """Return the graph with references in place of large constants.

        Where anything fails, what was stored is evicted.
        """
        try:
            return self._take(expr)
        except BaseException:
            self.memory.evict(self.stored)
            raise

    def _take(self, expr: Any) -> Any:
        parts = map_parts(expr)
        if parts is not None:
            func, keys, iterables, kwargs = parts
            constants = (*kwargs.values(), *(i for items in iterables for i in items))
            if not any(map(self.is_large, constants)):
                return expr
            tasks = {}
            parsed = {name: parse_input(value) for name, value in kwargs.items()}
            for key, args in zip(keys, zip(*iterables, strict=False), strict=False):
                task = Task(key, func, *map(parse_input, args), **parsed)
                tasks[key] = self._swap(task, key)
            return LLGExpr(tasks)
        if type(expr) is LLGExpr:
            graph = expr.operand("dsk")
            if not self._any_large(graph.values()):
                return expr
            swapped = {key: self._swap(node, key) for key, node in _nodes(graph)}
            return LLGExpr(swapped, _determ_token=expr.deterministic_token)
        if not any(map(self._any_large, _visible(expr))):
            return expr
        # What the scheduler would do with the graph is done here, and the same way.
        swapped = {key: self._swap(node, key) for key, node in _nodes(expr.__dask_graph__())}
        return StoredGraph(swapped, dict(expr.__dask_annotations__()))

    def store(
        self, obj: Any, key: Any, *, size: int | None = None, parts: Parts | None = None
    ) -> Handle | None:
        """Store an object that the task of a key needs, unless it was; `None` where it stays."""
        handle = handle_of(obj)
        if handle is not None:
            self._seen[id(obj)] = obj, handle  # a result: its proxy holds it meanwhile
        elif id(obj) in self._seen:
            handle = self._seen[id(obj)][1]
        else:
            if self.memory.wants(obj):
                size = estimate(obj, self._threshold) if size is None else size
                handle = self.memory.put(obj, size, parts=parts)
            if handle is not None:
                self.stored.append(handle.key)
            self._seen[id(obj)] = obj, handle
        if handle is not None:
            tasks = self.needs.setdefault(handle.key, [])
            if not tasks or tasks[-1] != key:
                tasks.append(key)
        return handle

    def _any_large(self, nodes: Iterable[Any]) -> bool:
        return any(map(self.is_large, nodes))

    def is_large(self, item: Any) -> bool:
        """Tell whether a constant, or one in a node of a graph, is large."""
        if type(item) in _SMALL:
            return False
        if type(item) is GivenNode:
            return True
        if isinstance(item, DataNode):
            return self.is_large(item.value)
        if isinstance(item, Task):
            values = item.args if isinstance(item, NestedContainer) else _arguments(item)
            return any(self.is_large(value) for value in values)
        if isinstance(item, GraphNode) or is_foreign(type(item)):
            return handle_of(item) is not None
        if type(item) is tuple and item and callable(item[0]):  # a task of the old kind
            return any(self.is_large(value) for value in item[1:])
        if has_proxies() and type(item) in _SHAPES and len(item) <= _INSIDE:
            items = item.values() if isinstance(item, dict) else item
            if any(handle_of(value) is not None or type(value) in _SHAPES for value in items):
                return True
        return estimate(item, self._threshold) >= self._threshold

    def _swap(self, node: Any, key: Any) -> Any:
        if isinstance(node, StoredNode):
            return node
        if type(node) is GivenNode:
            handle = self.store(node.value, key, parts=node.parts)
            return node if handle is None else StoredNode.of(None, handle, self.memory.policy)
        if isinstance(node, DataNode):
            value = self._constant(node.value, key)
            if isinstance(value, StoredNode):
                return value.substitute({}, key=node.key)
            if value is not node.value:  # a container that holds large objects
                return Task(node.key, _same, value)
            return node
        if isinstance(node, NestedContainer):
            args = self._all(node.args, key)
            return node if args is node.args else type(node)(*_arguments_of(node, args))
        if type(node) is Task:
            if node.has_subgraph():
                inner = {name: self._swap(task, key) for name, task in node.args[0].items()}
                return _like(node, (inner, *node.args[1:]), node.kwargs)
            args = self._all(node.args, key)
            values = tuple(node.kwargs.values())
            changed = self._all(values, key)
            if args is node.args and changed is values:
                return node
            return _like(node, args, dict(zip(node.kwargs, changed, strict=True)))
        return node

    def _all(self, values: tuple[Any, ...], key: Any) -> tuple[Any, ...]:
        changed = tuple(self._constant(value, key) for value in values)
        same = all(new is old for new, old in zip(changed, values, strict=True))
        return values if same else changed

    def _constant(self, value: Any, key: Any, depth: int = 0) -> Any:
        if isinstance(value, GraphNode):
            return self._swap(value, key)
        if handle_of(value) is not None:
            return self._node(value, key)
        size = 0 if is_foreign(type(value)) else estimate(value, self._threshold)
        if size < self._threshold and not (has_proxies() and type(value) in _SHAPES):
            return value
        if type(value) in _SHAPES and len(value) <= _INSIDE and depth < self.memory.policy.depth:
            inside = self._inside(value, key, depth)
            if inside is not value:
                return inside
        return value if size < self._threshold else self._node(value, key, size)

    def _node(self, value: Any, key: Any, size: int | None = None) -> Any:
        handle = self.store(value, key, size=size)
        return value if handle is None else StoredNode.of(None, handle, self.memory.policy)

    def _inside(self, value: Any, key: Any, depth: int) -> Any:
        """Look for large objects in a container, so that another one shares them with it."""
        items = list(value.values() if isinstance(value, dict) else value)
        changed = [self._constant(item, key, depth + 1) for item in items]
        if all(new is old for new, old in zip(changed, items, strict=True)):
            return value
        if isinstance(value, dict):
            return Dict(list(zip(value, changed, strict=True)))
        return List(*changed) if isinstance(value, list) else Tuple(*changed)


def _same(value: Any) -> Any:
    return value


def _arguments(task: Any) -> Iterator[Any]:
    for value in (*task.args, *task.kwargs.values()):
        if isinstance(value, dict) and task.has_subgraph():
            yield from value.values()
        else:
            yield value


def _arguments_of(node: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (list(args),) if isinstance(node, Dict) else args


def _like(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return Task(task.key, task.func, *args, _data_producer=task.data_producer, **kwargs)


def _nodes(graph: Any) -> Iterable[tuple[Any, Any]]:
    nodes: dict[Any, Any] = convert_legacy_graph(dict(graph))
    return nodes.items()


def _visible(expr: Any) -> Iterator[Iterable[Any]]:
    """Yield the constants that can be seen in an expression that is not yet a graph."""
    for item in expr.walk():
        if isinstance(item, HLGExpr):
            layers = item.hlg.layers if isinstance(item.hlg, HighLevelGraph) else {}
            for layer in layers.values():
                if isinstance(layer, MaterializedLayer):
                    yield layer.mapping.values()
        else:
            # A frame in memory is wrapped, for Dask to cache what it knows of it.
            yield [
                operand if isinstance(operand, Expr) else getattr(operand, "_data", operand)
                for operand in item.operands
            ]
