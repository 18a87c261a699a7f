"""NumPy arrays: their memory as it lies, whatever the order of the axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from proxystore_core.exceptions import CorruptObjectError
from proxystore_core.serialize import reducers
from proxystore_core.serialize.layout import BytesLike, Pieces
from proxystore_core.serialize.registry import Dumped

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_PLAIN_KINDS = "biufcmMSUV"
_RUN_FROM = 32768  # bytes, from where a part more to write costs less than a copy


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Tell whether items are bytes that mean the same elsewhere."""
    return (
        dtype.kind in _PLAIN_KINDS
        and not dtype.hasobject
        and dtype.isbuiltin != 2
        and not dtype.metadata
        and type(dtype).__module__.partition(".")[0] == "numpy"
    )


class NdarraySerializer:
    """Arrays of plain items; loading gives a view of the stored bytes."""

    identifier = "ndarray"

    def dump(self, obj: Array) -> Dumped:
        """Give the memory of the array, and its type, shape and order in-band."""
        dtype = obj.dtype
        if dtype.names is not None or not _is_plain(dtype):
            return None  # records and objects: pickle describes their type
        memory, axes = _memory(obj)
        return f"{dtype.str};{_join(obj.shape)};{_join(axes)}".encode(), (memory,)

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Array:
        """Make an array over the stored bytes."""
        import numpy as np

        name, shape, axes = str(data, "ascii").split(";")
        dtype = np.dtype(name)
        if dtype.hasobject:  # NumPy would take the bytes for addresses
            raise CorruptObjectError(f"An array of type {name!r} cannot lie in bytes.")
        return _array(buffers[0], dtype, _split(shape), _split(axes))


def stride_order(strides: Sequence[int]) -> tuple[int, ...]:
    """Return the axes from the largest to the smallest stride."""
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def _memory(array: Array) -> tuple[Pieces, tuple[int, ...]]:
    """Return the bytes of an array, and the order of its axes there (empty for C)."""
    if array.flags.c_contiguous:
        return _flat(array), ()
    # Sorted by stride, the axes of any transposed array are in C order.
    axes = stride_order(array.strides)
    straight = array.transpose(axes)
    if straight.flags.c_contiguous:
        return _flat(straight), axes
    if pieces := _long_runs(straight):
        return pieces, axes
    return _flat(array.copy(order="C")), ()


def _flat(array: Array) -> memoryview:
    # As bytes, because not every type exports a buffer (datetime64 does not).
    return memoryview(array.reshape(-1).view("u1").data if array.nbytes else b"")


def _long_runs(array: Array) -> list[BytesLike]:
    """Return the contiguous runs of an array with gaps, unless they are short."""
    run = array
    while run.ndim and not run.flags.c_contiguous:
        run = run[0]
    if run.nbytes < _RUN_FROM:
        return []
    outer = array.shape[: array.ndim - run.ndim]
    return [_flat(array[index]) for index in product(*map(range, outer))]


def _array(buffer: Any, dtype: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    import numpy as np

    if not axes:
        return np.ndarray(shape, dtype, buffer)
    stored: Array = np.ndarray(tuple(shape[axis] for axis in axes), dtype, buffer)
    return stored.transpose(sorted(range(len(axes)), key=axes.__getitem__))


def _small_array(data: bytes, dtype: Any, shape: tuple[int, ...], order: str) -> Array:
    import numpy as np

    return np.ndarray(shape, dtype, reducers.as_wanted(data), 0, None, order)  # type: ignore[arg-type]  # 'C' or 'F'


def _memmap(array: Array) -> Array:
    import numpy as np

    return array.view(np.memmap)


def _reduce_array(array: Array, attach: reducers.Attach) -> Any:
    dtype = array.dtype
    if not _is_plain(dtype):
        return NotImplemented
    if array.nbytes < reducers.INBAND_BELOW:
        order = "F" if array.flags.fnc else "C"
        return _small_array, (array.tobytes("A"), dtype, array.shape, order)
    memory, axes = _memory(array)
    return _array, (attach(memory), dtype, array.shape, axes)


def _reduce_memmap(array: Array, attach: reducers.Attach) -> Any:
    import numpy as np

    # Without its file it is an array all the same; NumPy would copy it into the pickle.
    return _memmap, (array.view(np.ndarray),)


def array_reducers(numpy: Any) -> dict[type, reducers.Reducer]:
    """Return the reducers of NumPy's types."""
    return {numpy.ndarray: _reduce_array, numpy.memmap: _reduce_memmap}


def _join(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _split(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()
