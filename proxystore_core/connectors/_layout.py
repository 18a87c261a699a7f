"""Store directories: what lies in one, and where.

<root>/<token>/
owner   what the store is; locked by the process that owns it, or by all that do
ledger  what the quota has been spent on
o/      objects: one segment each, named by object id
f/      free segments, to be written again
t/      segments being written, each locked by its writer
w/      one file a writer: what became of the ids it issued
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any, NamedTuple

from proxystore_core.exceptions import ConnectorUnavailableError

OBJECTS, FREE, PARTIAL, WRITERS = "o", "f", "t", "w"
OWNER, LEDGER = "owner", "ledger"
STAGED = ".new-"
DEAD = ".dead-"  # before the name of a part that is being removed
LEASE = "lease."  # of a file to try out the locks of a file system with
PARTS = (PARTIAL, OBJECTS, FREE, WRITERS)
VERSION = 1


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
        joint: Whether all who opened it to own it do so together.
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
    joint: bool = False


def root_path() -> str:
    """Return where this user's stores lie, whether there are any or not.

    `$PROXYSTORE_SHM_ROOT`, else `/dev/shm/proxystore-<uid>`, else the same under
    the temporary directory.
    """
    root = os.environ.get("PROXYSTORE_SHM_ROOT")
    if not root:
        base = "/dev/shm"  # noqa: S108 - inside it, a directory of our own
        if not os.access(base, os.W_OK | os.X_OK):
            import tempfile

            base = tempfile.gettempdir()
        root = f"{base}/proxystore-{os.getuid()}"
    return os.path.abspath(root)


def shared_memory_root() -> str:
    """Return where this user's stores lie, and make the directory if need be.

    Raises:
        ConnectorUnavailableError: It is somebody else's, or open to others.
    """
    root = root_path()
    make_private(root)
    return root


def default_spill_dir() -> str:
    """Return the directory under which this user's stores spill unless told otherwise."""
    import tempfile

    return f"{os.path.abspath(tempfile.gettempdir())}/proxystore-spill-{os.getuid()}"


def make_in(parent: str, directory: str) -> None:
    """Make a private directory, and the one that it lies in if need be."""
    while True:
        os.makedirs(parent, mode=0o700, exist_ok=True)
        # Where the parent is gone again the last directory in it went, and it with that.
        with contextlib.suppress(FileNotFoundError):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            return


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
        if version == VERSION:
            return StoreInfo(directory=directory, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConnectorUnavailableError(f"{directory}/{OWNER} is unreadable: {error}") from error
    raise ConnectorUnavailableError(
        f"The store {directory} has format {version}, this release reads {VERSION}. "
        "Use one release of proxystore-core in all processes of a workflow."
    )
