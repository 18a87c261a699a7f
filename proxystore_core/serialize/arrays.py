"""NumPy arrays: their memory as it lies, whatever the order of the axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxystore_core.serialize.layout import BytesLike

if TYPE_CHECKING:
    import numpy as np

_PLAIN_KINDS = "biufcmMSUV"


class NdarraySerializer:
    """Arrays of plain items; loading gives a view of the stored bytes."""

    identifier = "ndarray"

    def dump(self, obj: np.ndarray[Any, Any]) -> tuple[BytesLike, Sequence[BytesLike]]:
        dtype = obj.dtype
        if dtype.kind not in _PLAIN_KINDS or dtype.isbuiltin == 2 or dtype.names or dtype.metadata:
            return NotImplemented  # records, objects, extension types: pickle knows them
        axes = None
        if not obj.flags.c_contiguous:
            # Sorted by stride, the axes of any transposed array are in C order.
            strides = obj.strides
            axes = sorted(range(obj.ndim), key=lambda axis: -strides[axis])
            straight = obj.transpose(axes)
            if straight.flags.c_contiguous:
                obj = straight
            else:
                axes, obj = None, obj.copy(order="C")
        meta = f"{dtype.str};{_join(obj.shape)};{_join(axes) if axes else ''}"
        return meta.encode(), (_bytes_of(obj),)

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> np.ndarray[Any, Any]:
        import numpy as np

        dtype, shape, axes = str(data, "ascii").split(";")
        (buffer,) = buffers
        array: np.ndarray[Any, Any] = np.ndarray(_split(shape), dtype, buffer)
        if axes:
            stored = _split(axes)
            array = array.transpose([stored.index(axis) for axis in range(len(stored))])
        return array


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    # Not every dtype exports a buffer (datetime64 does not), its bytes do.
    return memoryview(array.reshape(-1).view("u1")) if array.nbytes else memoryview(b"")


def _join(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _split(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()
