"""Serializers of `bytes`, `bytearray`, `memoryview` and `str`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxystore_core.serialize.layout import BytesLike, Pieces
from proxystore_core.serialize.registry import Dumped

# Few bytes go in-band: they need no table, and their checksum is verified.
_INBAND_BELOW = 16384


def place(data: BytesLike) -> tuple[Pieces, Sequence[Pieces]]:
    """Put bytes in-band where they are few, and into a buffer else."""
    return (data, ()) if len(data) < _INBAND_BELOW else (b"", (data,))


def placed(data: memoryview, buffers: Sequence[memoryview]) -> memoryview:
    """Find the bytes that `place` put."""
    return buffers[0] if buffers else data


class BytesSerializer:
    """`bytes` as they are; loading copies once."""

    identifier = "bytes"

    def dump(self, obj: bytes) -> Dumped:
        """Give the bytes themselves."""
        return place(obj)

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> bytes:
        """Copy the bytes, because `bytes` cannot be views."""
        return bytes(placed(data, buffers))


class BytearraySerializer:
    """A `bytearray` as it is; loading copies once."""

    identifier = "bytearray"

    def dump(self, obj: bytearray) -> Dumped:
        """Give a view of the bytes."""
        return place(memoryview(obj))

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> bytearray:
        """Copy the bytes."""
        return bytearray(placed(data, buffers))


class MemoryviewSerializer:
    """A `memoryview` of native items; loading gives a view of the stored bytes."""

    identifier = "memoryview"

    def dump(self, obj: memoryview) -> Dumped:
        """Give the bytes of the view, and its format and shape in-band."""
        if len(obj.format) != 1:
            return None  # other formats cannot be cast to
        meta = ",".join((obj.format, *map(str, obj.shape or ())))
        # An empty view of many dimensions cannot be cast, nor one that has gaps.
        flat = obj.cast("B") if obj.c_contiguous and obj.nbytes else memoryview(obj.tobytes())
        return meta.encode(), (flat,)

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> memoryview:
        """Cast the stored bytes to the format and shape."""
        form, *shape = str(data, "ascii").split(",")
        return _cast(buffers[0], form, tuple(map(int, shape)))


def _cast(view: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    cast: memoryview = view.cast(form, shape) if view.nbytes else view.cast(form)
    return cast


class StrSerializer:
    """A `str` as UTF-8, lone surrogates included."""

    identifier = "str"

    def dump(self, obj: str) -> Dumped:
        """Encode the text."""
        return place(obj.encode("utf-8", "surrogatepass"))

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> str:
        """Decode the text out of the stored bytes."""
        return str(placed(data, buffers), "utf-8", "surrogatepass")
