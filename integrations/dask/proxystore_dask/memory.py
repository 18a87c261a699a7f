"""The memory that the scheduler, the workers and the clients of a node share.

All of them own it together: it goes with the last of them, however that ends.
Each has a store of its own there, so that the ids of what a process stored
tell who it was, and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from proxystore_core.autoproxy import Policy
from proxystore_core.autoproxy.sizes import size_of
from proxystore_core.connectors.shared_memory import SharedMemoryConnector, shared_memory_root
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorUnavailableError,
    SerializationError,
    StorageFullError,
)
from proxystore_core.proxy import describe
from proxystore_core.serialize import BytesLike, Parts
from proxystore_core.store import Store
from proxystore_core.store.config import StoreConfig
from proxystore_dask import access
from proxystore_dask.access import Handle
from proxystore_dask.sizes import is_foreign, is_repeated

_COPIED = (bytes, bytearray, str)


class Memory:
    """One party's access to the memory of a node.

    Args:
        store: The store, which is closed with this.
        policy: What is stored, and how it is handed out.
    """

    def __init__(self, store: Store[Any], policy: Policy) -> None:
        self.store = store
        self.config = store.config()
        self._lies_in: StoreConfig | None = self.config  # what is stored
        self.policy = policy
        self.prefix = _prefix(store)
        access.enter(self.config, store)

    @classmethod
    def open(cls, cluster: str, policy: Policy, config: StoreConfig | None = None) -> Memory:
        """Open the memory of this node.

        Args:
            cluster: Id of the scheduler.
            policy: What is stored, and how it is handed out.
            config: A store of the user's to use instead.

        Raises:
            ConnectorUnavailableError: It cannot be reached or made here.
            ConnectorClosedError: The store of the user's is gone.
        """
        if config is not None:
            store = Store.from_config(config)
        else:
            directory = f"{shared_memory_root()}/dask-{cluster}"
            store = Store(f"dask-{cluster}", SharedMemoryConnector(directory, joint=True))
        try:
            return cls(store, policy)
        except BaseException:
            store.close()
            raise

    @classmethod
    def try_open(
        cls, cluster: str, policy: Policy, config: StoreConfig | None = None
    ) -> Memory | None:
        """Open the memory of this node; `None` where it cannot be reached or made."""
        try:
            return cls.open(cluster, policy, config)
        except (ConnectorClosedError, ConnectorUnavailableError, OSError):
            return None

    @property
    def home(self) -> str:
        """The id of this memory, with which the ids of all objects in it begin."""
        return "" if self.prefix is None else self.prefix.partition("-")[0]

    @property
    def token(self) -> str:
        """Name the memory, so that two parties can tell whether they share it."""
        return f"proxystore:{self.home or self.config.name}"

    def put(
        self, obj: Any, nbytes: int, *, at_least: int = 0, parts: Parts | None = None
    ) -> Handle | None:
        """Store an object.

        Args:
            obj: The object.
            nbytes: Its size, as Dask measures it.
            at_least: Do not store what takes fewer bytes.
            parts: What it was serialized to, if it was.

        Returns:
            Where it lies; `None` where it cannot be stored, and should be sent as it is.
        """
        try:
            parts = self.store.dump(obj) if parts is None else parts
            if parts.nbytes < at_least:
                return None
            key = self._put_parts(parts)
        except (SerializationError, StorageFullError, ConnectorClosedError):
            return None
        mapped = not isinstance(obj, _COPIED) and size_of(obj) is not None
        return Handle(self._lies_in, key, nbytes, mapped, describe(obj))

    def _put_parts(self, parts: Parts) -> Any:
        return self.store.put_parts(parts)

    def put_raw(self, buffers: Sequence[BytesLike]) -> Any:
        """Store the stored form of an object of another node; return its key here, or `None`."""
        connector = self.store.connector
        try:
            if hasattr(connector, "put_parts"):
                return connector.put_parts(buffers)
            return connector.put(b"".join(buffers))
        except (StorageFullError, ConnectorClosedError):
            return None

    def wants(self, obj: Any) -> bool:
        """Tell whether an object of this type travels by reference if it is large."""
        types = self.policy.types
        return not (
            is_foreign(type(obj))
            or is_repeated(obj)
            or isinstance(obj, self.policy.exclude)
            or (types is not None and not isinstance(obj, types))
            or (self.policy.should_proxy is not None and not self.policy.should_proxy(obj))
        )

    def evict(self, keys: Iterable[Any]) -> None:
        """Remove objects."""
        self.store.evict_batch(keys)

    def evict_unknown(self, prefix: str, known: set[Any]) -> None:
        """Remove what a party stored and nobody knows of.

        Args:
            prefix: How the ids of the party begin.
            known: Keys of what stays.
        """
        stored: Iterable[Any] = self.store.keys()
        self.evict([key for key in stored if key.object_id.startswith(prefix) and key not in known])

    def nbytes(self) -> int:
        """Count the bytes of all objects in the memory of this node."""
        usage = getattr(self.store.connector, "usage", None)
        return 0 if usage is None else int(usage().nbytes)

    def close(self) -> None:
        """Let go; with the last who does the memory is removed."""
        access.leave(self.config, self.store)
        self.store.close()


class FarMemory(Memory):
    """The memory of a client on another node than the scheduler, which takes what it stores.

    Args:
        mine: The client's access to the memory of its own node, replaced by this one.
        send: Sends the scheduler a message: its name and its parts.
    """

    def __init__(self, mine: Memory, send: Callable[..., None]) -> None:
        access.leave(mine.config, mine.store)  # this one enters it
        super().__init__(mine.store, mine.policy)
        self._send = send
        self._lies_in = None

    def _put_parts(self, parts: Parts) -> Any:
        key = self.store.connector.new_key()
        # Copied: it is sent some time later, and the caller may write to it before.
        self._send("upload", key=key, data=[bytes(buffer) for buffer in parts.buffers])
        return key

    def evict(self, keys: Iterable[Any]) -> None:
        """Remove objects."""
        self._send("drop", needs={key: [] for key in keys})


def _prefix(store: Store[Any]) -> str | None:
    """Return how all ids of what this store puts begin, where its connector tells."""
    connector = store.connector
    if not hasattr(connector, "new_key"):
        return None
    object_id = getattr(connector.new_key(), "object_id", None)
    return None if object_id is None else str(object_id).rpartition("-")[0] + "-"
