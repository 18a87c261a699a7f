"""What travels through the engine in place of large objects: small, and never callable."""

from __future__ import annotations

import pickle
import weakref
from typing import TYPE_CHECKING, Any

from proxystore_core.exceptions import (
    ConnectorUnavailableError,
    MissingReason,
    ProxyResolveMissingKeyError,
    ReferenceUnreachableError,
)
from proxystore_core.proxy import Proxy, TargetInfo
from proxystore_core.store.config import ConnectorConfig, StoreConfig

if TYPE_CHECKING:
    from proxystore_core.store.base import Store

_MISSING = object()


class Channel:
    """A store as tasks name it: a few bytes that every process turns into its own `Store`.

    Attributes:
        wire: The store's configuration, pickled small; equal for equal configurations.
        config: The same, readable.
    """

    __slots__ = ("_local", "_maps", "_plain", "config", "wire")

    def __init__(self, wire: bytes, config: StoreConfig) -> None:
        self.wire = wire
        self.config = config
        self._local: weakref.ref[Store[Any]] | None = None
        self._plain: dict[type, bool] = {}
        self._maps: bool | None = None

    def bind(self, store: Store[Any]) -> None:
        """Use this store in this process."""
        self._local = weakref.ref(store)

    def store(self) -> Store[Any]:
        """Return this process's store of the configuration, made if need be."""
        local = self._local() if self._local is not None else None
        if local is not None and not local.closed:
            return local
        from proxystore_core.store import get_or_create_store

        store: Store[Any] = get_or_create_store(self.config)
        self._local = weakref.ref(store)
        return store

    @property
    def maps(self) -> bool:
        """Whether getting an object takes no time whatever its size: it is mapped, or here."""
        if self._maps is None:
            from proxystore_core.connectors.protocols import ZeroCopyConnector

            connector = self.config.connector
            kind = connector.get_connector_type()
            self._maps = issubclass(kind, ZeroCopyConnector) or connector.short_kind() == "local"
        return self._maps

    def bare_key(self, key: Any) -> Any:
        """Return a key as it is pickled: a plain tuple where its type is known anyway."""
        cls = type(key)
        plain = self._plain.get(cls)
        if plain is None:
            plain = type(self.config.connector.make_key(tuple(key))) is cls
            self._plain[cls] = plain
        return tuple(key) if plain else key


_channels: dict[bytes, Channel] = {}


def channel_of(store: Store[Any]) -> Channel:
    """Return the channel of a store, used by all references into it."""
    found = channel_for(store.config())
    found.bind(store)
    return found


def channel_for(config: StoreConfig) -> Channel:
    """Return the channel of the store that a configuration describes."""
    wire = _write(config)
    found = _channels.get(wire)
    if found is None:  # equal ones may pickle differently
        found = next((other for other in _channels.values() if other.config == config), None)
    return _channels.setdefault(wire, Channel(wire, config)) if found is None else found


def channel(wire: bytes) -> Channel:
    """Return the channel that travelled as `wire`."""
    found = _channels.get(wire)
    if found is None:
        found = _channels.setdefault(wire, Channel(wire, _read(wire)))
    return found


_FIELDS = {
    name: field.default
    for name, field in StoreConfig.__dataclass_fields__.items()
    if name not in ("name", "connector")
}


def _write(config: StoreConfig) -> bytes:
    rest = {}
    for name, default in _FIELDS.items():
        value = getattr(config, name)
        if value != default and name != "auto_register":
            rest[name] = value
    if rest.get("cache_bytes") == 256_000_000:
        del rest["cache_bytes"]
    connector = config.connector
    fields = [config.name, connector.short_kind(), connector.options]
    if rest:
        fields.append(rest)
    try:
        return pickle.dumps(tuple(fields), 5)
    except (pickle.PicklingError, AttributeError, TypeError):
        import cloudpickle  # for serializers that are lambdas

        wire: bytes = cloudpickle.dumps(tuple(fields), 5)
        return wire


def _read(wire: bytes) -> StoreConfig:
    name, kind, options, *rest = pickle.loads(wire)
    return StoreConfig(name, ConnectorConfig(kind, options), **(rest[0] if rest else {}))


class Ref:
    """Names an object in a store.

    Attributes:
        channel: The store that holds it.
        key: Its key.
        nbytes: Its stored size in bytes.
        info: What is known of the object without fetching it.
    """

    __slots__ = ("channel", "info", "key", "nbytes")

    def __init__(
        self, channel: Channel, key: Any, nbytes: int, info: TargetInfo | None = None
    ) -> None:
        self.channel = channel
        self.key = key
        self.nbytes = nbytes
        self.info = info

    def fetch(self, *, writable: bool = False) -> Any:
        """Get the object.

        Args:
            writable: Give private, writable arrays instead of read-only views.

        Raises:
            ReferenceUnreachableError: If this host cannot reach the store.
            ProxyResolveMissingKeyError: If the object is gone; it says why.
        """
        try:
            store = self.channel.store()
            obj = store.get(self.key, default=_MISSING, writable=writable)
            if obj is not _MISSING:
                return obj
            reason = store.missing_reason(self.key)
        except ConnectorUnavailableError as error:
            raise self._unreachable() from error
        if reason is MissingReason.UNREACHABLE:
            raise self._unreachable()
        raise ProxyResolveMissingKeyError(self.key, type(store), store.name, reason)

    def _unreachable(self) -> ReferenceUnreachableError:
        config = self.channel.config
        host = str(config.connector.options.get("host", "another host")).partition("/")[0]
        return ReferenceUnreachableError(
            f"The object {tuple(self.key)!r} lies in store {config.name!r} on {host}, which this "
            f"host cannot reach through its {config.connector.short_kind()!r} connector. Run the "
            "workers on that host, or give the executor a store that all its hosts reach.",
            host=host,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ref):
            return NotImplemented
        return self.key == other.key and self.channel.wire == other.channel.wire

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Ref {'-'.join(map(str, self.key))} {self.nbytes} bytes>"

    def __dask_tokenize__(self) -> Any:
        return "proxystore-ref", self.channel.wire, tuple(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        fields: tuple[Any, ...] = (
            self.channel.wire,
            self.channel.bare_key(self.key),
            self.nbytes,
        )
        return _ref, fields if self.info is None else (*fields, tuple(self.info))


def _ref(wire: bytes, key: Any, nbytes: int, info: Any = None) -> Ref:
    source = channel(wire)
    typed = source.config.connector.make_key(key)
    return Ref(source, typed, nbytes, None if info is None else TargetInfo(*info))


class Packed:
    """An argument with references somewhere inside."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"<Packed {type(self.value).__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.value,)


class Items(list[Any]):
    """An argument that stays a list, because the engine looks into it; its items are encoded."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return Items, (list(self),)


class Envelope:
    """A result that is a reference, a proxy, or has references somewhere inside."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"<Envelope {type(self.value).__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Envelope, (self.value,)


CARRIERS = frozenset((Ref, Packed, Items, Envelope))
REFS = frozenset((Ref,))
PROXIES = frozenset((Proxy,))
