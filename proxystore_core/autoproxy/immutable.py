"""Objects that nobody can change: one stored copy serves until it is evicted."""

from __future__ import annotations

import sys
from typing import Any


def is_immutable(obj: Any) -> bool:
    """Tell whether the data of an object cannot change.

    So it is with `bytes`, `str`, Arrow data, and NumPy arrays and memoryviews that are
    read-only down to what owns their memory. Any other object may change, as far as we know.
    """
    if not is_frozen(obj):
        return False
    cls = type(obj)
    return cls.__module__.partition(".")[0] == "pyarrow" or _frozen_owner(obj)


def is_frozen(obj: Any) -> bool:
    """Tell whether an object that we made ourselves, of memory we never hand out, is unchanged."""
    cls = type(obj)
    if cls is bytes or cls is str:
        return True
    if cls is memoryview:
        return bool(obj.readonly)
    package = cls.__module__.partition(".")[0]
    if package == "numpy":
        exact = cls is sys.modules["numpy"].ndarray
        return exact and not obj.flags.writeable and not obj.dtype.hasobject
    if package == "pyarrow":
        arrow = sys.modules["pyarrow"]
        return isinstance(obj, (arrow.Table, arrow.RecordBatch, arrow.Array, arrow.ChunkedArray))
    return False


def _frozen_owner(obj: Any) -> bool:
    while True:
        cls = type(obj)
        if cls is bytes or cls is str:
            return True
        if cls is memoryview:
            if not obj.readonly:
                return False
            obj = obj.obj
        elif cls.__module__.partition(".")[0] == "numpy":
            if obj.flags.writeable:
                return False
            if obj.base is None:
                return True
            obj = obj.base
        else:  # a mapping, a buffer of another library: who knows who writes there
            return False
