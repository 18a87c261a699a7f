"""Reaping: removing what processes that are gone left behind."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from proxystore_core.connectors._directory import claim, remove_store, remove_tree
from proxystore_core.connectors._layout import OWNER, PARTIAL, STAGED, StoreInfo, read_info
from proxystore_core.connectors._ledger import Ledger, remove_stale
from proxystore_core.connectors._spill import MARKER
from proxystore_core.exceptions import ConnectorClosedError, ConnectorUnavailableError

_YOUNG = 60.0  # seconds in which a directory without an owner may be one that is being made


class Reaped(NamedTuple):
    """Something that was removed, or would be.

    Attributes:
        path: Where it was.
        what: What it was.
        nbytes: Bytes of its files.
    """

    path: str
    what: str
    nbytes: int


def store_directories(root: str) -> Iterator[str]:
    """Yield the directories of all stores under a root, living or dead."""
    for path in _directories(root):
        if os.path.exists(f"{path}/{OWNER}") and not os.path.basename(path).startswith(STAGED):
            yield path


def reap_stores(root: str, *, dry_run: bool = False) -> list[Reaped]:
    """Remove the stores under a root whose owners are gone.

    Args:
        root: The directory that the stores lie in.
        dry_run: Only say what would be removed.
    """
    reaped = []
    for path in _directories(root):
        if os.path.basename(path).startswith(STAGED):
            if not _is_young(path):
                reaped.append(Reaped(path, "half-made store", _remove(path, dry_run)))
            continue
        reaped += reap_store(path, dry_run=dry_run)
        with contextlib.suppress(OSError):  # all that is left of one whose removal was cut short
            os.rmdir(path)
    return reaped


def reap_store(directory: str, *, dry_run: bool = False) -> list[Reaped]:
    """Remove one store if its owner is gone."""
    owner = claim(directory, tries=1)
    if owner is None:
        return []
    try:
        info = read_info(directory)
    except ConnectorUnavailableError:
        info = None  # of another release: not ours to take apart
    if info is not None and not dry_run:
        return [Reaped(directory, "store of a dead owner", remove_store(info, owner))]
    os.close(owner)
    return (
        [] if info is None else [Reaped(directory, "store of a dead owner", _size_of_store(info))]
    )


def reap_spill(root: str, *, dry_run: bool = False) -> list[Reaped]:
    """Remove the spilled objects under a root whose stores are gone, as after a reboot."""
    reaped = []
    for path in _directories(root):
        try:
            with open(f"{path}/{MARKER}", encoding="utf-8") as file:
                store = file.read()
        except FileNotFoundError:
            store = ""
            if _is_young(path):
                continue
        with contextlib.suppress(ConnectorUnavailableError):
            info = read_info(store) if store else None
            if info is None or info.spill != path:
                reaped.append(Reaped(path, "spill of a store that is gone", _remove(path, dry_run)))
    return reaped


def reap_partial(info: StoreInfo, *, dry_run: bool = False) -> list[Reaped]:
    """Remove what killed writers left in a living store, and count its books anew."""
    ledger = Ledger(info.directory, info.token, info.quota)
    reaped = []
    try:
        with ledger:
            for directory in filter(None, (info.directory, info.spill)):
                path = f"{directory}/{PARTIAL}"
                with contextlib.suppress(FileNotFoundError):
                    if removed := remove_stale(path, dry_run=dry_run)[1]:
                        reaped.append(Reaped(path, "objects half written", removed))
            if not dry_run:
                ledger.recount()
    except ConnectorClosedError:
        pass  # it went meanwhile
    finally:
        ledger.close()
    return reaped


def _directories(root: str) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in list(os.scandir(root)):
            if entry.is_dir(follow_symlinks=False):
                yield entry.path


def _is_young(path: str) -> bool:
    """Tell whether a living process may still be making a directory."""
    try:
        return time.time() - os.stat(path).st_mtime < _YOUNG
    except FileNotFoundError:
        return True


def _remove(path: str, dry_run: bool) -> int:
    return tree_size(path) if dry_run else remove_tree(path)


def _size_of_store(info: StoreInfo) -> int:
    return tree_size(info.directory) + (tree_size(info.spill) if info.spill else 0)


def tree_size(path: str) -> int:
    """Return the bytes of all files in a directory."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(path):
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    total += tree_size(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total
