"""Byte parts: what every connector does with the buffers that it is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from proxystore_core.exceptions import CorruptObjectError

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike

KeyT = TypeVar("KeyT")

_MAX_VECTOR = 1024  # IOV_MAX of Linux and macOS
_MAX_WRITE = 1 << 30  # Linux writes 2 GiB - 4 KiB at most in one call, macOS 2 GiB - 1


def byte_view(obj: BytesLike) -> memoryview:
    """View a buffer as plain bytes.

    Args:
        obj: Any C-contiguous buffer.

    Returns:
        A one-dimensional view of format `B`.

    Raises:
        TypeError: The object is no buffer, or not contiguous.
    """
    try:
        view = memoryview(obj)
    except TypeError:
        raise TypeError(
            f"A connector stores bytes, bytearray or memoryview, not {type(obj).__name__}. "
            "Serialize the object first, or use a Store."
        ) from None
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    if not view.c_contiguous:
        raise TypeError("A connector stores C-contiguous buffers; copy this one with bytes(...).")
    if view.nbytes == 0:
        return memoryview(b"")
    return view.cast("B")


def byte_views(parts: Iterable[BytesLike]) -> tuple[list[memoryview], int]:
    """View the parts of an object as plain bytes; return the views and their total length."""
    views = [byte_view(part) for part in parts]
    return views, sum(view.nbytes for view in views)


def write_all(fd: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write all parts at the file's position, however many and large they are.

    Args:
        fd: A file open for writing.
        parts: Views of format `B`.

    Raises:
        OSError: The device refused; some of the bytes may have been written.
    """
    batch: list[bytes | memoryview] = []
    size = 0
    for part in parts:
        start = 0
        while start < len(part):
            end = start + _MAX_WRITE - size
            piece = part if start == 0 and end >= len(part) else part[start:end]
            start += len(piece)
            batch.append(piece)
            size += len(piece)
            if size >= _MAX_WRITE or len(batch) == _MAX_VECTOR:
                _write_batch(fd, batch)
                batch, size = [], 0
    if batch:
        _write_batch(fd, batch)


def read_all(fd: int, buffer: bytearray) -> None:
    """Fill a buffer from the beginning of a file.

    Raises:
        CorruptObjectError: The file is shorter.
    """
    view = memoryview(buffer)
    os.lseek(fd, 0, os.SEEK_SET)
    while view:
        count = os.readv(fd, [view[:_MAX_WRITE]])
        if count == 0:
            raise CorruptObjectError(f"{len(view)} bytes at the end of the file are missing.")
        view = view[count:]


def _write_batch(fd: int, batch: list[bytes | memoryview]) -> None:
    while batch:
        written = os.writev(fd, batch)
        while batch and written >= len(batch[0]):
            written -= len(batch.pop(0))
        if written:
            batch[0] = memoryview(batch[0])[written:]


def put_all(
    objs: Iterable[BytesLike], put: Callable[[BytesLike], KeyT], evict: Callable[[KeyT], None]
) -> list[KeyT]:
    """Store objects one by one; after an error, evict those that were stored before it."""
    keys: list[KeyT] = []
    try:
        for obj in objs:
            keys.append(put(obj))  # noqa: PERF401 - those stored before an error count
    except BaseException:
        for key in keys:
            evict(key)
        raise
    return keys
