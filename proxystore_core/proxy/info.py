"""What can be known of an object without having its data."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

HASH_LIMIT = 128 * 1024
"""Largest string, in characters or bytes, that `describe` hashes: it costs 1 ms per MB."""

SHAPED = frozenset({"numpy", "pandas", "polars", "pyarrow", "scipy", "torch"})
"""Packages whose objects tell their shape and size at no cost."""

_TYPED = frozenset({"numpy", "pandas", "torch"})
_NUMBERS = frozenset({int, float, complex, bool})
_SIZED = frozenset({str, bytes, bytearray, memoryview})
_WORD = 64
_MASK = (1 << _WORD) - 1

# Strings hash differently in each family of processes. A hash that may depend on that carries
# this mark above its 64 bits, and counts only where the mark is the same.
_FAMILY = (hash("proxystore_core.proxy") & 0xFFFFFFFF) + 1


class TargetInfo(NamedTuple):
    """What is known of a target.

    Every field but `cls` is `None` where the target has no such thing, or where
    finding out would mean reading the data.

    Attributes:
        cls: Type of the target, as `module:qualname`.
        hash: Hash of the target in a form that may travel; see `decode_hash`.
        nbytes: Size of the data in bytes.
        length: What `len` gives.
        shape: Shape of an array, a series or a table.
        dtype: Name of the type of the elements, if the name says all about it.
    """

    cls: str
    hash: int | None = None
    nbytes: int | None = None
    length: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


def describe(obj: Any) -> TargetInfo:
    """Find out about an object without touching its data.

    Args:
        obj: Any object. For a proxy, what it knows of its target is returned; only a
            proxy that knows nothing is resolved.

    Returns:
        What is known of the object.
    """
    cls = type(obj)
    if hasattr(cls, "__proxy_info__"):
        info: TargetInfo | None = obj.__proxy_info__
        return describe(obj.__proxy_target__) if info is None else info
    module = cls.__module__
    package = module.partition(".")[0]
    length = _length(obj, cls)
    known = package in SHAPED
    return TargetInfo(
        cls=f"{module}:{cls.__qualname__}",
        hash=_hash(obj, cls, length),
        nbytes=_table_nbytes(obj, cls) if known else _nbytes(obj, cls, length),
        length=length,
        shape=_shape(obj) if known else None,
        dtype=_dtype_name(obj, package) if package in _TYPED else None,
    )


def encode_hash(value: int, cls: type[Any]) -> int:
    """Mark a hash of an object of a type with the processes in which it holds."""
    return value if cls in _NUMBERS else _FAMILY << _WORD | value & _MASK


def decode_hash(value: int | None) -> int | None:
    """Give an encoded hash as `hash` gives it, or `None` if it does not hold in this process."""
    if value is None or value <= _MASK:
        return value
    if value >> _WORD != _FAMILY:
        return None
    word = value & _MASK
    return word - (1 << _WORD) if word >> (_WORD - 1) else word


def make_dtype(name: str, package: str) -> Any:
    """Make the type of elements that `TargetInfo.dtype` names."""
    module = sys.modules[package]
    if package == "numpy":
        return module.dtype(name)
    if package == "pandas":
        return module.api.types.pandas_dtype(name)
    return getattr(module, name.removeprefix("torch."))


def _hash(obj: Any, cls: type[Any], length: int | None) -> int | None:
    if cls.__hash__ is None or (cls in _SIZED and (length or 0) > HASH_LIMIT):
        return None
    if cls.__module__.startswith("torch"):  # hashes tensors by address, which changes
        return None
    if cls in (tuple, frozenset) and not (len(obj) < 100 and all(map(_hashes_fast, obj))):
        return None
    try:
        return encode_hash(hash(obj), cls)
    except Exception:  # noqa: BLE001  # a foreign __hash__ may raise anything: no hash then
        return None


def _hashes_fast(item: Any) -> bool:
    return type(item) in _NUMBERS or (type(item) in (str, bytes) and len(item) < 1000)


def _length(obj: Any, cls: type[Any]) -> int | None:
    # The length of a Dask collection would be computed.
    if not hasattr(cls, "__len__") or hasattr(cls, "__dask_graph__"):
        return None
    try:
        return len(obj)
    except Exception:  # noqa: BLE001  # a foreign __len__ may raise anything: no length then
        return None


def _shape(obj: Any) -> tuple[int, ...] | None:
    shape = getattr(obj, "shape", None)
    if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
        return tuple(shape)
    return None


def _nbytes(obj: Any, cls: type[Any], length: int | None) -> int | None:
    if cls is memoryview:
        return int(obj.nbytes)
    return length if cls in _SIZED else None


def _table_nbytes(obj: Any, cls: type[Any]) -> int | None:
    # A frame of pandas adds up its columns one by one, which takes 10 ms for a thousand of them.
    blocks = getattr(getattr(obj, "_mgr", None), "blocks", None)
    if blocks is not None:
        return sum(int(block.values.nbytes) for block in blocks)
    if hasattr(cls, "estimated_size"):
        return int(obj.estimated_size())
    nbytes = getattr(obj, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else None


def _dtype_name(obj: Any, package: str) -> str | None:
    dtype = getattr(obj, "dtype", None)
    if dtype is None:
        return None
    name: str = dtype.str if package == "numpy" else str(dtype)
    try:
        same = make_dtype(name, package) == dtype
    except (AttributeError, TypeError, ValueError):
        return None
    return name if same else None
