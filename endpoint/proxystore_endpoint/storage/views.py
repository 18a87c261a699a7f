"""Buffers as plain bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike

_MAX_VECTOR = 1024  # IOV_MAX of Linux and macOS
_MAX_WRITE = 1 << 30  # Linux writes 2 GiB - 4 KiB at most in one call, macOS 2 GiB - 1


def byte_views(parts: Sequence[BytesLike]) -> tuple[list[memoryview], int]:
    """View the parts of an object as plain bytes; return the views and their total length.

    Raises:
        TypeError: A part is no buffer, or not contiguous.
    """
    views = [_byte_view(part) for part in parts]
    return views, sum(map(len, views))


def _byte_view(part: BytesLike) -> memoryview:
    try:
        view = memoryview(part)
    except TypeError:
        raise TypeError(
            f"An endpoint stores bytes, bytearray or memoryview, not {type(part).__name__}. "
            "Serialize the object first, or use a Store."
        ) from None
    if not view.c_contiguous:
        raise TypeError("An endpoint stores C-contiguous buffers; copy this one with bytes(...).")
    if view.format == "B" and view.ndim == 1:
        return view
    return view.cast("B") if view.nbytes else memoryview(b"")


def write_views(fd: int, views: Sequence[memoryview]) -> None:
    """Write buffers to a file from its position on, however many and large they are.

    Raises:
        OSError: The device refused.
    """
    rest = [view[start : start + _MAX_WRITE] for view in views for start in _starts(view)]
    rest.reverse()
    while rest:
        written = os.writev(fd, rest[: -_MAX_VECTOR - 1 : -1] if _small(rest) else [rest[-1]])
        while rest and written >= len(rest[-1]):
            written -= len(rest.pop())
        if written:
            rest[-1] = rest[-1][written:]


def _starts(view: memoryview) -> range:
    return range(0, len(view), _MAX_WRITE)


def _small(rest: list[memoryview]) -> bool:
    return sum(map(len, rest[-_MAX_VECTOR:])) <= _MAX_WRITE
