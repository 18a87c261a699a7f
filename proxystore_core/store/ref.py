"""Ownership and borrowing: one proxy owns an object, others borrow it.

The rules are Rust's. An object has one `OwnedProxy`; when that is gone, the
object is evicted. It can be borrowed by any number of `RefProxy`s, or by one
`RefMutProxy`, which keep the owner alive. Pickling a reference moves it: the
receiver has it, the sender's is invalid.
"""

from __future__ import annotations

import copy
import threading
from typing import Any, NoReturn, SupportsIndex, TypeVar

from proxystore_core.exceptions import (
    BaseRefProxyError,
    ConnectorClosedError,
    MutableBorrowError,
    ProxyResolveMissingKeyError,
    ReferenceInvalidError,
    ReferenceNotOwnedError,
    StoreArgumentError,
    StoreUnsupportedError,
)
from proxystore_core.proxy import Proxy, TargetInfo, get_factory, get_info
from proxystore_core.serialize import Parts, read_header
from proxystore_core.store._finalize import when_gone
from proxystore_core.store.factory import StoreFactory
from proxystore_core.store.registry import find_store
from proxystore_core.store.types import SerializerT
from proxystore_core.store.utils import get_store_factory

__all__ = [
    "BaseRefProxy",
    "BaseRefProxyError",
    "MutableBorrowError",
    "OwnedProxy",
    "RefMutProxy",
    "RefProxy",
    "ReferenceInvalidError",
    "ReferenceNotOwnedError",
    "borrow",
    "clone",
    "into_owned",
    "mut_borrow",
    "update",
]

T = TypeVar("T")

_get = object.__getattribute__
_set = object.__setattr__


class BaseRefProxy(Proxy[T]):
    """What owned and borrowed references have in common.

    They cannot be copied, and cannot be used once they are invalid.

    Args:
        factory: Gets the object.
        cache_defaults: Describe `target`, its hash included.
        target: The object, where it is at hand.
        info: What is known of the object.
    """

    __slots__ = ("__proxy_valid__",)

    def __init__(
        self,
        factory: StoreFactory[Any, T],
        *,
        cache_defaults: bool = False,
        target: T | None = None,
        info: TargetInfo | None = None,
    ) -> None:
        super().__init__(factory, cache_defaults=cache_defaults, target=target, info=info)
        _set(self, "__proxy_valid__", True)

    def __proxy_load__(self) -> T:
        _check_valid(self)
        return super().__proxy_load__()

    def __copy__(self) -> NoReturn:
        raise _no_copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise _no_copy()

    def __reduce__(self) -> tuple[Any, ...]:
        _check_valid(self)
        cls, info = type(self), get_info(self)
        factory: Any = get_factory(self)
        moved: tuple[Any, ...] = (
            _restore,
            (cls.__name__, factory, None if info is None else tuple(info)),
        )
        small = factory.__proxy_reduce__(info, Proxy)
        if small is not NotImplemented:
            moved = (_restore_small, (cls.__name__, *small[1]))
        _invalidate(self)
        return moved

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return self.__reduce__()


class OwnedProxy(BaseRefProxy[T]):
    """The one reference that owns its object: the object is evicted when it is gone.

    Args:
        factory: Gets the object.
        cache_defaults: Describe `target`, its hash included.
        target: The object, where it is at hand.
        info: What is known of the object.
    """

    __slots__ = ("__proxy_borrows__", "__proxy_finalizer__")

    def __init__(
        self,
        factory: StoreFactory[Any, T],
        *,
        cache_defaults: bool = False,
        target: T | None = None,
        info: TargetInfo | None = None,
    ) -> None:
        super().__init__(factory, cache_defaults=cache_defaults, target=target, info=info)
        _set(self, "__proxy_borrows__", _Borrows())
        _set(self, "__proxy_finalizer__", when_gone(self, _evict, factory))


class _Borrowed(BaseRefProxy[T]):
    __slots__ = ("__proxy_owner__",)

    def __init__(
        self,
        factory: StoreFactory[Any, T],
        *,
        cache_defaults: bool = False,
        owner: OwnedProxy[T] | None = None,
        target: T | None = None,
        info: TargetInfo | None = None,
    ) -> None:
        _set(self, "__proxy_owner__", owner)
        super().__init__(factory, cache_defaults=cache_defaults, target=target, info=info)

    def __del__(self) -> None:
        release(self)


class RefProxy(_Borrowed[T]):
    """A reference that borrows its object to read it.

    Args:
        factory: Gets the object.
        cache_defaults: Describe `target`, its hash included.
        owner: The owner, which this keeps alive; `None` in another process.
        target: The object, where it is at hand.
        info: What is known of the object.
    """

    __slots__ = ()


class RefMutProxy(_Borrowed[T]):
    """The only borrowed reference of its object, to change it and `update` the store.

    Args:
        factory: Gets the object.
        cache_defaults: Describe `target`, its hash included.
        owner: The owner, which this keeps alive; `None` in another process.
        target: The object, where it is at hand.
        info: What is known of the object.
    """

    __slots__ = ()


def borrow(proxy: OwnedProxy[T], *, populate_target: bool = True) -> RefProxy[T]:
    """Borrow an object to read it.

    Args:
        proxy: The owner.
        populate_target: Share the target that the owner has resolved.

    Raises:
        MutableBorrowError: If the object is borrowed to be changed.
        ReferenceNotOwnedError: If `proxy` is no owner.
        ReferenceInvalidError: If `proxy` was moved away.
    """
    borrows = _borrows(proxy)
    with borrows.lock:
        if borrows.writers:
            raise MutableBorrowError("The object is borrowed to be changed: drop that first.")
        borrows.readers += 1
        made: RefProxy[T] = RefProxy(_factory_of(proxy, writable=False), owner=proxy)
    _share(proxy, made, populate_target)
    return made


def mut_borrow(proxy: OwnedProxy[T], *, populate_target: bool = True) -> RefMutProxy[T]:
    """Borrow an object to change it.

    Args:
        proxy: The owner.
        populate_target: Share the target that the owner has resolved.

    Raises:
        MutableBorrowError: If the object is borrowed already.
        ReferenceNotOwnedError: If `proxy` is no owner.
        ReferenceInvalidError: If `proxy` was moved away.
    """
    borrows = _borrows(proxy)
    with borrows.lock:
        if borrows.readers or borrows.writers:
            raise MutableBorrowError("The object is borrowed: drop all its references first.")
        borrows.writers += 1
        made: RefMutProxy[T] = RefMutProxy(_factory_of(proxy, writable=True), owner=proxy)
    _share(proxy, made, populate_target)
    return made


def clone(proxy: OwnedProxy[T]) -> OwnedProxy[T]:
    """Store a copy of the object, and return its owner.

    Raises:
        ReferenceNotOwnedError: If `proxy` is no owner.
        ReferenceInvalidError: If `proxy` was moved away.
        ProxyResolveMissingKeyError: If the object is gone.
    """
    _borrows(proxy)
    factory = get_store_factory(proxy)
    store = factory.get_store()
    view = store.get_view(factory.key)
    if view is None:
        reason = store.missing_reason(factory.key)
        raise ProxyResolveMissingKeyError(factory.key, type(store), store.name, reason)
    key = store.put_parts(Parts((view,), view.nbytes, read_header(view).serializer))
    copied: StoreFactory[Any, T] = StoreFactory(
        key, store.config(), deserializer=factory.deserializer, writable=True
    )
    target = copy.deepcopy(proxy.__proxy_wrapped__) if proxy.__proxy_resolved__ else None
    return OwnedProxy(copied, target=target, info=get_info(proxy))


def into_owned(proxy: Proxy[T], *, populate_target: bool = True) -> OwnedProxy[T]:
    """Make a proxy the owner of its object.

    There must be no other owner, and nobody else who evicts the object.

    Args:
        proxy: A plain proxy of a store.
        populate_target: Share the target that the proxy has resolved.

    Raises:
        StoreArgumentError: If it is a reference already.
        ProxyStoreFactoryError: If it does not come from a store.
    """
    if issubclass(type(proxy), BaseRefProxy):  # isinstance() could resolve it
        raise StoreArgumentError(
            f"A {type(proxy).__name__} cannot become an owner: use a plain proxy, or clone()."
        )
    made: OwnedProxy[T] = OwnedProxy(_factory_of(proxy, writable=True))
    _share(proxy, made, populate_target)
    return made


def update(proxy: OwnedProxy[T] | RefMutProxy[T], *, serializer: SerializerT | None = None) -> None:
    """Store the target, as it was changed in this process, in place of the object.

    A target that was never resolved was never changed: nothing happens.

    Args:
        proxy: The owner, or who borrowed the object to change it.
        serializer: Serializer of the object; `None` for that of the store.

    Raises:
        ReferenceNotOwnedError: If the reference may not change the object.
        MutableBorrowError: If the owner lent the object.
        ReferenceInvalidError: If the reference was moved away.
        StoreUnsupportedError: If the connector cannot replace objects.
    """
    if issubclass(type(proxy), OwnedProxy):  # isinstance() could resolve a plain proxy
        borrows = _borrows(proxy)
        if borrows.readers or borrows.writers:
            raise MutableBorrowError("The object is borrowed: drop all its references first.")
    elif not issubclass(type(proxy), RefMutProxy):
        raise ReferenceNotOwnedError(
            f"A {type(proxy).__name__} only reads: use mut_borrow() to change an object."
        )
    _check_valid(proxy)
    if proxy.__proxy_resolved__:
        factory = get_store_factory(proxy)
        factory.get_store()._set(factory.key, proxy.__proxy_wrapped__, serializer=serializer)


def release(ref: RefProxy[T] | RefMutProxy[T] | _Borrowed[T]) -> bool:
    """End a borrow and let go of its owner; tell whether there was one."""
    try:
        owner = _get(ref, "__proxy_owner__")
        _set(ref, "__proxy_owner__", None)
    except AttributeError:  # its constructor failed
        return False
    if owner is None:
        return False
    borrows: _Borrows = _get(owner, "__proxy_borrows__")
    with borrows.lock:
        if isinstance(ref, RefMutProxy):
            borrows.writers -= 1
        else:
            borrows.readers -= 1
    return True


def _invalidate(proxy: BaseRefProxy[Any]) -> None:
    _set(proxy, "__proxy_valid__", False)
    if proxy.__proxy_resolved__:
        del proxy.__proxy_wrapped__
    if isinstance(proxy, OwnedProxy):
        _get(proxy, "__proxy_finalizer__").detach()


class _Borrows:
    """Counts the references that borrow from an owner."""

    __slots__ = ("lock", "readers", "writers")

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finalizer may need it in the middle of its holder
        self.readers = 0
        self.writers = 0


def _borrows(proxy: object) -> _Borrows:
    if not issubclass(type(proxy), OwnedProxy):
        raise ReferenceNotOwnedError(
            f"A {type(proxy).__name__} owns nothing: use store.owned_proxy() or into_owned()."
        )
    _check_valid(proxy)
    borrows: _Borrows = _get(proxy, "__proxy_borrows__")
    return borrows


def _check_valid(proxy: object) -> None:
    if not _get(proxy, "__proxy_valid__"):
        raise ReferenceInvalidError(
            "The reference is invalid: it was pickled, which moves it, or it went out of scope."
        )


def _no_copy() -> StoreUnsupportedError:
    return StoreUnsupportedError("References cannot be copied: use borrow() or clone().")


def _factory_of(proxy: Proxy[T], *, writable: bool) -> StoreFactory[Any, T]:
    factory = get_store_factory(proxy)
    if factory.writable == writable and not factory.evict:
        return factory
    made = copy.copy(factory)
    made.evict, made.writable = False, writable
    made._store = factory._store
    return made


def _share(source: Proxy[T], made: Proxy[T], populate_target: bool) -> None:
    _set(made, "__proxy_info__", get_info(source))
    if populate_target and source.__proxy_resolved__:
        made.__proxy_wrapped__ = source.__proxy_wrapped__


def _evict(factory: StoreFactory[Any, Any]) -> None:
    from proxystore_core.store.base import Store

    try:
        store = factory._store() if factory._store is not None else None
        if store is None or store.closed:
            store = find_store(factory.store_config)
        if store is not None:
            store.evict(factory.key)
        else:
            with Store.from_config(factory.store_config) as store:
                store.evict(factory.key)
    except ConnectorClosedError:
        pass  # the objects went with their store
    except Exception as error:  # noqa: BLE001 -- nobody is there to catch it
        import logging

        logging.getLogger(__name__).warning("Could not evict %r: %s", factory.key, error)


def _restore(
    kind: str, factory: StoreFactory[Any, T], info: tuple[Any, ...] | None
) -> BaseRefProxy[T]:
    made: BaseRefProxy[T] = _KINDS[kind](factory, info=TargetInfo(*info) if info else None)
    return made


def _restore_small(kind: str, *args: Any) -> BaseRefProxy[Any]:
    from proxystore_core.store.factory import _unpickle

    proxy = _unpickle(*args)
    made: BaseRefProxy[Any] = _KINDS[kind](get_factory(proxy), info=get_info(proxy))
    return made


_KINDS: dict[str, Any] = {cls.__name__: cls for cls in (OwnedProxy, RefProxy, RefMutProxy)}
