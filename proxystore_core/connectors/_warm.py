"""Warm mappings: how a process writes a segment at the cost of the copy alone."""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from typing import NamedTuple

from proxystore_core.connectors._mapping import map_shared

_MAX_WARM = 64


class _Warm(NamedTuple):
    mapping: mmap.mmap
    fd: int  # tells whether the segment still exists


class WarmMaps:
    """Shared mappings, with all their pages, of segments that this process has written before.

    Writing through one costs the copy alone: no page is allocated, zeroed or
    faulted in. A segment may be written only by who took it out of the free list.

    Args:
        limit: Bytes to keep mapped.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._mutex = threading.Lock()
        self._maps: OrderedDict[int, _Warm] = OrderedDict()

    def __contains__(self, inode: int) -> bool:
        return inode in self._maps

    def take(self, fd: int, inode: int, size: int, *, populate: bool = True) -> mmap.mmap | None:
        """Return the mapping of a segment, made now if need be, or `None` where it cannot be."""
        if size > self._limit:
            return None
        with self._mutex:
            warm = self._maps.get(inode)
            if warm is not None and len(warm.mapping) == size:
                self._maps.move_to_end(inode)
                return warm.mapping
            self._drop(inode)
        try:
            warm = _Warm(map_shared(fd, size, populate=populate), os.dup(fd))
        except OSError:
            return None
        with self._mutex:
            self._maps[inode] = warm
            total = sum(len(one.mapping) for one in self._maps.values())
            while total > self._limit or len(self._maps) > _MAX_WARM:
                total -= len(self._maps[oldest := next(iter(self._maps))].mapping)
                self._drop(oldest)
        return warm.mapping

    def drop(self, inode: int) -> None:
        """Forget the mapping of a segment that is going away."""
        with self._mutex:
            self._drop(inode)

    def purge(self) -> None:
        """Forget the mappings of segments that other processes removed, and so free their pages."""
        with self._mutex:
            for inode, warm in list(self._maps.items()):
                if os.fstat(warm.fd).st_nlink == 0:
                    self._drop(inode)

    def _drop(self, inode: int) -> None:
        warm = self._maps.pop(inode, None)
        if warm is not None:
            os.close(warm.fd)

    def after_fork(self) -> None:
        """Forget, in a child, the mappings of the parent."""
        self._mutex = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all mappings."""
        with self._mutex:
            for inode in list(self._maps):
                self._drop(inode)
