"""Limits of a store: how much memory it may take, and keep for reuse."""

from __future__ import annotations

import os

from proxystore_core.connectors._mapping import is_memory_file_system
from proxystore_core.connectors._memory import total_memory
from proxystore_core.exceptions import ConnectorConfigError
from proxystore_core.utils.data import readable_to_bytes


def choose_limits(path: str, quota: int | str | None, recycle: int | str | None) -> tuple[int, int]:
    """Work out the limits of a new store.

    Args:
        path: Where its directory is, or will be.
        quota: Bytes for all segments; half of what there is by default.
        recycle: Bytes of evicted segments to keep; by default a quarter of the quota
            in memory, and none on disk, where nothing is won by it.

    Returns:
        Quota and recycle budget in bytes.

    Raises:
        ConnectorConfigError: A limit is not a size.
    """
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    in_memory = is_memory_file_system(path)
    most = _parse("quota", quota)
    keep = _parse("recycle", recycle)
    if most is None:
        most = _default_quota(path, in_memory)
    if keep is None:
        keep = most // 4 if in_memory else 0
    return most, min(keep, most)


def _parse(name: str, value: int | str | None) -> int | None:
    if value is None:
        return None
    try:
        size = readable_to_bytes(value)
    except (ValueError, TypeError) as error:
        raise ConnectorConfigError(
            f"{name}={value!r} is not a size like 1000000 or '4 GB'."
        ) from error
    if size < 0:
        raise ConnectorConfigError(f"{name}={value!r} is below zero.")
    return size


def _default_quota(path: str, in_memory: bool) -> int:
    status = os.statvfs(path)
    if not in_memory:
        return status.f_bavail * status.f_frsize // 2
    return min(status.f_blocks * status.f_frsize, total_memory()) // 2
