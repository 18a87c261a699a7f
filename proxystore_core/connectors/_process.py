"""What a process knows of itself: its node, its locks, and that it was forked."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from functools import cache
from typing import Protocol
from weakref import WeakSet

from proxystore_core.exceptions import ConnectorUnavailableError

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class Forkable(Protocol):
    """Something that must not be shared between a process and its forks."""

    def after_fork(self) -> None:
        """Let go, in the child, of what stays the parent's."""


_FORKABLE: WeakSet[Forkable] = WeakSet()


def watch_fork(obj: Forkable) -> None:
    """Call `obj.after_fork()` in every child that this process forks."""
    _FORKABLE.add(obj)


def _after_fork() -> None:
    for obj in list(_FORKABLE):
        obj.after_fork()


os.register_at_fork(after_in_child=_after_fork)


@cache
def node_id() -> str:
    """Name this node so that no other has the same name: host, and which boot of it.

    A file system in memory does not outlive a boot, so what an earlier boot
    stored is as far away as another host.
    """
    host = os.uname().nodename.partition(".")[0][:32]
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{host}/{file.read(8)}"
    except OSError:
        return host


def host_of(node: str) -> str:
    """Return the host name in a node id."""
    return node.partition("/")[0]


def random_id(length: int = 8) -> str:
    """Make a random id of lower-case letters and digits (5 bits a character)."""
    return "".join("0123456789abcdefghjkmnpqrstvwxyz"[byte & 31] for byte in os.urandom(length))


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Take a lock on an open file unless somebody else's is in the way.

    Args:
        fd: The file.
        exclusive: Whether to be the only one, instead of one of many readers.

    Returns:
        Whether the lock was taken.

    Raises:
        ConnectorUnavailableError: The file system has no locks.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise ConnectorUnavailableError(
                "The file system of the shared-memory directory has no flock; set "
                "PROXYSTORE_SHM_ROOT to a directory of a local file system."
            ) from error
        raise
    return True


def unlock(fd: int) -> None:
    """Give a lock back, also where a forked child or a mapping still holds the file open."""
    fcntl.flock(fd, fcntl.LOCK_UN)


class Backoff:
    """Short, growing pauses until a deadline.

    Args:
        seconds: Time until `pause` says no.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._next = 20e-6

    def pause(self) -> bool:
        """Sleep a little; tell whether there is time left."""
        time.sleep(self._next)
        self._next = min(self._next * 2, 0.01)
        return time.monotonic() < self._deadline
