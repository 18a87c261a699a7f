"""Who may clear a directory of a `FileConnector`, and of what."""

from __future__ import annotations

import contextlib
import os
import re
import time

from proxystore_core.connectors._process import node_id, try_lock
from proxystore_core.exceptions import ConnectorUnavailableError

MARKER = ".proxystore-owner"
PARTIAL = ".proxystore-partial-"
EXPIRED = ".proxystore-expired-"
SWEPT = ".proxystore-swept"
_NAME = re.compile(r"(d?[0-9a-f]{32})(?:t([0-9a-f]{1,12}))?")
_PLAIN = 32  # length of a name that is not deferred
_MADE_HERE = "made"
_YOUNG = 60.0  # seconds in which a partial file may not be locked yet
_SWEEPS = 3600.0  # seconds between two looks for what expired
_OLD = 86400.0  # seconds after which a partial file is dead, where files cannot be locked


def is_object_name(name: object) -> bool:
    """Tell whether something is the name of an object's file, and so stays in the directory."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def object_name(ttl: float | None, *, deferred: bool = False) -> str:
    """Make a new name of an object's file, which tells when it expires.

    Args:
        ttl: Seconds until then; `None` for never.
        deferred: The object will come later.
    """
    name = f"{'d' if deferred else ''}{os.urandom(_PLAIN // 2).hex()}"
    return name if ttl is None else f"{name}t{int(time.time() + ttl):x}"


def is_deferred(name: str) -> bool:
    """Tell whether a name was made before there was an object."""
    return len(name.partition("t")[0]) > _PLAIN


def has_expired(name: str) -> bool:
    """Tell whether the time of an object is over."""
    found = _NAME.fullmatch(name)
    return found is not None and found[2] is not None and int(found[2], 16) < time.time()


def is_store(directory: str) -> bool:
    """Tell whether a directory is one of a `FileConnector` that owns it, or lets objects expire."""
    return any(os.path.exists(f"{directory}/{name}") for name in (MARKER, SWEPT))


def sweep(directory: str, *, dry_run: bool = False) -> list[tuple[str, int]]:
    """Remove the objects whose time is over.

    Args:
        directory: The directory.
        dry_run: Only say which they are.

    Returns:
        Paths and sizes in bytes of what is removed.
    """
    gone = []
    for name in filter(has_expired, _names(directory)):
        path = f"{directory}/{name}"
        with contextlib.suppress(FileNotFoundError, PermissionError):
            size = os.stat(path).st_size
            if not dry_run:
                os.unlink(path)
            gone.append((path, size))
    return gone


def sweep_sometimes(directory: str) -> None:
    """Remove the objects whose time is over, unless somebody did so within the last hour."""
    path = f"{directory}/{SWEPT}"
    with contextlib.suppress(PermissionError, FileNotFoundError):
        try:
            if abs(time.time() - os.stat(path).st_mtime) < _SWEEPS:
                return
            os.utime(path)
        except FileNotFoundError:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sweep(directory)


def own(directory: str, *, made: bool) -> int | None:
    """Become the one who clears a directory, unless somebody else is.

    An owner that died on this node is succeeded. One on another node is not:
    whether it lives cannot be told on every shared file system.

    Args:
        directory: The directory.
        made: Whether this process just made it.

    Returns:
        A descriptor to hold as long as the directory is owned, or `None`.
    """
    path = f"{directory}/{MARKER}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        text = f"{node_id()}\n{_MADE_HERE if made else ''}\n"
    except FileExistsError:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            return None
        text = ""
    except OSError:  # a directory to read from only
        return None
    if _is_ours(fd, path, text):
        return fd
    os.close(fd)
    return None


def _is_ours(fd: int, path: str, text: str) -> bool:
    try:
        locked = try_lock(fd, exclusive=True)
    except ConnectorUnavailableError:
        locked = bool(text)  # no locks here: the first one owns it, for good
    if not locked:
        return False
    if text:
        os.write(fd, text.encode())
        return True
    with contextlib.suppress(FileNotFoundError):
        node = os.pread(fd, 256, 0).decode().partition("\n")[0]
        return node == node_id() and os.path.samestat(os.stat(path), os.fstat(fd))
    return False


def clear_directory(directory: str, owner: int) -> None:
    """Remove what stores wrote to a directory, and the directory if one made it and it is empty.

    Args:
        directory: The directory.
        owner: The descriptor that owns it; it is closed.
    """
    made = os.pread(owner, 256, 0).decode().split("\n")[1:2] == [_MADE_HERE]
    for name in _names(directory):
        if is_object_name(name) or name.startswith((PARTIAL, EXPIRED)):
            _unlink(f"{directory}/{name}")
    _unlink(f"{directory}/{SWEPT}")
    _unlink(f"{directory}/{MARKER}")
    os.close(owner)
    if made:
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def remove_stale(directory: str) -> None:
    """Remove the partial files whose writers are gone."""
    for name in _names(directory):
        if not name.startswith(PARTIAL):
            continue
        path = f"{directory}/{name}"
        with contextlib.suppress(FileNotFoundError, PermissionError):
            age = time.time() - os.stat(path).st_mtime
            if age > _YOUNG and _is_dead(path, age):
                os.unlink(path)


def _is_dead(path: str, age: float) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return try_lock(fd, exclusive=True)
    except ConnectorUnavailableError:
        return age > _OLD
    finally:
        os.close(fd)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
