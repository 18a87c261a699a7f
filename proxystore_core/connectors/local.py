"""A channel inside one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self
from uuid import uuid4
from weakref import WeakValueDictionary

from proxystore_core.connectors._parts import byte_view, byte_views
from proxystore_core.connectors.protocols import Usage
from proxystore_core.exceptions import InvalidKeyError, MissingReason

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike


class LocalKey(NamedTuple):
    """Key of an object in a `LocalConnector`.

    Attributes:
        id: Unique id of the object.
    """

    id: str


class _Objects:
    """What the connectors of one channel share in this process."""

    def __init__(
        self, data: dict[LocalKey, BytesLike] | None = None, channel: str | None = None
    ) -> None:
        self.channel = channel or uuid4().hex[:12]
        self.writer = uuid4().hex[:12]
        self.foreign = channel is not None and data is None
        self.data: dict[LocalKey, BytesLike] = {} if data is None else data
        self.why: dict[LocalKey, MissingReason] = {}  # what the key itself does not tell
        self.counter = count()
        _CHANNELS[self.channel] = self

    def issue(self) -> LocalKey:
        return LocalKey(f"{self.writer}-{next(self.counter):x}")


_CHANNELS: WeakValueDictionary[str, _Objects] = WeakValueDictionary()


class LocalConnector:
    """A connector that keeps objects in a dictionary of this process.

    For tests, and for proxies that never leave the process. Connectors made by
    `from_config` in the same process share the objects; in any other process
    they are out of reach.

    Args:
        store_dict: Dictionary that holds the objects; a new one by default.
        include_data_in_config: Put all objects into `config`, so that they travel
            with it. Slow, and only for tests.
    """

    trusted: ClassVar[bool] = True

    def __init__(
        self,
        store_dict: dict[LocalKey, BytesLike] | None = None,
        *,
        include_data_in_config: bool = False,
    ) -> None:
        self._objects = _Objects(store_dict)
        self._include_data_in_config = include_data_in_config

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(objects={len(self._objects.data)})"

    def close(self) -> None:
        """Do nothing: the objects live as long as a connector to them does."""

    def config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        config: dict[str, Any] = {"channel": self._objects.channel}
        if self._include_data_in_config:
            config["include_data_in_config"] = True
            config["store_dict"] = self._objects.data
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a connector from what `config` returned, or from the constructor's arguments."""
        options = dict(config)
        channel = options.pop("channel", None)
        connector = cls(**options)
        if channel is not None:
            data = options.get("store_dict")
            connector._objects = _CHANNELS.get(channel) or _Objects(data, channel)
        return connector

    def new_key(self, obj: BytesLike | None = None) -> LocalKey:
        """Return a key that `set` takes later.

        Args:
            obj: Ignored.
        """
        key = self._objects.issue()
        self._objects.why[key] = MissingReason.NEVER_STORED
        return key

    def put(self, obj: BytesLike) -> LocalKey:
        """Store a copy of the bytes and return their key."""
        key = self._objects.issue()
        self.set(key, obj)
        return key

    def put_batch(self, objs: Sequence[BytesLike]) -> list[LocalKey]:
        """Store several objects; all are stored, or none."""
        copies = [_frozen(obj) for obj in objs]
        return [self.put(copy) for copy in copies]

    def put_parts(self, parts: Sequence[BytesLike]) -> LocalKey:
        """Store the concatenation of the parts and return its key."""
        return self.put(_joined(parts))

    def set(self, key: LocalKey, obj: BytesLike) -> None:
        """Store a copy of the bytes under a key of `new_key`."""
        _check(key)
        self._objects.data[key] = _frozen(obj)
        self._objects.why.pop(key, None)

    def set_parts(self, key: LocalKey, parts: Sequence[BytesLike]) -> None:
        """Store the concatenation of the parts under a key of `new_key`."""
        self.set(key, _joined(parts))

    def get(self, key: LocalKey) -> BytesLike | None:
        """Return the bytes of a key, or `None` where there are none."""
        _check(key)
        return self._objects.data.get(key)

    def get_batch(self, keys: Sequence[LocalKey]) -> list[BytesLike | None]:
        """Return the bytes of several keys, in their order."""
        return [self.get(key) for key in keys]

    def exists(self, key: LocalKey) -> bool:
        """Tell whether the key has an object."""
        _check(key)
        return key in self._objects.data

    def version(self, key: LocalKey) -> BytesLike | None:
        """Return what changes when the object of a key is replaced: its bytes."""
        return self.get(key)

    def evict(self, key: LocalKey) -> None:
        """Remove the object of a key; removing nothing is no error."""
        _check(key)
        self._objects.data.pop(key, None)

    def expire(self, key: LocalKey) -> None:
        """Remove the object of a key, and remember it as expired."""
        _check(key)
        if self._objects.data.pop(key, None) is not None:
            self._objects.why[key] = MissingReason.EXPIRED

    def missing_reason(self, key: LocalKey) -> MissingReason:
        """Say why a key has no object."""
        _check(key)
        objects = self._objects
        if key in objects.why:
            return objects.why[key]
        if key.id.startswith(f"{objects.writer}-"):
            return MissingReason.EVICTED
        return MissingReason.UNREACHABLE if objects.foreign else MissingReason.NEVER_STORED

    def keys(self) -> Iterator[LocalKey]:
        """Iterate over the keys of all objects."""
        return iter(list(self._objects.data))

    def usage(self) -> Usage:
        """Count the objects and their bytes."""
        sizes = [memoryview(data).nbytes for data in list(self._objects.data.values())]
        return Usage(objects=len(sizes), nbytes=sum(sizes))


def _check(key: LocalKey) -> None:
    if not isinstance(key, LocalKey) or not isinstance(key.id, str):
        raise InvalidKeyError(f"{key!r} is not a LocalKey; use a key that put or new_key returned.")


def _frozen(obj: BytesLike) -> bytes:
    return obj if type(obj) is bytes else byte_view(obj).tobytes()


def _joined(parts: Sequence[BytesLike]) -> bytes:
    return b"".join(byte_views(parts)[0])
