"""What is known of a target without having it.

A proxy carries a `TargetInfo` on board, so that it can answer `isinstance`,
`hash`, `len`, `bool`, `.shape` and the like while its target is still elsewhere.
"""

from __future__ import annotations

import sys
from math import prod
from typing import Any, NamedTuple

# Larger bytes and strings are not hashed: hashing reads the data, at about 1 ms per MB.
HASH_LIMIT = 128 * 1024

_SHAPED = frozenset({"numpy", "pandas", "polars", "pyarrow", "scipy", "torch"})
_TYPED = frozenset({"numpy", "pandas", "torch"})
# Beginnings of the names by which libraries ask whether an object knows their protocol.
_PROTOCOLS = tuple(
    f"__{who}_" for who in "arrow array cuda dask dataframe dlpack jax rich sklearn torch".split()
) + ("__dataframe__", "__dlpack__", "__html__")
_ATTRIBUTES = frozenset({"shape", "dtype", "ndim", "size", "nbytes"})
_NUMBERS = frozenset({int, float, complex, bool})
_SIZED = frozenset({str, bytes, bytearray, memoryview})

# String hashes differ between processes: a hash is kept together with a mark of the process
# family that made it, and is of no use elsewhere.
_SEED = hash("proxystore_core.proxy") & 0xFFFFFFFF
_WORD = 64


class TargetInfo(NamedTuple):
    """What is known of a target.

    Every field but `cls` is `None` where the target has no such thing, or where
    finding out would mean reading the data.

    Attributes:
        cls: Type of the target, as `module:qualname`.
        hash: Hash of the target in a portable form; `known_hash` reads it.
        nbytes: Size of the target's data in bytes.
        length: What `len` gives.
        shape: Shape of an array, series or table.
        dtype: Name of the element type, where the name says all about it.
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
        obj: Any object. Of a proxy, the information on board is given; a proxy
            without any is resolved.

    Returns:
        What is known of the object.
    """
    cls = type(obj)
    if hasattr(cls, "__proxy_info__"):
        info: TargetInfo | None = obj.__proxy_info__
        if info is not None:
            return info
        obj = obj.__proxy_wrapped__
        cls = type(obj)
    module = cls.__module__
    shape = dtype = None
    if isinstance(module, str) and module.partition(".")[0] in _SHAPED:
        shape = _shape(obj)
        dtype = _dtype_name(obj, module.partition(".")[0])
    length = _length(obj, cls)
    return TargetInfo(
        f"{module}:{cls.__qualname__}",
        _portable_hash(obj, cls, length),
        _nbytes(obj, cls, length),
        length,
        shape,
        dtype,
    )


def with_hash(info: TargetInfo, obj: Any) -> TargetInfo:
    """Add the hash of the target, whatever it costs to compute."""
    try:
        return info._replace(hash=_encode(hash(obj), type(obj)))
    except TypeError:
        return info


def known_hash(info: TargetInfo) -> int | None:
    """Give the hash of the target as `hash` would give it in this process, if it is known."""
    value = info.hash
    if value is None or value >> _WORD == 0 or value < 0:
        return value
    if value >> _WORD != _SEED + 1:
        return None
    word = value & (1 << _WORD) - 1
    return word - (1 << _WORD) if word >> _WORD - 1 else word


def known_class(info: TargetInfo) -> type[Any] | None:
    """Give the type of the target, importing its module; `None` where it cannot be found."""
    module, _, name = info.cls.partition(":")
    found: Any = sys.modules.get(module)
    try:
        if found is None:
            from importlib import import_module

            found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) else None


def known_attribute(info: TargetInfo, name: str) -> Any:
    """Give an attribute of the target.

    Raises:
        LookupError: Only the target itself knows.
        AttributeError: The target has no such attribute.
    """
    package = info.cls.partition(":")[0].partition(".")[0]
    if name in _ATTRIBUTES:
        if info.shape is not None and package in _SHAPED:
            return _array_attribute(info, name, package)
    elif name.startswith("__") and (cls := known_class(info)) is not None and _lacks(cls, name):
        raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")
    raise LookupError(name)


def known_truth(info: TargetInfo) -> bool | None:
    """Give the truth of the target, if only its length says it."""
    if info.length is None:
        return None
    cls = known_class(info)
    return None if cls is None or hasattr(cls, "__bool__") else info.length > 0


def _lacks(cls: type[Any], name: str) -> bool:
    """Tell that a method missing on the class is missing on its instances too."""
    if hasattr(cls, name):
        return False
    own = cls.__dictoffset__ or hasattr(cls, "__getattr__")
    return name.startswith(_PROTOCOLS) or not own


def _array_attribute(info: TargetInfo, name: str, package: str) -> Any:
    shape = info.shape
    if shape is None or not hasattr(known_class(info), name):
        raise LookupError(name)
    if package == "torch":
        if name == "shape":
            return sys.modules["torch"].Size(shape)
        if name == "size":  # a method there
            raise LookupError(name)
    if name == "shape":
        return shape
    if name == "ndim":
        return len(shape)
    if name == "size" and package in {"numpy", "pandas"}:
        return prod(shape)
    if name in {"dtype", "nbytes"} and info.dtype is not None:
        dtype = _dtype(info.dtype, package)
        if name == "dtype":
            return dtype
        if package != "pandas":
            return prod(shape) * dtype.itemsize
    raise LookupError(name)


def _encode(value: int, cls: type[Any]) -> int:
    if cls in _NUMBERS:
        return value
    return (_SEED + 1) << _WORD | value & (1 << _WORD) - 1


def _portable_hash(obj: Any, cls: type[Any], length: int | None) -> int | None:
    if cls.__hash__ is None or (cls in _SIZED and (length or 0) > HASH_LIMIT):
        return None
    if cls in {tuple, frozenset} and not (
        (length or 0) <= 1000 and all(type(item) in _NUMBERS for item in obj)
    ):
        return None
    try:
        return _encode(hash(obj), cls)
    except Exception:  # noqa: BLE001  # whatever a foreign __hash__ raises, there is no hash
        return None


def _length(obj: Any, cls: type[Any]) -> int | None:
    if not hasattr(cls, "__len__"):
        return None
    try:
        return len(obj)
    except Exception:  # noqa: BLE001  # arrays of no dimension and foreign __len__
        return None


def _shape(obj: Any) -> tuple[int, ...] | None:
    shape = getattr(obj, "shape", None)
    if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
        return tuple(shape)
    return None


def _nbytes(obj: Any, cls: type[Any], length: int | None) -> int | None:
    if cls is memoryview:
        return int(obj.nbytes)
    if cls in _SIZED:
        return length
    if cls.__module__.partition(".")[0] not in _SHAPED:
        return None
    if hasattr(cls, "memory_usage"):
        usage = obj.memory_usage()
        return int(usage if isinstance(usage, int) else usage.sum())
    if hasattr(cls, "estimated_size"):
        return int(obj.estimated_size())
    nbytes = getattr(obj, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else None


def _dtype_name(obj: Any, package: str) -> str | None:
    dtype = getattr(obj, "dtype", None) if package in _TYPED else None
    if dtype is None:
        return None
    name = dtype.str if hasattr(dtype, "str") and isinstance(dtype.str, str) else str(dtype)
    try:
        same = _dtype(name, package) == dtype
    except (AttributeError, TypeError, ValueError):
        return None
    return name if same else None


def _dtype(name: str, package: str) -> Any:
    module = sys.modules[package]
    if package == "torch":
        return getattr(module, name.removeprefix("torch."))
    return module.api.types.pandas_dtype(name) if package == "pandas" else module.dtype(name)
