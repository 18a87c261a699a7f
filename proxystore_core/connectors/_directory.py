"""How store directories come and go, and who owns one.

A directory is made under another name and renamed, so that nobody ever sees
half of one. The kernel gives the owner's lock back when the owner dies, however
it dies, and then anybody may remove the directory. The owners of a joint store
share the lock: whoever closes it tries to become the only one, and the last does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time

from proxystore_core.connectors._layout import (
    DEAD,
    LEASE,
    LEDGER,
    OWNER,
    PARTS,
    STAGED,
    VERSION,
    StoreInfo,
    default_spill_dir,
    make_in,
    read_info,
    root_path,
    shared_memory_root,
)
from proxystore_core.connectors._ledger import mark_closed
from proxystore_core.connectors._process import Backoff, node_id, random_id, try_lock
from proxystore_core.exceptions import ConnectorConfigError, ConnectorUnavailableError


def create(
    directory: str | None, quota: int, recycle: int, spill: str | None, *, joint: bool = False
) -> tuple[StoreInfo, int]:
    """Make a store directory that this process owns.

    Args:
        directory: Its path, absent or empty; a new one under the root by default.
        quota: Bytes that its segments may take.
        recycle: Bytes of evicted segments to keep.
        spill: Directory for the spill directories of stores, or `None` for none.
        joint: Whether others may come to own it together with this process.

    Returns:
        What it is, and the descriptor that owns it.

    Raises:
        FileExistsError: Something else is there by now.
    """
    import json

    token = random_id()
    final = f"{shared_memory_root()}/{token}" if directory is None else directory
    parent = os.path.dirname(final)
    staged = f"{parent}/{STAGED}{token}"
    info = StoreInfo(
        directory=final,
        token=token,
        node=node_id(),
        pid=os.getpid(),
        started=time.time(),
        command=" ".join(sys.orig_argv)[:200],
        quota=quota,
        recycle=recycle,
        spill=None if spill is None else f"{spill}/{token}",
        joint=joint,
    )
    fields = {**info._asdict(), "version": VERSION}
    del fields["directory"]
    make_in(parent, staged)
    owner = -1
    try:
        owner = os.open(
            f"{staged}/{OWNER}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try_lock(owner, exclusive=not joint)
        os.write(owner, json.dumps(fields).encode())
        os.close(os.open(f"{staged}/{LEDGER}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for part in PARTS:
            os.mkdir(f"{staged}/{part}", 0o700)
        os.rename(staged, final)
    except BaseException as error:
        remove_tree(staged)
        if owner >= 0:
            os.close(owner)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(error.errno, error.strerror, final) from error
        raise
    return info, owner


def open_store(
    directory: str | None, quota: int, recycle: int, spill: str | None, *, joint: bool = False
) -> tuple[StoreInfo, int | None]:
    """Attach to the store in a directory if it has a living owner, else make and own one.

    Args:
        directory: As for `create`, like the next three.
        quota: Bytes that its segments may take.
        recycle: Bytes of evicted segments to keep.
        spill: Directory for the spill directories of stores.
        joint: Whether to own it together with its other owners.

    Returns:
        What the store is, and the descriptor that owns it, or `None` where somebody else does.

    Raises:
        ConnectorConfigError: The directory holds other files.
        ConnectorUnavailableError: The directory is somebody else's, or busy.
    """
    backoff = Backoff(10.0)
    while True:
        info = None if directory is None else read_info(directory)
        if info is not None:
            owner = claim(info.directory)
            if owner is not None:
                remove_store(info, owner)
            elif not (joint and info.joint):
                return info, None
            elif (share := join(info.directory)) is not None:
                # Read anew: the one read before may have gone, and another come in its place.
                return read_info(info.directory) or info, share
        elif directory is not None and (foreign := _foreign_files(directory)):
            raise ConnectorConfigError(
                f"{directory} holds other files ({', '.join(foreign[:3])}); give a directory "
                "that is new or empty."
            )
        with contextlib.suppress(FileExistsError):
            return create(directory, quota, recycle, spill, joint=joint)
        if not backoff.pause():
            raise ConnectorUnavailableError(f"The directory {directory} keeps changing.")


def _foreign_files(directory: str) -> list[str]:
    """Name what no store made in a directory, not even one that comes or goes."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    ours = {OWNER, LEDGER, *PARTS}
    return [name for name in names if name not in ours and not name.startswith((DEAD, LEASE))]


def claim(directory: str, *, tries: int = 3) -> int | None:
    """Become the owner of a store whose owner is gone.

    Args:
        directory: The directory of the store.
        tries: How often to try: who lists stores holds the lock for a moment.

    Returns:
        The descriptor that owns it, or `None` where it has an owner, or is no store.
    """
    return _lock_owner(directory, exclusive=True, tries=tries)


def join(directory: str) -> int | None:
    """Become one of the owners of a joint store; `None` where somebody removes it."""
    return _lock_owner(directory, exclusive=False, tries=3)


def leave(info: StoreInfo, owner: int) -> None:
    """Give up a store; unless others own it too, it is removed.

    Args:
        info: The store.
        owner: The descriptor that owns it; it is closed.
    """
    if info.joint and not try_lock(owner, exclusive=True):
        os.close(owner)
    else:
        remove_store(info, owner)


def _lock_owner(directory: str, *, exclusive: bool, tries: int) -> int | None:
    path = f"{directory}/{OWNER}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        locked = try_lock(fd, exclusive=exclusive)
        while not locked and tries > 1:
            time.sleep(0.001)
            tries -= 1
            locked = try_lock(fd, exclusive=exclusive)
        if locked and os.path.samestat(os.stat(path), os.fstat(fd)):
            return fd
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def remove_store(info: StoreInfo, owner: int) -> int:
    """Remove a store: its segments, its spilled objects, its directory.

    Files in the directory that no store wrote stay, and the directory with them.

    Args:
        info: The store.
        owner: The descriptor that owns it; it is closed.

    Returns:
        Bytes that were freed.
    """
    freed = 0
    try:
        mark_closed(f"{info.directory}/{LEDGER}")
        for part in PARTS:
            dead = f"{info.directory}/{DEAD}{part}"
            freed += remove_tree(dead)
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{info.directory}/{part}", dead)
            freed += remove_tree(dead)
        if info.spill is not None:
            freed += remove_tree(info.spill)
            if (parent := os.path.dirname(info.spill)) == default_spill_dir():
                with contextlib.suppress(OSError):  # not empty: other stores spilled, too
                    os.rmdir(parent)
        for name in (LEDGER, OWNER):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{info.directory}/{name}")
        with contextlib.suppress(OSError):  # not empty: somebody's own files, or other stores
            os.rmdir(info.directory)
            if os.path.dirname(info.directory) == root_path():
                os.rmdir(os.path.dirname(info.directory))
    finally:
        os.close(owner)
    return freed


def remove_tree(path: str) -> int:
    """Remove a directory and all in it, if there is one; return the bytes of its files."""
    freed = 0
    try:
        entries = list(os.scandir(path))
    except (FileNotFoundError, NotADirectoryError):
        return 0
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                freed += remove_tree(entry.path)
            else:
                freed += entry.stat(follow_symlinks=False).st_size
                os.unlink(entry.path)
    with contextlib.suppress(OSError):
        os.rmdir(path)
    return freed
