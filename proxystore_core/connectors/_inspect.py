"""Looking at stores from outside, without becoming a part of them."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from proxystore_core.connectors._channel import Channel
from proxystore_core.connectors._layout import OWNER, PARTIAL, StoreInfo, read_info
from proxystore_core.connectors._process import try_lock
from proxystore_core.connectors._reaping import store_directories, tree_size
from proxystore_core.connectors.protocols import Usage
from proxystore_core.exceptions import ConnectorUnavailableError


class StoreStatus(NamedTuple):
    """A store as it is now.

    Attributes:
        info: What its owner wrote down about it.
        alive: Whether its owner lives.
        usage: What it holds.
        spilled: Bytes of its files on disk.
        partial: Bytes of objects that are being written, or were when their writer died.
    """

    info: StoreInfo
    alive: bool
    usage: Usage
    spilled: int
    partial: int


def look(directory: str) -> StoreStatus | None:
    """Look at one store; `None` where there is none.

    Raises:
        ConnectorUnavailableError: It is another user's, or of another release.
    """
    info = read_info(directory)
    if info is None:
        return None
    channel = Channel(info, None)
    try:
        return StoreStatus(
            info=info,
            alive=is_owned(directory),
            usage=channel.usage(),
            spilled=tree_size(info.spill) if info.spill else 0,
            partial=tree_size(f"{directory}/{PARTIAL}"),
        )
    finally:
        channel.close()


def look_at_all(root: str) -> list[StoreStatus]:
    """Look at all stores under a root that this release can read, oldest first."""
    found = []
    for directory in store_directories(root):
        with contextlib.suppress(ConnectorUnavailableError):
            status = look(directory)
            if status is not None:
                found.append(status)
    return sorted(found, key=lambda status: status.info.started)


def is_owned(directory: str) -> bool:
    """Tell whether a store has a living owner."""
    try:
        fd = os.open(f"{directory}/{OWNER}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd, exclusive=True)  # the owners of a joint store share theirs
    finally:
        os.close(fd)
