"""Store directories: where one lies, who owns it, how it comes and goes.

    <root>/<token>/
        owner   what the store is; locked by the process that owns it
        ledger  what the quota has been spent on
        o/      objects: one segment each, named by object id
        f/      free segments, to be written again
        t/      segments being written, each locked by its writer
        w/      one file a writer: what became of the ids it issued

A directory is made under another name and renamed, so that nobody ever sees
half of one. The kernel gives the owner's lock back when the owner dies, however
it dies, and then anybody may remove the directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from typing import Any, NamedTuple

from proxystore_core.connectors._process import Backoff, node_id, random_id, try_lock
from proxystore_core.exceptions import ConnectorConfigError, ConnectorUnavailableError

OBJECTS, FREE, PARTIAL, WRITERS = "o", "f", "t", "w"
OWNER, LEDGER = "owner", "ledger"
STAGED = ".new-"
_PARTS = (PARTIAL, OBJECTS, FREE, WRITERS)
_VERSION = 1


class StoreInfo(NamedTuple):
    """What the owner of a store directory wrote down about it.

    Attributes:
        directory: Absolute path.
        token: Random id of this incarnation of the directory, the start of all its keys.
        node: Node that it was made on.
        pid: Process id of the owner.
        started: When it was made, in seconds since the epoch.
        command: Command line of the owner.
        quota: Bytes that its segments may take.
        recycle: Bytes of evicted segments to keep for reuse.
        spill: Directory for what does not fit, or `None` for none.
    """

    directory: str
    token: str
    node: str
    pid: int
    started: float
    command: str
    quota: int
    recycle: int
    spill: str | None


def shared_memory_root() -> str:
    """Return the directory that this user's stores lie in; make it if need be.

    `$PROXYSTORE_SHM_ROOT`, else `/dev/shm/proxystore-<uid>`, else the same under
    the temporary directory.

    Raises:
        ConnectorUnavailableError: It is somebody else's, or open to others.
    """
    root = os.environ.get("PROXYSTORE_SHM_ROOT")
    if not root:
        base = "/dev/shm"  # noqa: S108 - inside it, a directory of our own
        if not os.access(base, os.W_OK | os.X_OK):
            import tempfile

            base = tempfile.gettempdir()
        root = f"{base}/proxystore-{os.getuid()}"
    root = os.path.abspath(root)
    make_private(root)
    return root


def make_private(directory: str) -> None:
    """Make a directory for this user alone, or check that it is one.

    Raises:
        ConnectorUnavailableError: It cannot be made, is somebody else's, or open to others.
    """
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        status = os.lstat(directory)
    except OSError as error:
        raise ConnectorUnavailableError(
            f"The directory {directory} cannot be made: {error.strerror}. Name another one "
            "(PROXYSTORE_SHM_ROOT, directory= or spill_dir=)."
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise ConnectorUnavailableError(f"{directory} is a link or a file, not a directory.")
    if status.st_uid != os.geteuid():
        raise ConnectorUnavailableError(
            f"The directory {directory} belongs to user {status.st_uid}. Name another one "
            "(PROXYSTORE_SHM_ROOT, directory= or spill_dir=)."
        )
    if status.st_mode & 0o077:
        raise ConnectorUnavailableError(
            f"Others may enter {directory}. Close it with: chmod 700 {directory}"
        )


def read_info(directory: str) -> StoreInfo | None:
    """Read what a store directory says of itself; `None` where there is no store.

    Raises:
        ConnectorUnavailableError: It is somebody else's, or of another release.
    """
    try:
        with open(f"{directory}/{OWNER}", encoding="utf-8") as file:
            return _parse(directory, os.fstat(file.fileno()), file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise ConnectorUnavailableError(f"The store {directory} is another user's.") from error


def _parse(directory: str, status: os.stat_result, text: str) -> StoreInfo:
    import json

    if status.st_uid != os.geteuid():
        raise ConnectorUnavailableError(f"The store {directory} is another user's.")
    try:
        fields: dict[str, Any] = json.loads(text)
        version = fields.pop("version")
        if version == _VERSION:
            return StoreInfo(directory=directory, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConnectorUnavailableError(f"{directory}/{OWNER} is unreadable: {error}") from error
    raise ConnectorUnavailableError(
        f"The store {directory} has format {version}, this release reads {_VERSION}. "
        "Use one release of proxystore-core in all processes of a workflow."
    )


def create(
    directory: str | None, quota: int, recycle: int, spill: str | None
) -> tuple[StoreInfo, int]:
    """Make a store directory that this process owns.

    Args:
        directory: Its path, absent or empty; a new one under the root by default.
        quota: Bytes that its segments may take.
        recycle: Bytes of evicted segments to keep.
        spill: Directory for the spill directories of stores, or `None` for none.

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
    )
    fields = {**info._asdict(), "version": _VERSION}
    del fields["directory"]
    os.makedirs(parent, mode=0o700, exist_ok=True)
    os.mkdir(staged, 0o700)
    owner = -1
    try:
        owner = os.open(
            f"{staged}/{OWNER}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try_lock(owner, exclusive=True)
        os.write(owner, json.dumps(fields).encode())
        os.close(os.open(f"{staged}/{LEDGER}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for part in _PARTS:
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
    directory: str | None, quota: int, recycle: int, spill: str | None
) -> tuple[StoreInfo, int | None]:
    """Attach to the store in a directory if it has a living owner, else make and own one.

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
            if owner is None:
                return info, None
            remove_store(info, owner)
        elif directory is not None and os.path.isdir(directory) and os.listdir(directory):
            raise ConnectorConfigError(
                f"{directory} holds other files; give a directory that is new or empty."
            )
        with contextlib.suppress(FileExistsError):
            return create(directory, quota, recycle, spill)
        if not backoff.pause():
            raise ConnectorUnavailableError(f"The directory {directory} keeps changing.")


def claim(directory: str, *, tries: int = 3) -> int | None:
    """Become the owner of a store whose owner is gone.

    Args:
        directory: The directory of the store.
        tries: How often to try: who lists stores holds the lock for a moment.

    Returns:
        The descriptor that owns it, or `None` where it has an owner, or is no store.
    """
    path = f"{directory}/{OWNER}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        locked = try_lock(fd, exclusive=True)
        while not locked and tries > 1:
            time.sleep(0.001)
            tries -= 1
            locked = try_lock(fd, exclusive=True)
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
        from proxystore_core.connectors._ledger import mark_closed

        mark_closed(f"{info.directory}/{LEDGER}")
        for part in _PARTS:
            dead = f"{info.directory}/.dead-{part}"
            freed += remove_tree(dead)
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{info.directory}/{part}", dead)
            freed += remove_tree(dead)
        if info.spill is not None:
            freed += remove_tree(info.spill)
        for name in (LEDGER, OWNER):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{info.directory}/{name}")
        with contextlib.suppress(OSError):
            os.rmdir(info.directory)
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
