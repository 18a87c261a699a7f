"""Serializers of `bytes`, `bytearray`, `memoryview` and `str`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize import reducers
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
        flat, form, shape = _open(obj)
        return ",".join((form, *map(str, shape))).encode(), (flat,)

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> memoryview:
        """Cast the stored bytes to the format and shape."""
        form, *shape = str(data, "ascii").split(",")
        return _cast(buffers[0], form, tuple(map(int, shape)))


def _open(view: memoryview) -> tuple[memoryview, str, tuple[int, ...]]:
    if len(view.format) != 1:
        raise SerializationError(
            f"A memoryview of format {view.format!r} cannot be serialized, because no other can "
            "be cast to it: send what it is a view of."
        )
    # An empty view of many dimensions cannot be cast, nor one that has gaps.
    flat = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
    return flat, view.format, tuple(view.shape or ())


def _cast(view: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    cast: memoryview = view.cast(form, shape) if view.nbytes else view.cast(form)
    return cast


def reduce_memoryview(view: memoryview, attach: reducers.Attach) -> Any:
    """Reduce a view in a container; cloudpickle would make it `bytes`."""
    flat, form, shape = _open(view)
    small = len(flat) < reducers.INBAND_BELOW
    return _nested_view, (bytes(flat) if small else attach(flat), form, shape)


def _nested_view(data: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    return _cast(memoryview(reducers.as_wanted(data)), form, shape)


class StrSerializer:
    """A `str` as UTF-8, lone surrogates included."""

    identifier = "str"

    def dump(self, obj: str) -> Dumped:
        """Encode the text."""
        return place(obj.encode("utf-8", "surrogatepass"))

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> str:
        """Decode the text out of the stored bytes."""
        return str(placed(data, buffers), "utf-8", "surrogatepass")
