"""Ownership and borrowing: one proxy owns an object, others borrow it.

The rules are Rust's. An object has one `OwnedProxy`; when that is gone, the
object is evicted. It can be borrowed by any number of `RefProxy`s, or by one
`RefMutProxy`, which keep the owner alive. Pickling a reference moves it: the
receiver has it, the sender's is invalid.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from proxystore_core.exceptions import (
    BaseRefProxyError,
    MutableBorrowError,
    ProxyResolveMissingKeyError,
    ReferenceInvalidError,
    ReferenceNotOwnedError,
    StoreArgumentError,
)
from proxystore_core.proxy import Proxy, describe, get_info
from proxystore_core.serialize import Parts, read_header
from proxystore_core.store._refs import (
    BaseRefProxy,
    Borrows,
    OwnedProxy,
    RefMutProxy,
    RefProxy,
    check_valid,
)
from proxystore_core.store.factory import StoreFactory
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
    _set(proxy, "__proxy_info__", None)  # of what the borrower may change, perhaps elsewhere
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
    check_valid(proxy)
    if proxy.__proxy_resolved__:
        factory = get_store_factory(proxy)
        factory.get_store()._set(factory.key, proxy.__proxy_wrapped__, serializer=serializer)
        _set(proxy, "__proxy_info__", describe(proxy.__proxy_wrapped__))


def _borrows(proxy: object) -> Borrows:
    if not issubclass(type(proxy), OwnedProxy):
        raise ReferenceNotOwnedError(
            f"A {type(proxy).__name__} owns nothing: use store.owned_proxy() or into_owned()."
        )
    check_valid(proxy)
    borrows: Borrows = object.__getattribute__(proxy, "__proxy_borrows__")
    return borrows


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
