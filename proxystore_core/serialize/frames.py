"""Data frames of pandas and polars.

A pandas frame pickles well: its blocks are NumPy arrays, which go out-of-band.
Only its slices and Arrow-backed columns would be copied, so they are reduced here.
A polars frame is Arrow data; with pyarrow it travels as such.
"""

from __future__ import annotations

import copyreg
import importlib
from collections.abc import Sequence
from typing import Any

from proxystore_core.serialize import arrow, reducers
from proxystore_core.serialize.registry import Dumped

_SMALL = 65536


def _reduce_arrow_column(column: Any, attach: reducers.Attach) -> Any:
    # The class's own way is the same, after joining all chunks into a copy.
    if column.nbytes < _SMALL:
        return NotImplemented
    cls = type(column)
    return copyreg.__newobj__, (cls,), dict(column.__dict__)  # type: ignore[attr-defined]  # missing in typeshed


def _reduce_block(block: Any, attach: reducers.Attach) -> Any:
    # Its __reduce_ex__ would first make slices contiguous, which the array's reducer need not.
    return block.__reduce__()


_PANDAS: dict[str, reducers.Reducer] = {
    "pandas.arrays:ArrowExtensionArray": _reduce_arrow_column,
    "pandas.arrays:ArrowStringArray": _reduce_arrow_column,
    "pandas.core.arrays.string_arrow:ArrowStringArrayNumpySemantics": _reduce_arrow_column,  # of 2
    "pandas.core.internals.blocks:NumpyBlock": _reduce_block,
    "pandas.core.internals.blocks:NumericBlock": _reduce_block,  # of pandas 2
}


def pandas_reducers(pandas: Any) -> dict[type, reducers.Reducer]:
    """Return the reducers of pandas' blocks and Arrow-backed columns."""
    found: dict[type, reducers.Reducer] = {}
    for path, reducer in _PANDAS.items():
        module, _, name = path.partition(":")
        cls = getattr(importlib.import_module(module), name, None)
        if cls is not None:
            found[cls] = reducer
    return found


class PolarsSerializer:
    """Frames and series of polars; loading gives views of the stored bytes."""

    identifier = "polars"

    def dump(self, obj: Any) -> Dumped:
        """Give the frame's Arrow data, or leave it to pickle where there is no pyarrow."""
        table = _to_arrow(obj)
        if table is None:
            return None
        seal, pieces = arrow.write(table)
        return (b"S" if _is_series(obj) else b"F") + seal, (pieces,)

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Any:
        """Make a frame over the stored Arrow data."""
        return _from_arrow(bytes(data[:1]), data[1:], buffers[0])


def _to_arrow(obj: Any) -> Any:
    """Return a frame or series as an Arrow table without a copy, or `None`."""
    import polars as pl

    frame = obj.to_frame() if _is_series(obj) else obj
    if frame.estimated_size() < _SMALL:
        return None
    try:
        import pyarrow
    except ImportError:
        return None
    newest = pl.CompatLevel.newest()
    try:
        # Not every type comes back as it was, which its schema alone tells.
        back = pl.from_arrow(frame.clear().to_arrow(compat_level=newest))
    except (pyarrow.ArrowException, pl.exceptions.PolarsError):
        return None
    same = back.schema == frame.schema  # type: ignore[union-attr]  # of a table it is a frame
    return frame.to_arrow(compat_level=newest) if same else None


def _is_series(obj: Any) -> bool:
    return type(obj).__name__ == "Series"


def _from_arrow(kind: bytes, seal: memoryview, stream: memoryview) -> Any:
    import polars as pl

    frame = pl.from_arrow(arrow.read(seal, stream), rechunk=False)
    return frame.to_series() if kind == b"S" else frame  # type: ignore[union-attr]  # of a table it is a frame


def _reduce_polars(obj: Any, attach: reducers.Attach) -> Any:
    table = _to_arrow(obj)
    if table is None:
        return NotImplemented
    seal, pieces = arrow.write(table)
    return _read_nested, (b"S" if _is_series(obj) else b"F", seal, attach(pieces))


def _read_nested(kind: bytes, seal: bytes, stream: Any) -> Any:
    return _from_arrow(kind, memoryview(seal), memoryview(stream))


def polars_reducers(polars: Any) -> dict[type, reducers.Reducer]:
    """Return the reducers of polars' types."""
    return dict.fromkeys((polars.DataFrame, polars.Series), _reduce_polars)
