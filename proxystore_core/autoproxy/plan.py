"""Decides what of a value travels by reference, and puts it into the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from proxystore_core.autoproxy.containers import Shape
from proxystore_core.autoproxy.policy import Policy
from proxystore_core.autoproxy.refs import CARRIERS, Ref
from proxystore_core.autoproxy.sizes import (
    ATOM,
    CLAIMED,
    LENGTH,
    NUMBERS,
    PROXY,
    SMALL,
    STRINGS,
    kind_of,
    rough_size,
)
from proxystore_core.serialize import Parts, SerializationError

_WIDE = 256  # containers with more children are looked at by samples
_EXACT_KINDS = 20_000  # up to here the type of every child is looked at
_SAMPLES = 16


class Sink(Protocol):
    """The side of the planner that knows the store."""

    def known(self, obj: Any) -> Ref | None:
        """Return the reference of an object that is in the store already."""
        ...

    def proxy(self, proxy: Any) -> Any:
        """Return the reference of a proxy of ours, what it stands for, or the proxy itself."""
        ...

    def dump(self, obj: Any) -> Parts:
        """Serialize an object as the store does."""
        ...

    def put(self, obj: Any, parts: Parts) -> Ref | None:
        """Store an object; `None` if it travels by value after all."""
        ...

    def unpicklable(self, top: Any, obj: Any, error: SerializationError) -> None:
        """Raise the error that names `obj` within `top`, or return to leave it in place."""
        ...


class _Node:
    """What is to become of one object."""

    __slots__ = (
        "fixed", "held", "new", "nodes", "obj", "parts", "shape", "size", "store", "unknown",
    )  # fmt: skip

    def __init__(self, obj: Any, size: int, *, unknown: bool = False, store: bool = False) -> None:
        self.obj = obj
        self.new = obj
        self.size = size
        self.unknown = unknown  # only serializing tells its size
        self.store = store
        self.fixed = False  # travels as it is
        self.held = False  # is, or contains, what must not be stored within something else
        self.parts: Parts | None = None
        self.shape: Shape | None = None  # set: some children change
        self.nodes: dict[int, _Node] = {}  # of the children that are no numbers

    @property
    def changes(self) -> bool:
        return self.store or self.new is not self.obj or self.shape is not None


class _CycleError(Exception):
    """A container contains itself."""


class Planner:
    """Encodes the values of one call.

    Args:
        policy: What travels by reference.
        sink: Where it is put.
        put: Put large objects; else only proxies become references.
    """

    def __init__(self, policy: Policy, sink: Sink, *, put: bool) -> None:
        self._policy = policy
        self._sink = sink
        self._limit = policy.nbytes
        self._put = put
        self._weigh = put and policy.should_proxy is None and policy.types is None
        self._memo: dict[int, _Node] = {}
        self._done: dict[int, Any] = {}
        self._above: set[int] = set()
        self._top: Any = None

    def encode(self, value: Any) -> Any:
        """Return the value with references in place of what is large; itself if nothing is."""
        self._top = value
        try:
            node = self._plan(value, self._policy.depth)
        except _CycleError:
            self._above.clear()
            node = _Node(value, self._limit, unknown=True)
            self._memo = {key: kept for key, kept in self._memo.items() if key in self._done}
        self._settle(node)
        return self._build(node)

    def _plan(self, obj: Any, depth: int) -> _Node:
        node = self._memo.get(id(obj))
        if node is None:
            node = self._look(obj, depth)
            self._memo[id(obj)] = node  # holds obj, so the id stays taken
        return node

    def _look(self, obj: Any, depth: int) -> _Node:
        cls = type(obj)
        kind = kind_of(cls)
        policy = self._policy
        if kind is ATOM and policy.should_proxy is None:
            return _fixed(obj)
        if cls in CARRIERS or (policy.exclude and issubclass(cls, policy.exclude)):
            return _fixed(obj, held=True)
        if kind is PROXY:
            return self._look_proxy(obj, depth)
        shape = kind if isinstance(kind, Shape) and depth > 0 else None
        if not self._put:
            return _Node(obj, SMALL) if shape is None else self._open(obj, shape, depth)
        if policy.should_proxy is not None:
            if obj is not None and cls is not bool and policy.should_proxy(obj):
                return self._large(obj, 0)
            return _Node(obj, SMALL) if shape is None else self._open(obj, shape, depth)
        if policy.types is not None and not issubclass(cls, policy.types):
            return _Node(obj, SMALL) if shape is None else self._open(obj, shape, depth)
        if shape is not None and policy.types is None:
            return self._open(obj, shape, depth)
        if isinstance(kind, (str, Shape)):
            size, complete = rough_size(obj, self._limit)
            if size >= self._limit or not complete:
                return self._dumped(obj) if policy.types else _Node(obj, size, unknown=True)
            return _Node(obj, size)
        exact = kind(obj)
        if exact is None:
            return self._dumped(obj) if policy.types else _Node(obj, 0, unknown=True)
        if exact < self._limit:
            return _Node(obj, exact)
        return self._dumped(obj) if kind is CLAIMED else self._large(obj, exact)

    def _look_proxy(self, obj: Any, depth: int) -> _Node:
        new = self._sink.proxy(obj)
        if type(new) is Ref or new is obj:
            return _fixed(obj, new, held=new is not obj)
        return self._plan(new, depth)

    def _large(self, obj: Any, size: int) -> _Node:
        ref = self._sink.known(obj)
        return _Node(obj, size, store=True) if ref is None else _fixed(obj, ref, held=True)

    def _open(self, obj: Any, shape: Shape, depth: int) -> _Node:
        if id(obj) in self._above:
            raise _CycleError
        children = shape.children(obj)
        if len(children) > _WIDE and (node := self._look_wide(obj, children)) is not None:
            return node
        self._above.add(id(obj))
        size = SMALL * (len(children) + 1)
        unknown = changes = held = False
        plain = self._policy.should_proxy is None
        nodes: dict[int, _Node] = {}
        for i, child in enumerate(children):
            cls = type(child)
            if plain and (cls in NUMBERS or (cls in STRINGS and len(child) < self._limit)):
                size += len(child) if cls in STRINGS else 0
                continue  # most of what containers hold: no node for it
            nodes[i] = node = self._plan(child, depth - 1)
            size += 0 if node.store else node.size
            unknown = unknown or node.unknown
            changes = changes or node.changes
            held = held or node.held
        self._above.discard(id(obj))
        if not changes and not held:
            return _Node(obj, size, unknown=unknown and self._weigh)
        for node in nodes.values():
            if not node.changes:
                size -= node.size
                self._settle(node)
                size += 0 if node.store else node.size
        if self._weigh and size >= self._limit and not held:
            return _Node(obj, size, store=True)  # many small things beside the large ones
        made = _Node(obj, size)
        made.shape = shape
        made.nodes = nodes
        made.held = held
        return made

    def _look_wide(self, obj: Any, children: Sequence[Any]) -> _Node | None:
        """Judge a container of very many children by a sample; `None`: look at each."""
        step = 1 if len(children) <= _EXACT_KINDS else len(children) // 1024
        kinds = {kind_of(cls) for cls in set(map(type, children[::step]))}
        if not self._put:
            return (
                None
                if PROXY in kinds or any(isinstance(k, Shape) for k in kinds)
                else (_Node(obj, SMALL))
            )
        if not self._weigh:
            return None
        if kinds <= {ATOM, LENGTH}:  # numbers and strings
            size = SMALL * len(children)
            if LENGTH in kinds:
                size += sum(len(child) for child in children if type(child) in STRINGS)
            return _Node(obj, size // 2, unknown=size >= self._limit)
        if PROXY in kinds or any(not isinstance(kind, (str, Shape)) for kind in kinds - {LENGTH}):
            return None
        sample = children[:: max(1, len(children) // _SAMPLES)]
        total, complete = 0, True
        for child in sample:
            size, known = rough_size(child, self._limit)
            if size >= self._limit:
                return None
            if not known and _holds_proxy(child):
                return None
            total, complete = total + size, complete and known
        size = total * len(children) // len(sample)
        return _Node(obj, size, unknown=not complete or size >= self._limit // 2)

    def _settle(self, node: _Node) -> None:
        """Decide on an object whose size is unknown, or whose small parts add up."""
        if node.fixed or node.changes or not self._weigh:
            return
        if node.unknown or node.size >= self._limit:
            known = self._dumped(node.obj)
            node.parts, node.store, node.size = known.parts, known.store, known.size
            node.unknown = False

    def _dumped(self, obj: Any) -> _Node:
        try:
            parts = self._sink.dump(obj)
        except SerializationError as error:
            self._sink.unpicklable(self._top, obj, error)
            return _Node(obj, SMALL)
        node = _Node(obj, parts.nbytes, store=parts.nbytes >= self._limit)
        node.parts = parts if node.store else None
        return node

    def _build(self, node: _Node) -> Any:
        ident = id(node.obj)
        if ident in self._done:
            return self._done[ident]
        if node.store:
            new = self._store(node)
        elif node.shape is not None:
            children = list(node.shape.children(node.obj))
            changed = False
            for i, child in node.nodes.items():
                children[i] = self._build(child)
                changed = changed or children[i] is not child.obj
            new = node.shape.rebuild(node.obj, children) if changed else node.obj
        else:
            new = node.new
        self._done[ident] = new
        return new

    def _store(self, node: _Node) -> Any:
        try:
            parts = self._sink.dump(node.obj) if node.parts is None else node.parts
            ref = self._sink.put(node.obj, parts)
        except SerializationError as error:
            self._sink.unpicklable(self._top, node.obj, error)
            return node.obj
        finally:
            node.parts = None
        return node.obj if ref is None else ref


def _fixed(obj: Any, new: Any = None, *, held: bool = False) -> _Node:
    node = _Node(obj, 0)
    node.new = obj if new is None else new
    node.fixed = True
    node.held = held
    return node


def _holds_proxy(obj: Any, depth: int = 3) -> bool:
    """Look for a proxy in the containers of a sample."""
    kind = kind_of(type(obj))
    if kind is PROXY:
        return True
    if not isinstance(kind, Shape) or depth == 0:
        return False
    return any(_holds_proxy(child, depth - 1) for child in kind.children(obj)[:_WIDE])
