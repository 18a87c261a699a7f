"""Mappings of segments: private ones for readers, warm shared ones for writers.

A reader's lock on a segment lasts as long as its mapping, because the kernel
keeps the open file behind a mapping, and its lock, even when the descriptor is
closed. So thousands of mapped objects need no descriptors. Python's `mmap`
keeps a duplicate of the descriptor (before 3.13); an anonymous mapping of it,
overlaid with the file by libc, does not. Where the kernel gives the lock back
at close (macOS, overlay file systems) the descriptor stays open instead.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

from proxystore_core.connectors._layout import LEASE
from proxystore_core.connectors._process import random_id, try_lock

_LINUX = sys.platform == "linux"
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if _LINUX else 0)  # named from Python 3.13 on
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)
_MAP_FIXED = 0x10
_PRIVATE = mmap.MAP_PRIVATE | _NORESERVE
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_MEMORY_FILE_SYSTEMS = frozenset({0x01021994, 0x858458F6})  # tmpfs, ramfs
_KEEPING_FILE_SYSTEMS = frozenset(
    {
        0xEF53,  # ext2 to ext4
        0x58465342,  # XFS
        0x9123683E,  # Btrfs
        0x2FC12FC1,  # ZFS
        0xF2F52010,  # F2FS
        0x794C7630,  # overlay
        0x0BD00BD0,  # Lustre
        0x47504653,  # GPFS
    }
)
_GIL_FREE = 1 << 20  # from here on (bytes) a copy lets other threads run


def map_private(fd: int, nbytes: int, *, keep_open: bool) -> mmap.mmap:
    """Map the first bytes of a file, writable, with changes that stay private.

    Args:
        fd: The file.
        nbytes: How many bytes, at least 1.
        keep_open: Whether the mapping must keep a descriptor, and so a lock, of its own.

    Returns:
        The mapping, which goes when the last view of it does.

    Raises:
        OSError: The process has as many mappings, or descriptors, as it may have.
    """
    if keep_open or not overlay_works():
        return mmap.mmap(fd, nbytes, flags=_PRIVATE, prot=_READ_WRITE)
    return _map(fd, nbytes, _PRIVATE)


def map_shared(fd: int, nbytes: int, *, populate: bool = True) -> mmap.mmap:
    """Map the first bytes of a file, writable, with changes that are the file's.

    The mapping holds no descriptor where it can do without.

    Args:
        fd: The file.
        nbytes: How many bytes, at least 1.
        populate: Whether to map all pages now. Of a file whose pages were never written that
            costs more than mapping each when it is written.

    Raises:
        OSError: The process has as many mappings as it may have.
    """
    if not overlay_works():
        return mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED, prot=_READ_WRITE)
    return _map(fd, nbytes, mmap.MAP_SHARED | (_POPULATE if populate else 0))


def allocate_pages(fd: int, nbytes: int) -> None:
    """Give a new file so many bytes that are there: writing to a hole may kill who maps it.

    Raises:
        OSError: The device has no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, nbytes)
        return
    zeros = bytes(min(nbytes, 1 << 20))  # macOS cannot allocate otherwise
    for start in range(0, nbytes, len(zeros)):
        os.pwrite(fd, zeros[: nbytes - start], start)


def _map(fd: int, nbytes: int, flags: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, nbytes, flags=flags, prot=_READ_WRITE, trackfd=False)
    mapping = mmap.mmap(-1, nbytes, flags=_PRIVATE, prot=_READ_WRITE)
    ctypes, libc = _libc()
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    if libc.mmap(address, nbytes, _READ_WRITE, flags | _MAP_FIXED, fd, 0) != address:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return mapping


@cache
def _libc() -> tuple[Any, Any]:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    return ctypes, libc


@cache
def overlay_works() -> bool:
    """Tell whether a mapping shows the file it was laid over, with the descriptor closed."""
    if not _LINUX:
        return False
    try:
        fd = os.memfd_create("overlay")
    except (OSError, AttributeError):
        return False
    try:
        os.write(fd, b"overlay")
        return _map(fd, 7, _PRIVATE)[:] == b"overlay"
    except (OSError, ImportError, AttributeError):
        return False
    finally:
        os.close(fd)


_LEASES: dict[int, bool] = {}


def lock_outlives_descriptor(directory: str) -> bool:
    """Try out whether a lock lives as long as a mapping, in the file system of a directory.

    Args:
        directory: Where a file can be made for the trial, once in a process.
    """
    device = os.stat(directory).st_dev
    if device not in _LEASES:
        _LEASES[device] = overlay_works() and _try_lease(f"{directory}/{LEASE}{random_id(12)}")
    return _LEASES[device]


def _try_lease(path: str) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, 1)  # a hole: on a full device, too
        try_lock(fd, exclusive=False)
        mapping = _map(fd, 1, _PRIVATE)
        os.close(fd)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        held = not try_lock(fd, exclusive=True)
        del mapping
        return held
    finally:
        os.close(fd)
        os.unlink(path)


def is_memory_file_system(path: str) -> bool:
    """Tell whether a path lies in memory, where pages once allocated stay so."""
    return _file_system(path) in _MEMORY_FILE_SYSTEMS


def is_safe_to_map(path: str) -> bool:
    """Tell whether a file that another host removes stays whole for those who map it.

    On NFS and its like it does not: reading a page of it would kill the process.
    """
    return _file_system(path) in _MEMORY_FILE_SYSTEMS | _KEEPING_FILE_SYSTEMS


def _file_system(path: str) -> int:
    if not _LINUX:
        return 0
    ctypes, libc = _libc()
    answer = (ctypes.c_long * 32)()  # struct statfs is 120 bytes and begins with f_type
    return int(answer[0]) if libc.statfs(os.fsencode(path), answer) == 0 else 0


def copy_into(mapping: mmap.mmap, offset: int, views: Sequence[memoryview]) -> None:
    """Copy bytes into a mapping.

    Args:
        mapping: A writable mapping.
        offset: Where to begin, in bytes.
        views: Views of format `B`, laid end to end.

    Raises:
        ValueError: They do not fit.
    """
    if offset + sum(map(len, views)) > len(mapping):
        raise ValueError(f"A mapping of {len(mapping)} bytes is too short for what goes into it.")
    with memoryview(mapping) as target:
        for view in views:
            end = offset + len(view)
            if len(view) < _GIL_FREE:
                target[offset:end] = view
            else:
                _move(target[offset:end], view)
            offset = end


def _move(target: memoryview, source: memoryview) -> None:
    ctypes, _ = _libc()
    api, buffer_type = _buffer_api()
    buffers = buffer_type(), buffer_type()
    exported = []
    try:
        for view, buffer in zip((target, source), buffers, strict=True):
            api.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
            exported.append(buffer)
        ctypes.memmove(buffers[0].buf, buffers[1].buf, len(source))
    finally:
        for buffer in exported:
            api.PyBuffer_Release(ctypes.byref(buffer))


@cache
def _buffer_api() -> tuple[Any, Any]:
    """Return how to find the address of a buffer, which for read-only ones only C can tell."""
    import ctypes

    class Buffer(ctypes.Structure):
        _fields_ = [
            ("buf", ctypes.c_void_p),
            ("obj", ctypes.c_void_p),
            ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t),
            ("readonly", ctypes.c_int),
            ("ndim", ctypes.c_int),
            ("rest", ctypes.c_void_p * 5),  # format, shape, strides, suboffsets, internal
        ]

    return ctypes.pythonapi, Buffer
