"""Proxies of what we stored: they hold the object in the store, and travel by value."""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

from proxystore_core.autoproxy.handles import Entry
from proxystore_core.autoproxy.immutable import is_frozen
from proxystore_core.autoproxy.refs import Ref
from proxystore_core.exceptions import ProxyStoreFactoryError, StoreConfigError
from proxystore_core.proxy import (
    Proxy,
    TargetInfo,
    extract,
    get_factory,
    get_info,
    is_proxy,
    is_resolved,
)
from proxystore_core.serialize import load
from proxystore_core.store.base import Store

T = TypeVar("T")

_UNSET = object()


class AutoFactory:
    """Gets the object of a reference, and holds it in the store meanwhile.

    All proxies of one object on one side share one factory, and so one target.

    Args:
        ref: Where the object lies.
        entry: What holds it; `None` on a worker, where the task's lease does.
        writable: Give private, writable arrays.
    """

    __slots__ = ("__weakref__", "_parked", "_target", "_writable", "entry", "ref")

    def __init__(self, ref: Ref, entry: Entry | None = None, *, writable: bool = False) -> None:
        self.ref = ref
        self.entry = entry
        self._writable = writable
        self._parked: memoryview | None = None
        self._target: Any = _UNSET

    def __call__(self) -> Any:
        """Get the object.

        Raises:
            ReferenceUnreachableError: If this host cannot reach the store.
            ProxyResolveMissingKeyError: If the object is gone; it says why.
        """
        if self._target is _UNSET:
            parked = self._parked
            if parked is None:
                self._target = self.ref.fetch(writable=self._writable)
                if self.entry is not None and is_frozen(self._target):
                    self.entry.keeper.shared.add(self.entry, self._target)
            else:
                self._target = load(parked, writable=self._writable)
                self._parked = None
        return self._target

    @property
    def resolved(self) -> bool:
        """Whether the object is here."""
        return self._target is not _UNSET

    def stands_for(self, proxy: Proxy[Any]) -> bool:
        """Tell whether what is stored is still what the proxy shows."""
        if self.entry is not None and not self.entry.alive:
            return False
        if is_resolved(proxy):
            target = extract(proxy)
            return target is self._target and is_frozen(target)
        return self._unchanged()

    def bring_home(self) -> None:
        """Take the object into this process, before the store lets go of it.

        What can be mapped is only mapped, whatever its size.
        """
        if self.resolved or self._parked is not None:
            return
        store = self.ref.channel.store()
        view = store.get_view(self.ref.key) if self.ref.channel.maps else None
        if view is None:
            self()
        else:
            self._parked = view

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ref!r})"

    def __proxy_reduce__(
        self, info: TargetInfo | None, proxy_cls: type[Proxy[Any]]
    ) -> tuple[Any, ...]:
        entry = self.entry
        if entry is not None and entry.keeper.lends and entry.alive and self._unchanged():
            entry.keeper.lend(entry)
            return lent, (Ref(self.ref.channel, self.ref.key, self.ref.nbytes, info),)
        return _identity, (self(),)

    def _unchanged(self) -> bool:
        return self._target is _UNSET or is_frozen(self._target)

    def __proxy_token__(self) -> object:
        return self.ref.channel.wire, tuple(self.ref.key)

    def __proxy_copied__(self) -> AutoFactory:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        from proxystore_core.factory import SimpleFactory

        return SimpleFactory, (self(),)


def _identity(obj: T) -> T:
    return obj


def auto_factory(obj: Any) -> AutoFactory | None:
    """Return the factory of a proxy of ours, else `None`."""
    if not is_proxy(obj):
        return None
    factory: object = get_factory(obj)
    return factory if type(factory) is AutoFactory else None


def proxy_of(ref: Ref, entry: Entry | None, *, writable: bool = False) -> Proxy[Any]:
    """Make a proxy of a reference; one that `entry` holds shares its factory with others."""
    if entry is None:
        return Proxy(AutoFactory(ref, writable=writable), info=ref.info)
    factory = entry.factory() if entry.factory is not None else None
    if factory is None:
        factory = AutoFactory(ref, entry, writable=writable)
        entry.factory = weakref.ref(factory)
    return Proxy(factory, info=ref.info)


def lent(ref: Ref) -> Proxy[Any]:
    """Make the proxy of an object that another process holds."""
    return proxy_of(ref, None)


def lent_ref(obj: Any) -> Ref | None:
    """Return where the object of a proxy of `lent` lies; `None` for all else."""
    factory = auto_factory(obj)
    return factory.ref if factory is not None and factory.entry is None else None


def persist(proxy: Proxy[T], store: Store[Any] | None = None) -> Proxy[T]:
    """Make the object of a result proxy outlive its session.

    Args:
        proxy: A proxy that a task's result came as.
        store: Where to keep the object; `None` keeps it where it is, which must then be a
            store that outlives the session.

    Returns:
        A proxy that pickles as a reference. Nobody evicts its object but you.

    Raises:
        ProxyStoreFactoryError: If the proxy is no result of a task.
        StoreConfigError: If the object's store goes with the session and no other is given.
        ProxyResolveMissingKeyError: If the object is gone.
    """
    factory = auto_factory(proxy)
    if factory is None:
        raise ProxyStoreFactoryError(
            "persist() takes a proxy that came as the result of a task; other proxies last as "
            "long as their store keeps the object."
        )
    entry, ref = factory.entry, factory.ref
    if store is None:
        if entry is None or not entry.alive or entry.keeper.temporary:
            raise StoreConfigError(
                f"The store {ref.channel.config.name!r} ends with its session: give persist() "
                "a store that outlives it, as in persist(proxy, Store('results'))."
            )
        entry.keeper.give_up(entry)
        return reference(ref.channel.store(), ref.key, get_info(proxy))
    if not factory.stands_for(proxy):  # changed since, or already home
        return store.proxy(extract(proxy))
    key = store.put(factory())
    return reference(store, key, get_info(proxy))


def reference(store: Store[Any], key: Any, info: TargetInfo | None) -> Proxy[Any]:
    """Make an ordinary proxy of a key: it pickles as a reference, and nobody evicts its object."""
    made: Proxy[Any] = store.proxy_from_key(key)
    return Proxy(get_factory(made), info=info)
