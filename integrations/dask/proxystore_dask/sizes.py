"""How large constants are, and which objects are not ours to store."""

from __future__ import annotations

from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from dask.base import is_dask_collection
from distributed.sizeof import safe_sizeof

from proxystore_core.autoproxy.sizes import rough_size, size_of

_SAMPLE = 64
_CONTAINERS = (list, tuple, set, frozenset, dict)

_FOREIGN = ("cudf", "cupy", "dask", "distributed", "proxystore_core", "proxystore_dask", "rmm")
# Data on another device, which Dask sends in ways of its own, and what Dask itself looks for.

_known: WeakKeyDictionary[type[Any], bool] = WeakKeyDictionary()


def is_foreign(cls: type[Any]) -> bool:
    """Tell whether objects of a type are sent as they are."""
    known = _known.get(cls)
    if known is None:
        bases = cls.__mro__[:-1]
        known = any(base.__module__.partition(".")[0] in _FOREIGN for base in bases)
        _known[cls] = known
    return known


def is_repeated(obj: Any) -> bool:
    """Tell whether an array shows the same items again and again; Dask sends them once."""
    is_array = type(obj).__module__ == "numpy" and hasattr(obj, "strides")
    return is_array and 0 in obj.strides and obj.size > 0


def estimate(obj: Any, limit: int) -> int:
    """Return about how many bytes an object takes, or 0 where that is not known.

    Args:
        obj: Any object.
        limit: Looking stops when this many bytes are found.
    """
    known = size_of(obj)
    if known is not None:
        return known
    if type(obj) in _CONTAINERS and len(obj) > _SAMPLE:
        return _sampled(obj)
    if is_dask_collection(obj):
        return 0
    found, complete = rough_size(obj, limit)
    if complete or found >= limit:
        return found
    # Of types with ways of their own to be pickled, like sparse matrices and fitted models.
    state = getattr(obj, "__dict__", None)
    inside = rough_size(state, limit)[0] if type(state) is dict else 0
    return max(found, inside, int(safe_sizeof(obj, default_size=0)))


def _sampled(obj: Any) -> int:
    """Extrapolate from some of the items; those that are not known count for nothing."""
    step = len(obj) // _SAMPLE
    items = obj.items() if isinstance(obj, dict) else obj
    sample = obj[::step] if isinstance(obj, (list, tuple)) else list(islice(items, _SAMPLE))
    found = sum(rough_size(item, 1 << 40)[0] for item in sample)
    return found * len(obj) // len(sample)
