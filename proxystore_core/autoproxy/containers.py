"""Containers: what is in them, and how to make one with something else in it."""

from __future__ import annotations

import copy
import copyreg
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

Visit = Callable[[Any], Any]


class Shape:
    """How one kind of container is searched and rebuilt."""

    __slots__ = ()

    def children(self, obj: Any) -> Sequence[Any]:
        """List what is in the container; not to be changed."""
        raise TypeError(f"{type(self).__name__} does not list children.")

    def steps(self, obj: Any) -> list[str]:
        """List how each child is reached, as it is written in code."""
        return [f"[{i}]" for i in range(len(self.children(obj)))]

    def rebuild(self, obj: Any, children: list[Any]) -> Any:
        """Make a container like `obj` of other children, given in the order of `children`."""
        raise TypeError(f"{type(self).__name__} does not rebuild.")


class _Sequence(Shape):
    __slots__ = ("make",)

    def __init__(self, make: Callable[[list[Any]], Any]) -> None:
        self.make = make

    def children(self, obj: Any) -> Sequence[Any]:
        return obj  # type: ignore[no-any-return]  # a list or a tuple

    def rebuild(self, obj: Any, children: list[Any]) -> Any:
        return self.make(children)


class _Named(Shape):
    __slots__ = ()

    def children(self, obj: Any) -> Sequence[Any]:
        return obj  # type: ignore[no-any-return]  # a tuple

    def steps(self, obj: Any) -> list[str]:
        return [f".{name}" for name in obj._fields]

    def rebuild(self, obj: Any, children: list[Any]) -> Any:
        return tuple.__new__(type(obj), children)


class _Set(_Sequence):
    __slots__ = ()

    def children(self, obj: Any) -> Sequence[Any]:
        return list(obj)

    def steps(self, obj: Any) -> list[str]:
        return ["{…}"] * len(obj)


class _Mapping(Shape):
    __slots__ = ()

    def children(self, obj: Any) -> list[Any]:
        return list(obj.values())

    def steps(self, obj: Any) -> list[str]:
        return [f"[{key!r:.60}]" if type(key) is str else f"[{key!r}]" for key in obj]

    def rebuild(self, obj: Any, children: list[Any]) -> Any:
        if type(obj) is dict:
            return dict(zip(obj, children, strict=True))
        new = obj.copy()
        for key, child in zip(obj, children, strict=True):
            new[key] = child
        return new


class _Fields(Shape):
    """Dataclasses and attrs classes."""

    __slots__ = ("names",)

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def _present(self, obj: Any) -> list[str]:
        return [name for name in self.names if hasattr(obj, name)]

    def children(self, obj: Any) -> list[Any]:
        return [getattr(obj, name) for name in self._present(obj)]

    def steps(self, obj: Any) -> list[str]:
        return [f".{name}" for name in self._present(obj)]

    def rebuild(self, obj: Any, children: list[Any]) -> Any:
        names = self._present(obj)
        new = copy.copy(obj)
        for name, child in zip(names, children, strict=True):
            if child is not getattr(obj, name):
                object.__setattr__(new, name, child)  # frozen ones too; runs no validator
        return new


_EXACT: dict[type, Shape] = {
    list: _Sequence(list),
    tuple: _Sequence(tuple),
    set: _Set(set),
    frozenset: _Set(frozenset),
    dict: _Mapping(),
    OrderedDict: _Mapping(),
    defaultdict: _Mapping(),
}
_NAMED = _Named()


def shape_of(cls: type) -> Shape | None:
    """Return how containers of a type are searched, or `None` where they are not."""
    exact = _EXACT.get(cls)
    if exact is not None:
        return exact
    if issubclass(cls, tuple):
        plain = isinstance(getattr(cls, "_fields", None), tuple) and not _custom_copy(cls)
        return _NAMED if plain and cls.__dictoffset__ == 0 else None
    if issubclass(cls, BaseException):
        return None
    names: tuple[str, ...] | None = None
    if "__dataclass_fields__" in cls.__dict__:
        fields = cls.__dict__["__dataclass_fields__"].values()
        names = tuple(field.name for field in fields if field._field_type.name == "_FIELD")
    elif "__attrs_attrs__" in cls.__dict__:
        names = tuple(field.name for field in cls.__dict__["__attrs_attrs__"])
    if names is None or _custom_copy(cls):
        return None
    return _Fields(names)


def inherits(cls: type, *names: str) -> bool:
    """Tell whether a class leaves methods as `object` has them."""
    return all(getattr(cls, name, None) is getattr(object, name, None) for name in names)


def _custom_copy(cls: type) -> bool:
    """Tell whether a class pickles or copies itself in its own way: then it is left alone."""
    if cls in copyreg.dispatch_table or hasattr(cls, "__copy__"):
        return True
    if not inherits(cls, "__reduce_ex__", "__reduce__"):
        return True
    getstate = getattr(cls, "__getstate__", None)
    if inherits(cls, "__getstate__"):
        return False
    return not str(getattr(getstate, "__qualname__", "")).endswith(
        ("_dataclass_getstate", "slots_getstate")
    )


def walk(obj: Any, visit: Visit, *, depth: int, only: Collection[type] | None = None) -> Any:
    """Replace leaves of nested containers.

    Lists, tuples, dictionaries (their values), sets, named tuples, dataclasses and attrs
    classes are searched. An object that appears twice is visited once, and its replacement
    appears twice.

    Args:
        obj: The object to search; it is itself a leaf if it is no container.
        visit: Called with each leaf; returns it, or what takes its place.
        depth: How many levels of containers are opened; deeper ones are leaves.
        only: Visit only leaves of exactly these types.

    Returns:
        `obj` itself where nothing changed; else a copy of the containers on the way to what
        changed. An object that contains itself is returned as it is.
    """
    try:
        return _walk(obj, visit, depth, only, {}, set())
    except _CycleError:
        return obj


class _CycleError(Exception):
    """A container contains itself."""


def _walk(
    obj: Any,
    visit: Visit,
    depth: int,
    only: Collection[type] | None,
    memo: dict[int, tuple[Any, Any]],
    above: set[int],
) -> Any:
    cls = type(obj)
    if only is not None and cls in only:
        shape = None
    else:
        shape = _shape_cached(cls) if depth > 0 else None
        if shape is None and only is not None:
            return obj
    ident = id(obj)
    known = memo.get(ident)
    if known is not None:
        return known[1]
    if shape is None:
        new = visit(obj)
    else:
        if ident in above:
            raise _CycleError
        children = shape.children(obj)
        new = obj
        if only is None or not all(map(_SCALARS.__contains__, set(map(type, children)))):
            above.add(ident)
            changed = [_walk(child, visit, depth - 1, only, memo, above) for child in children]
            above.discard(ident)
            if any(a is not b for a, b in zip(changed, children, strict=True)):
                new = shape.rebuild(obj, changed)
    memo[ident] = (obj, new)  # the object too: its id stays taken
    return new


_SCALARS = frozenset((type(None), bool, int, float, complex, str, bytes))
_shapes: dict[type, Shape | None] = {}


def _shape_cached(cls: type) -> Shape | None:
    try:
        return _shapes[cls]
    except KeyError:
        if len(_shapes) > 4096:  # classes made on the fly
            _shapes.clear()
        shape = _shapes[cls] = shape_of(cls)
        return shape
