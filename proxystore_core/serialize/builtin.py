"""Serializers of `bytes`, `bytearray`, `memoryview` and `str`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxystore_core.serialize.layout import BytesLike

# Small content goes in-band: it needs no table, and its checksum is verified.
INBAND_BELOW = 16384


def place(data: BytesLike) -> tuple[BytesLike, Sequence[BytesLike]]:
    """Put bytes in-band where they are few, and into a buffer else."""
    return (data, ()) if len(data) < INBAND_BELOW else (b"", (data,))


def placed(data: memoryview, buffers: Sequence[memoryview]) -> memoryview:
    """Find the bytes that `place` put."""
    return buffers[0] if buffers else data


class BytesSerializer:
    """`bytes` as they are; loading copies once."""

    identifier = "bytes"

    def dump(self, obj: bytes) -> tuple[BytesLike, Sequence[BytesLike]]:
        return place(obj)

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> bytes:
        return bytes(placed(data, buffers))


class BytearraySerializer:
    """A `bytearray` as it is; loading copies once."""

    identifier = "bytearray"

    def dump(self, obj: bytearray) -> tuple[BytesLike, Sequence[BytesLike]]:
        return place(memoryview(obj))

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> bytearray:
        return bytearray(placed(data, buffers))


class MemoryviewSerializer:
    """A `memoryview` of native items; loading gives a view of the stored bytes."""

    identifier = "memoryview"

    def dump(self, obj: memoryview) -> tuple[BytesLike, Sequence[BytesLike]]:
        if len(obj.format) != 1:
            return NotImplemented
        meta = ",".join((obj.format, *map(str, obj.shape))).encode()
        flat = obj.cast("B") if obj.c_contiguous else memoryview(obj.tobytes())
        return meta, (flat,)

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> memoryview:
        form, *shape = str(data, "ascii").split(",")
        (view,) = buffers
        return view.cast(form, tuple(map(int, shape)))  # type: ignore[call-overload, no-any-return]  # the format is not a literal


class StrSerializer:
    """A `str` as UTF-8, lone surrogates included."""

    identifier = "str"

    def dump(self, obj: str) -> tuple[BytesLike, Sequence[BytesLike]]:
        return place(obj.encode("utf-8", "surrogatepass"))

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Any:
        return str(placed(data, buffers), "utf-8", "surrogatepass")
