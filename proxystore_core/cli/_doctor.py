"""`proxystore doctor`: check what shared memory needs, and say what to do."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from proxystore_core import __version__
from proxystore_core.cli._output import print_json
from proxystore_core.connectors._inspect import look_at_all
from proxystore_core.connectors._layout import default_spill_dir, root_path, shared_memory_root
from proxystore_core.connectors._limits import choose_limits
from proxystore_core.connectors._mapping import (
    is_memory_file_system,
    lock_outlives_descriptor,
    overlay_works,
)
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import ProxyStoreError
from proxystore_core.utils.data import bytes_to_readable

_T = TypeVar("_T")
_SMALL = 1_000_000_000


class Check(NamedTuple):
    """What one check found.

    Attributes:
        name: What was looked at.
        verdict: `ok`, `warning` or `failed`.
        found: What was found.
        advice: What to do about it, if anything.
    """

    name: str
    verdict: str
    found: str
    advice: str = ""


def doctor(options: argparse.Namespace) -> int:
    """Run all checks; fail if one of them does."""
    checks = list(run_checks())
    if options.json:
        print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            print(f"{check.verdict:<8} {check.name}: {check.found}")
            if check.advice:
                print(f"{'':<8} -> {check.advice}")
    return int(any(check.verdict == "failed" for check in checks))


def run_checks() -> Iterator[Check]:
    """Yield what every check found; a check that breaks has failed."""
    yield _versions()
    for check in (_root, _space, _stores, _locks, _mappings, _spill, _round_trip):
        try:
            yield check()
        except (ProxyStoreError, OSError) as error:
            yield Check(check.__name__.strip("_").replace("_", " "), "failed", str(error))
    with contextlib.suppress(OSError):  # it holds stores
        os.rmdir(root_path())


def _versions() -> Check:
    found = (
        f"proxystore-core {__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    return Check("versions", "ok", found)


def _root() -> Check:
    root = shared_memory_root()
    if is_memory_file_system(root):
        return Check("root", "ok", f"{root}, in memory, private")
    return Check(
        "root",
        "warning",
        f"{root}, not in memory",
        "Everything works, at the speed of the disk. Where there is a memory file system, "
        "name a directory in it with PROXYSTORE_SHM_ROOT.",
    )


def _space() -> Check:
    root = shared_memory_root()
    status = os.statvfs(root)
    size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    quota, recycle = choose_limits(root, None, None)
    found = (
        f"{bytes_to_readable(free)} of {bytes_to_readable(size)} are free; a store may take "
        f"{bytes_to_readable(quota)} by default, and keep {bytes_to_readable(recycle)} for reuse"
    )
    if free < _SMALL:
        return Check(
            "space",
            "warning",
            found,
            "Large objects will go to disk. In a container, start it with --shm-size=8g or "
            "--ipc=host; else let root run: mount -o remount,size=8G /dev/shm",
        )
    return Check("space", "ok", found)


def _locks() -> Check:
    with SharedMemoryConnector() as store, SharedMemoryConnector(store.directory) as second:
        key = second.put(b"lock")
        good = store.get(key) == b"lock"
    if good and not os.path.exists(store.directory):
        return Check("locks", "ok", "a store has one owner, and goes with it")
    return Check("locks", "failed", "a store did not go with its owner", "Please report this.")


def _mappings() -> Check:
    if lock_outlives_descriptor(shared_memory_root()):
        return Check("mappings", "ok", "objects are mapped, and hold no descriptors")
    reason = "" if overlay_works() else ", the system cannot lay a file over a mapping"
    return Check(
        "mappings",
        "warning",
        f"every mapped object holds a descriptor{reason}",
        "Raise the limit if a process holds many large objects: ulimit -n 65536",
    )


def _spill() -> Check:
    directory = default_spill_dir()
    existing = directory
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    status = os.statvfs(existing)
    free = bytes_to_readable(status.f_bavail * status.f_frsize)
    found = f"{directory}, {free} are free"
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check("spill", "failed", f"{found}, not writable", "Name another one with TMPDIR.")
    if is_memory_file_system(existing):
        advice = "It would not relieve the memory. Name a disk with TMPDIR or spill_dir=."
        return Check("spill", "warning", f"{found}, in memory", advice)
    return Check("spill", "ok", found)


def _round_trip() -> Check:
    data = os.urandom(1_000_000) * 16
    with SharedMemoryConnector() as store:
        store.evict(store.put(data))
        store.evict(store.put(data))
        put, key = _timed(lambda: store.put(data))
        get, found = _timed(lambda: store.get(key))
        good = found == data
    times = f"16 MB: put {put * 1e3:.2f} ms, get {get * 1e6:.0f} µs"
    if good:
        return Check("round trip", "ok", times)
    return Check("round trip", "failed", f"{times}, but not what was put", "Please report this.")


def _timed(act: Callable[[], _T]) -> tuple[float, _T]:
    started = time.perf_counter()
    result = act()
    return time.perf_counter() - started, result


def _stores() -> Check:
    # Before any other check opens a store, and so reaps the dead ones.
    stores = look_at_all(root_path())
    dead = [store for store in stores if not store.alive]
    if dead:
        held = sum(store.usage.nbytes + store.usage.reserved for store in dead)
        found = f"{len(dead)} of {len(stores)} have dead owners, {bytes_to_readable(held)}"
        return Check("stores", "warning", found, "Remove them with: proxystore gc")
    return Check("stores", "ok", f"{len(stores)}, all with living owners")
