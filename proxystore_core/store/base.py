"""`Store`: puts objects into a channel and makes proxies of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self, cast, overload

from proxystore_core.exceptions import MissingReason, StoreUnsupportedError
from proxystore_core.store import registry
from proxystore_core.store._proxies import ProxyStore
from proxystore_core.store.config import ConnectorConfig, StoreConfig
from proxystore_core.store.types import ConnectorKeyT, ConnectorT, DeserializerT, SerializerT

if TYPE_CHECKING:
    from proxystore_core.connectors.shared_memory import SharedMemoryConnector
    from proxystore_core.store.future import Future


_VAGUE = {MissingReason.UNKNOWN, MissingReason.NEVER_STORED, MissingReason.UNREACHABLE}


class Store(ProxyStore[ConnectorT]):
    """Stores objects in a channel, and makes proxies that get them from there.

    A store is its configuration: in every process a proxy finds, or makes, the
    store that its own was. Use it as a context manager, which closes it:

    ```python
    with Store("my-store") as store:
        proxy = store.proxy(array)
    ```

    Stores are safe to use from several threads. They cannot be pickled: send
    `store.config()`, or a proxy.

    Args:
        name: Name of the store.
        connector: The channel; `None` makes a new one through shared memory.
        serializer: Turns objects into bytes; `None` for the default.
        deserializer: Turns these bytes back; `None` for the default.
        cache_size: Most objects in the cache of this process; 0 for no cache.
        cache_bytes: Most bytes in the cache, a number or `'256 MB'`.
        metrics: Record how long operations take.
        populate_target: Whether proxies hold their target in the process that
            makes them. Where a custom serializer or deserializer changes the
            object, pass `False`.
        register: Make the store known under its name.
        verify: `True`: write digests, and want them right; `False`: none; `None`:
            where the connector's bytes leave this user and node.

    Raises:
        StoreConfigError: If an option has no meaning.
        StoreExistsError: If a store of this name is registered, and `register`.
    """

    @overload
    def __init__(
        self: Store[SharedMemoryConnector],
        name: str,
        connector: None = ...,
        *,
        serializer: SerializerT | None = ...,
        deserializer: DeserializerT | None = ...,
        cache_size: int = ...,
        cache_bytes: int | str = ...,
        metrics: bool = ...,
        populate_target: bool = ...,
        register: bool = ...,
        verify: bool | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        connector: ConnectorT,
        *,
        serializer: SerializerT | None = ...,
        deserializer: DeserializerT | None = ...,
        cache_size: int = ...,
        cache_bytes: int | str = ...,
        metrics: bool = ...,
        populate_target: bool = ...,
        register: bool = ...,
        verify: bool | None = ...,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        connector: ConnectorT | None = None,
        *,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        cache_size: int = 16,
        cache_bytes: int | str = 256_000_000,
        metrics: bool = False,
        populate_target: bool = True,
        register: bool = False,
        verify: bool | None = None,
    ) -> None:
        # Made before the connector, so that bad options leave nothing behind.
        config = StoreConfig(
            name,
            ConnectorConfig("shm"),
            serializer=serializer,
            deserializer=deserializer,
            cache_size=cache_size,
            metrics=metrics,
            populate_target=populate_target,
            auto_register=register,
            cache_bytes=cache_bytes,
            verify=verify,
        )
        made = connector is None
        if connector is None:
            connector = cast("ConnectorT", config.connector.get_connector())
        super().__init__(connector, config)
        self.closed = False
        if register:
            try:
                registry.register_store(self)
            except BaseException:
                if made:
                    connector.close()
                raise
        registry.store_opened(self, self.config())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.name!r}, {self.connector!r}{', closed' if self.closed else ''})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise StoreUnsupportedError(
            "A store cannot be pickled: send store.config() and call get_or_create_store() "
            "there, or send a proxy."
        )

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Close the connector, and let nobody find this store any more.

        What becomes of the objects is the connector's affair. Closing twice is no error.

        Args:
            args: What the connector's `close` takes.
            kwargs: What the connector's `close` takes.
        """
        if not self.closed:
            registry.store_closed(self, self.config())
            self.closed = True
            self.cache.clear()
        self.connector.close(*args, **kwargs)

    @classmethod
    def from_config(cls, config: StoreConfig) -> Store[Any]:
        """Make a store.

        Args:
            config: What `config` returned, or one written by hand.

        Raises:
            StoreConfigError: If there is no such connector, or not with these options.
            StoreExistsError: If it wants to be registered, and its name is taken.
        """
        connector = config.connector.get_connector()
        try:
            return cls(
                config.name,
                cast("ConnectorT", connector),
                serializer=config.serializer,
                deserializer=config.deserializer,
                cache_size=config.cache_size,
                cache_bytes=config.cache_bytes,
                metrics=config.metrics,
                populate_target=config.populate_target,
                register=config.auto_register,
                verify=config.verify,
            )
        except BaseException:
            connector.close()
            raise

    def missing_reason(self, key: ConnectorKeyT) -> MissingReason:
        """Say why there is no object under a key, as far as it is known."""
        reason = super().missing_reason(key)
        if reason in _VAGUE and (self.closed or registry.was_closed(self.config())):
            return MissingReason.STORE_CLOSED
        return reason

    def future(
        self,
        *,
        evict: bool = False,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        polling_interval: float = 0.01,
        polling_backoff_factor: float = 1.5,
        polling_interval_limit: float | None = 1,
        polling_timeout: float | None = None,
    ) -> Future[Any]:
        """Make a future of an object, whose proxies can be sent before there is the object.

        Args:
            evict: Evict the object once a proxy resolved it.
            serializer: Serializer of the object; `None` for that of the store.
            deserializer: Deserializer of the object; `None` for that of the store.
            polling_interval: Seconds between the first two looks for the object.
            polling_backoff_factor: The interval grows by this factor with each look.
            polling_interval_limit: Longest interval, in seconds.
            polling_timeout: Proxies give up after so many seconds; `None` for never.

        Raises:
            StoreUnsupportedError: If the connector cannot make keys in advance.
        """
        from proxystore_core.store.future import make_future

        return make_future(
            self,
            evict=evict,
            serializer=serializer,
            deserializer=deserializer,
            polling_interval=polling_interval,
            polling_backoff_factor=polling_backoff_factor,
            polling_interval_limit=polling_interval_limit,
            polling_timeout=polling_timeout,
        )
