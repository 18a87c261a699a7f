"""Which serializer takes which type; anyone can add to it."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from proxystore_core.serialize.layout import Pieces

TypeSpec: TypeAlias = type | str
"""A type, or its name as `'package.module:Class'`."""

Dumped: TypeAlias = tuple[Pieces, Sequence[Pieces]] | None
"""In-band data and out-of-band buffers, or `None` to leave an object to pickle."""

RAW = "raw"
PICKLE = "pickle"
_HEAP_TYPE = 1 << 9


@runtime_checkable
class Serializer(Protocol):
    """Turns objects of some types into bytes and back.

    A class attribute `writable = True` says that `load` needs buffers that are
    writable and nobody else's.
    """

    identifier: str
    """What stored objects name it by: ASCII, 1 to 16 characters, never reused."""

    def dump(self, obj: Any) -> Dumped:
        """Return the in-band data and the out-of-band buffers of an object.

        In-band data is for what is small: its checksum is always verified.
        Buffers are views of the object's own memory where that is possible.
        Each may be given as a list of pieces to concatenate. Return
        `None` to leave this object to pickle.
        """
        ...

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Any:
        """Return the object, as views of the buffers where that is possible."""
        ...


class _Entry(NamedTuple):
    serializer: Serializer
    subclasses: bool


_lock = Lock()
_by_id: dict[str, Serializer] = {}
_by_type: dict[type, _Entry] = {}
_by_name: dict[str, _Entry] = {}
_unregistered: set[type] = set()  # builtin types only: they live for ever anyway


def register_serializer(
    types: TypeSpec | tuple[TypeSpec, ...],
    serializer: Serializer,
    *,
    exist_ok: bool = False,
    subclasses: bool = True,
) -> None:
    """Let a serializer take objects of some types.

    Args:
        types: A type, the name of a type as `'package.module:Class'` (its module
            is not imported for that), or a tuple of them.
        serializer: The serializer. Every process that loads such objects has to
            register it too.
        exist_ok: Replace what is registered for the same types or identifier.
        subclasses: Whether objects of subclasses are taken too, unless a class
            closer to theirs is registered.

    Raises:
        ValueError: If the identifier is malformed, or identifier or type are taken.
        TypeError: If `types` or `serializer` is something else.
    """
    specs = types if isinstance(types, tuple) else (types,)
    _check(specs, serializer)
    entry = _Entry(serializer, subclasses)
    with _lock:
        other = _by_id.get(serializer.identifier)
        if other is not None and other is not serializer:
            if not exist_ok:
                raise ValueError(
                    f"A serializer {serializer.identifier!r} is registered already: "
                    "choose another identifier, or pass exist_ok=True to replace it."
                )
            _forget(other)
        taken = [spec for spec in specs if spec in _by_type or spec in _by_name]
        if taken and not exist_ok:
            raise ValueError(
                f"A serializer for {taken[0]!r} is registered already: "
                "pass exist_ok=True to replace it."
            )
        _by_id[serializer.identifier] = serializer
        for spec in specs:
            if isinstance(spec, str):
                _by_name[spec] = entry
                # `find` binds types that it met under their names.
                for cls in [cls for cls in _by_type if _name(cls) == spec]:
                    del _by_type[cls]
            else:
                _by_type[spec] = entry
        _unregistered.clear()


def unregister_serializer(identifier: str) -> None:
    """Forget a serializer; its objects cannot be loaded any more.

    Raises:
        KeyError: If there is none of this identifier.
        ValueError: If it is the one that everything falls back to.
    """
    if identifier == PICKLE:
        raise ValueError("The pickle serializer cannot be unregistered.")
    with _lock:
        if identifier not in _by_id:
            raise KeyError(f"No serializer {identifier!r} is registered.")
        _forget(_by_id.pop(identifier))


def by_identifier(identifier: str) -> Serializer | None:
    """Return the serializer of this identifier, or `None`."""
    return _by_id.get(identifier)


def find(cls: type) -> Serializer | None:
    """Return the serializer registered for objects of a class, or `None`."""
    entry = _by_type.get(cls)
    if entry is not None:
        return entry.serializer
    if cls in _unregistered:
        return None
    for base in cls.__mro__:
        entry = _by_type.get(base)
        if entry is None:
            entry = _by_name.get(_name(base))
            if entry is None:
                continue
            _by_type[base] = entry
        if base is cls or entry.subclasses:
            return entry.serializer
    if not cls.__flags__ & _HEAP_TYPE:
        _unregistered.add(cls)
    return None


def _forget(serializer: Serializer) -> None:
    for cls in [cls for cls, entry in _by_type.items() if entry.serializer is serializer]:
        del _by_type[cls]
    for name in [name for name, entry in _by_name.items() if entry.serializer is serializer]:
        del _by_name[name]


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _check(specs: tuple[TypeSpec, ...], serializer: Serializer) -> None:
    if not isinstance(serializer, Serializer):
        raise TypeError(
            f"A serializer needs `identifier`, `dump` and `load`, which {serializer!r} has not."
        )
    name = serializer.identifier
    if not (isinstance(name, str) and name.isascii() and name.isprintable() and 0 < len(name) < 17):
        raise ValueError(
            f"The identifier of a serializer is 1 to 16 printable ASCII characters, not {name!r}."
        )
    if name == RAW:
        raise ValueError(f"The identifier {name!r} is taken: choose another one.")
    for spec in specs:
        if isinstance(spec, str):
            if not all(spec.partition(":")):
                raise ValueError(f"Name a type as 'package.module:Class', not {spec!r}.")
        elif not isinstance(spec, type):
            raise TypeError(f"Expected a type or its name, not {spec!r}.")
