"""How large an object is, without serializing it; and what kind of thing its type is."""

from __future__ import annotations

import copyreg
import enum
import types
from collections.abc import Callable
from typing import Any, Final

from proxystore_core.autoproxy.containers import Shape, inherits, shape_of
from proxystore_core.proxy import Proxy

Sizer = Callable[[Any], int | None]
"""Size of an object in bytes, or `None` where only serializing it tells."""

SMALL: Final = 16  # what a number counts for
LENGTH: Sizer = len
NUMBERS: Final = frozenset((type(None), bool, int, float, complex))
STRINGS: Final = frozenset((bytes, bytearray, str))
_TABLE_LIMIT = 4096
_NODES = 64

ATOM: Final = "atom"
"""Small by nature, or not ours to touch (functions, classes, modules, exceptions)."""
PROXY: Final = "proxy"
UNKNOWN: Final = "unknown"

Kind = str | Shape | Sizer

_ATOMS: frozenset[type] = frozenset(
    (
        type(None), bool, int, float, complex, range, slice, type(...), type(NotImplemented),
        types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType,
        types.MethodDescriptorType, types.WrapperDescriptorType, types.GenericAlias,
    )
)  # fmt: skip
_ATOM_NAMES = frozenset(
    (
        "builtins:type", "builtins:BaseException", "decimal:Decimal",
        "fractions:Fraction", "uuid:UUID", "pathlib:PurePath", "re:Pattern",
        "datetime:date", "datetime:time", "datetime:timedelta", "datetime:tzinfo",
        "numpy:dtype", "numpy:generic", "numpy:ufunc",
    )
)  # fmt: skip


def kind_of(cls: type) -> Kind:
    """Tell what a type is: `ATOM`, `PROXY`, `UNKNOWN`, a container or something with a size."""
    kind = _KINDS.get(cls)
    if kind is None:
        if len(_KINDS) >= _TABLE_LIMIT:  # classes made on the fly
            _KINDS.clear()
            _KINDS.update(_FIRST)
        kind = _KINDS[cls] = _classify(cls)
    return kind


def size_of(obj: object) -> int | None:
    """Return the size of an object in bytes without looking at its data.

    Args:
        obj: Any object.

    Returns:
        Bytes of its data, as the object itself reports them, or `None` where only serializing
        the object tells (containers too).
    """
    kind = kind_of(type(obj))
    if kind is ATOM:
        return SMALL
    if isinstance(kind, (str, Shape)):
        return None
    return kind(obj)


def rough_size(obj: object, limit: int) -> tuple[int, bool]:
    """Add up what a look at a few of its parts finds.

    Args:
        obj: Any object.
        limit: Stop when this many bytes are found.

    Returns:
        Bytes found, and whether that is all of it.
    """
    total = 0
    complete = True
    seen: set[int] = set()
    stack = [obj]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if len(seen) > _NODES:
            return total, False
        kind = kind_of(type(item))
        if kind is ATOM:
            total += SMALL
        elif isinstance(kind, Shape):
            children = kind.children(item)
            if len(children) > _NODES:
                complete = False
                continue
            stack.extend(children)
            if isinstance(item, dict):
                stack.extend(item)
        elif isinstance(kind, str):
            state = getattr(item, "__dict__", None) if kind is UNKNOWN else None
            if state is None or not _plain_state(type(item)):
                complete = False
            else:
                total += SMALL
                stack.extend(state.values())
        elif (size := kind(item)) is None:
            complete = False
        else:
            total += size
        if total >= limit:
            return total, complete and not stack
    return total, complete


def _plain_state(cls: type) -> bool:
    """Tell whether instances pickle as their `__dict__` and nothing else."""
    return (
        inherits(cls, "__reduce__", "__reduce_ex__", "__getstate__")
        and not hasattr(cls, "__getnewargs__")
        and not hasattr(cls, "__getnewargs_ex__")
        and cls.__itemsize__ == 0
        and cls not in copyreg.dispatch_table
        and not any("__slots__" in base.__dict__ for base in cls.__mro__)
    )


def _classify(cls: type) -> Kind:
    mro = type.mro(cls) if cls is type else cls.__mro__
    if Proxy in mro:
        return PROXY
    if issubclass(cls, enum.Enum):
        return ATOM
    shape = shape_of(cls)
    if shape is not None:
        return shape
    for base in mro:
        name = f"{base.__module__.partition('.')[0]}:{base.__qualname__}"
        if name in _ATOM_NAMES:
            return ATOM
        sizer = _SIZERS.get(name)
        if sizer is not None:
            return sizer
    return _by_nbytes if hasattr(cls, "nbytes") else UNKNOWN


def _by_nbytes(obj: Any) -> int | None:
    """Ask a type that we know nothing of; its stored size may be another."""
    try:
        return int(obj.nbytes)
    except Exception:  # noqa: BLE001  # whatever a foreign property raises, there is no size
        return None


def _array(obj: Any) -> int | None:
    return None if obj.dtype.hasobject else int(obj.nbytes)


def _frame(obj: Any) -> int:
    rows = len(obj)
    total = _column(obj.index)
    for i, dtype in enumerate(obj.dtypes):
        width = getattr(dtype, "itemsize", None)  # asking the column itself takes 20 µs
        if width is None or dtype.kind == "O":
            total += _column(obj.iloc[:, i])
        else:
            total += rows * width
    return total


def _column(obj: Any) -> int:
    total = int(obj.nbytes)
    if str(obj.dtype) == "object" and len(obj):
        sample = obj[:: max(1, len(obj) // _NODES)]
        total += len(obj) * sum(rough_size(item, 1 << 30)[0] for item in sample) // len(sample)
    return total


def _tensor(obj: Any) -> int:
    return int(obj.element_size() * obj.nelement())


def _estimated(obj: Any) -> int:
    return int(obj.estimated_size())


def _nbytes(obj: Any) -> int:
    return int(obj.nbytes)


_SIZERS: dict[str, Sizer] = {
    "builtins:bytes": len,
    "builtins:bytearray": len,
    "builtins:str": len,
    "builtins:memoryview": _nbytes,
    "numpy:ndarray": _array,
    "pandas:DataFrame": _frame,
    "pandas:Series": _column,
    "pandas:Index": _column,
    "polars:DataFrame": _estimated,
    "polars:Series": _estimated,
    "pyarrow:Table": _nbytes,
    "pyarrow:RecordBatch": _nbytes,
    "pyarrow:Array": _nbytes,
    "pyarrow:ChunkedArray": _nbytes,
    "pyarrow:Buffer": lambda buffer: int(buffer.size),
    "torch:Tensor": _tensor,
}
CLAIMED: Sizer = _by_nbytes
_FIRST: dict[type, Kind] = {
    **dict.fromkeys(_ATOMS, ATOM),
    bytes: len,
    bytearray: len,
    str: len,
    memoryview: _nbytes,
}
_KINDS: dict[type, Kind] = dict(_FIRST)
