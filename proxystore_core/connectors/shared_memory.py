"""A channel through memory that the processes of one node share.

Every object is a file in a directory of a memory file system. Putting one costs
one copy; getting one costs a few system calls, whatever its size, because it is
mapped and not read.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from proxystore_core.connectors._channel import Channel
from proxystore_core.connectors._directory import open_store
from proxystore_core.connectors._issued import is_object_id
from proxystore_core.connectors._layout import (
    StoreInfo,
    default_spill_dir,
    read_info,
    root_path,
    shared_memory_root,
)
from proxystore_core.connectors._ledger import closed_error
from proxystore_core.connectors._limits import choose_limits
from proxystore_core.connectors._parts import byte_views, put_all
from proxystore_core.connectors._process import host_of, node_id
from proxystore_core.connectors._reaping import reap_spill, reap_stores
from proxystore_core.connectors.protocols import Reservation, Usage
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorConfigError,
    ConnectorUnavailableError,
    InvalidKeyError,
    MissingReason,
)

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike

__all__ = ["SharedMemoryConnector", "SharedMemoryKey", "shared_memory_root"]


class SharedMemoryKey(NamedTuple):
    """Key of an object in a `SharedMemoryConnector`.

    Attributes:
        object_id: Id of the object, never issued twice.
    """

    object_id: str


class SharedMemoryConnector:
    """A connector that keeps every object in a mapped file of a memory file system.

    The directory belongs to the connector that made it. When that one is closed
    or collected, or its process ends in any way, the directory goes with all
    objects; what a process still maps stays valid for it. Other connectors,
    and forked children, only use the directory.

    Args:
        directory: Directory of the store. By default a new one under
            `$PROXYSTORE_SHM_ROOT`, else `/dev/shm/proxystore-<uid>`, else the
            temporary directory. If it has a living owner this connector attaches
            to it, and the limits below are the owner's; else it makes it.
        quota: Bytes that all segments of the store may take together, as a number
            or as text like `'4 GB'`; by default half of the device or of the
            memory, whichever is less.
        spill_dir: Directory for what does not fit into the quota; by default one
            under the temporary directory.
        spill: Whether to write to disk what does not fit, instead of raising.
        recycle: Bytes of evicted segments to keep for reuse, as `quota`; by default
            a quarter of the quota in memory, and none on disk.
        joint: Own a named directory together with all others who open it so: it goes
            with the last of them, whoever made it.

    Raises:
        ConnectorConfigError: A limit is unusable, the directory holds other files, or
            there is none for `joint`.
        ConnectorUnavailableError: The directory cannot be made, or is somebody else's.
    """

    trusted: ClassVar[bool] = True

    def __init__(
        self,
        directory: str | None = None,
        *,
        quota: int | str | None = None,
        spill_dir: str | None = None,
        spill: bool = True,
        recycle: int | str | None = None,
        joint: bool = False,
    ) -> None:
        if joint and directory is None:
            raise ConnectorConfigError(
                "joint=True needs directory=: the one that the others open, too."
            )
        root = shared_memory_root() if directory is None else os.path.abspath(directory)
        limits = choose_limits(root, quota, recycle)
        if spill:
            spill_dir = os.path.abspath(spill_dir) if spill_dir else default_spill_dir()
            if os.path.exists(spill_dir) and not os.path.isdir(spill_dir):
                raise ConnectorConfigError(f"spill_dir={spill_dir!r} is not a directory.")
            reap_spill(spill_dir)
        if directory is None:
            reap_stores(root)
        elif (parent := os.path.dirname(root)) == root_path():
            reap_stores(parent)
        info, owner = open_store(
            None if directory is None else root,
            *limits,
            spill_dir if spill else None,
            joint=joint,
        )
        self._attach(info, owner)

    def _attach(self, info: StoreInfo, owner: int | None) -> None:
        self.directory = info.directory
        self._node = info.node
        self._closed = False
        self._channel: Channel | None = Channel(info, owner)
        self._finalizer = weakref.finalize(self, self._channel.close)
        if owner is not None and (util := sys.modules.get("multiprocessing.util")):
            # A child of multiprocessing ends without running what `atexit` knows.
            util.Finalize(None, self._finalizer, exitpriority=-100)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.directory!r})"

    def close(self) -> None:
        """Let go of the directory; its owner removes it, with all objects."""
        self._closed = True
        if self._channel is not None:
            self._finalizer()
            self._channel = None

    def config(self) -> dict[str, Any]:
        """Return what `from_config` needs to attach to the directory."""
        return {"directory": self.directory, "host": self._node}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Attach to the directory of a connector; it is never made anew.

        Where it is gone, its objects read as absent, with the reason that their
        store was closed. A configuration without a host is one that a user wrote:
        it is taken as the arguments of the constructor.

        Raises:
            ConnectorUnavailableError: The directory is on another host.
        """
        if "host" not in config:
            return cls(**config)
        directory, node = config["directory"], config["host"]
        info = read_info(directory)
        if info is not None and info.node != node:
            info = None  # one of the same path, on another host
        if info is None and node != node_id():
            raise ConnectorUnavailableError(
                f"The objects in {directory} are in the memory of host {host_of(node)!r}, and this "
                f"is {host_of(node_id())!r} (or it was rebooted). Use a connector that reaches "
                "across hosts, such as FileConnector on a shared file system."
            )
        connector = cls.__new__(cls)
        if info is not None:
            connector._attach(info, None)
        else:
            connector.directory, connector._node = directory, node
            connector._closed, connector._channel = False, None
        return connector

    def new_key(self, obj: BytesLike | None = None) -> SharedMemoryKey:
        """Return a key that `set` takes later.

        Args:
            obj: Ignored.
        """
        return SharedMemoryKey(self._writable().issue())

    def put(self, obj: BytesLike) -> SharedMemoryKey:
        """Store bytes and return their key.

        Raises:
            StorageFullError: There is no room, neither in memory nor on disk.
            ConnectorClosedError: The store was closed, here or by its owner.
        """
        return self.put_parts((obj,))

    def put_parts(self, parts: Sequence[BytesLike]) -> SharedMemoryKey:
        """Store the concatenation of the parts, without joining them; raises as `put`."""
        views, nbytes = byte_views(parts)
        channel = self._writable()
        object_id = channel.issue()
        channel.write(object_id, views, nbytes, new=True)
        return SharedMemoryKey(object_id)

    def put_batch(self, objs: Sequence[BytesLike]) -> list[SharedMemoryKey]:
        """Store several objects; all are stored, or none. Raises as `put`."""
        return put_all(objs, self.put, self.evict)

    def set(self, key: SharedMemoryKey, obj: BytesLike) -> None:
        """Store bytes under a key of `new_key`, in place of what is there. Raises as `put`."""
        self.set_parts(key, (obj,))

    def set_parts(self, key: SharedMemoryKey, parts: Sequence[BytesLike]) -> None:
        """Store the concatenation of the parts under a key of `new_key`; raises as `put`."""
        object_id = _id_of(key)
        views, nbytes = byte_views(parts)
        self._writable().write(object_id, views, nbytes, new=False)

    def reserve(self, key: SharedMemoryKey, nbytes: int) -> Reservation:
        """Lend the memory in which the object of a key will lie; raises as `put`.

        Args:
            key: A key of `new_key`.
            nbytes: Length of the object in bytes.
        """
        if nbytes < 0:
            raise ValueError(f"An object has 0 bytes or more, not {nbytes}.")
        return self._writable().reserve(_id_of(key), nbytes)

    def get(self, key: SharedMemoryKey) -> BytesLike | None:
        """Return the bytes of a key, or `None` where there are none.

        Large objects are mapped, not read: the view holds the memory, also after
        the object was evicted.

        Raises:
            CorruptObjectError: The object is damaged or truncated.
        """
        object_id = _id_of(key)
        channel = self._readable()
        return None if channel is None else channel.read(object_id)

    def get_view(self, key: SharedMemoryKey) -> memoryview | None:
        """Return the bytes of a key as writable, private memory; raises as `get`."""
        object_id = _id_of(key)
        channel = self._readable()
        return None if channel is None else channel.view(object_id)

    def get_batch(self, keys: Sequence[SharedMemoryKey]) -> list[BytesLike | None]:
        """Return the bytes of several keys, in their order; raises as `get`."""
        return [self.get(key) for key in keys]

    def exists(self, key: SharedMemoryKey) -> bool:
        """Tell whether the key has an object."""
        object_id = _id_of(key)
        channel = self._readable()
        return channel is not None and channel.exists(object_id)

    def evict(self, key: SharedMemoryKey) -> None:
        """Remove the object of a key; removing nothing is no error."""
        object_id = _id_of(key)
        channel = self._readable()
        if channel is not None:
            channel.evict(object_id)

    def expire(self, key: SharedMemoryKey) -> None:
        """Remove the object of a key, and remember it as expired."""
        object_id = _id_of(key)
        channel = self._readable()
        if channel is not None:
            channel.expire(object_id)

    def missing_reason(self, key: SharedMemoryKey) -> MissingReason:
        """Say why a key has no object."""
        object_id = _id_of(key)
        if self._channel is None:
            return MissingReason.STORE_CLOSED
        return self._channel.reason(object_id)

    def keys(self) -> Iterator[SharedMemoryKey]:
        """Iterate over the keys of all objects in the store."""
        channel = self._readable()
        if channel is not None:
            yield from map(SharedMemoryKey, channel.ids())

    def usage(self) -> Usage:
        """Count what the store holds; `reserved` are the evicted segments kept for reuse."""
        channel = self._readable()
        return Usage(0, 0) if channel is None else channel.usage()

    def _readable(self) -> Channel | None:
        if self._channel is None and self._closed:
            raise ConnectorClosedError(f"This connector to {self.directory} was closed.")
        return self._channel

    def _writable(self) -> Channel:
        channel = self._readable()
        if channel is None:
            raise closed_error(self.directory)
        return channel


def _id_of(key: SharedMemoryKey) -> str:
    if not isinstance(key, SharedMemoryKey) or not is_object_id(key.object_id):
        raise InvalidKeyError(
            f"{key!r} is no key of a SharedMemoryConnector; use one that put or new_key returned."
        )
    return key.object_id
