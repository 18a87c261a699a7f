"""Sizes of data, for people and from people; and data in chunks."""

from __future__ import annotations

import re
from collections.abc import Iterator

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"\s*(\+?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def chunk_bytes(data: bytes, chunk_size: int) -> Iterator[bytes]:
    """Iterate over consecutive chunks of data.

    Args:
        data: Bytes, or anything that slices like them; a `memoryview` is not copied.
        chunk_size: Length of all chunks but the last, in bytes.

    Raises:
        ValueError: If `chunk_size` is not positive.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be positive, not {chunk_size}.")
    return (data[start : start + chunk_size] for start in range(0, len(data), chunk_size))


def bytes_to_readable(size: int, precision: int = 3) -> str:
    """Write a size with a decimal unit, as `'1.2 MB'`.

    Args:
        size: Bytes.
        precision: Most digits after the point.

    Raises:
        ValueError: If `size` is negative.
    """
    if size < 0:
        raise ValueError(f"A size cannot be negative: {size}.")
    units = ("B", "KB", "MB", "GB", "TB")
    power = 0
    while power < len(units) - 1 and size >= 1000 ** (power + 1):
        power += 1
    number = f"{round(size / 1000**power, precision):.{max(precision, 0)}f}"
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {units[power]}"


def readable_to_bytes(size: str | int) -> int:
    """Read a size such as `'1.2 KB'`, `'0.6MiB'` or `'1000'`.

    Args:
        size: A number with a decimal (KB, MB, GB, TB) or binary (KiB, MiB, GiB,
            TiB) unit, whatever its case; a number alone is bytes.

    Returns:
        Bytes, rounded down.

    Raises:
        ValueError: If it is not a size.
    """
    if isinstance(size, int):
        return size
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f"{size!r} is not a size: write a number and a unit, as '100 MB'.")
    number, unit = match.groups()
    if unit.lower() not in _UNITS:
        raise ValueError(f"{unit!r} in {size!r} is no unit: use B, KB, MB, GB, TB, KiB, MiB, ...")
    from decimal import Decimal  # not float: 0.6 MiB has to come out exactly

    return int(Decimal(number) * _UNITS[unit.lower()])
