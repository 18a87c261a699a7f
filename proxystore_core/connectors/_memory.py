"""How much memory there is: of the machine, and of the group that this process is limited with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

_GROUPS = "/sys/fs/cgroup"
_UNKNOWN = 1 << 62


class _Group(NamedTuple):
    """A control group that limits memory, in the files of version 2 or 1."""

    limit: str
    current: str
    stat: str
    cached: str
    shared: str


def total_memory() -> int:
    """Return the bytes that this process and its like may use; very many where it is unknown."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        machine = _UNKNOWN
    return min([machine, *(_number(group.limit) for group in _groups())])


def available_memory() -> int:
    """Return the bytes that can still be taken without swapping or somebody being killed."""
    free = _fields("/proc/meminfo").get("MemAvailable:", _UNKNOWN // 1024) * 1024
    for group in _groups():
        limit = _number(group.limit)
        if limit < _UNKNOWN:
            fields = _fields(group.stat)
            cached = fields.get(group.cached, 0) - fields.get(group.shared, 0)  # can be given back
            free = min(free, limit - _number(group.current) + cached)
    return free


def _groups() -> Iterator[_Group]:
    """Yield the control group of this process and those around it."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = f"{_GROUPS}/{controllers}".rstrip("/")
            path = path.rstrip("/")
            yield _group(f"{root}{path}", old=bool(controllers))
            while path:
                path = path.rpartition("/")[0]
                yield _group(f"{root}{path}", old=bool(controllers))


def _group(path: str, *, old: bool) -> _Group:
    start = f"{path}/memory."
    if old:
        current = f"{start}usage_in_bytes"
        return _Group(
            f"{start}limit_in_bytes", current, f"{start}stat", "total_cache", "total_shmem"
        )
    return _Group(f"{start}max", f"{start}current", f"{start}stat", "file", "shmem")


def _number(path: str) -> int:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else _UNKNOWN


def _fields(path: str) -> dict[str, int]:
    lines = (line.split() for line in _read(path).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError):
        return ""
