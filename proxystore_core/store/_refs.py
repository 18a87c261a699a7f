"""The proxies of `ref`, and how they count, move and evict."""

from __future__ import annotations

import threading
from typing import Any, NoReturn, SupportsIndex, TypeVar

from proxystore_core.exceptions import (
    ConnectorClosedError,
    ReferenceInvalidError,
    StoreUnsupportedError,
)
from proxystore_core.proxy import Proxy, TargetInfo, get_factory, get_info
from proxystore_core.store._finalize import when_gone
from proxystore_core.store.factory import StoreFactory
from proxystore_core.store.registry import evict_late

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
        check_valid(self)
        return super().__proxy_load__()

    def __copy__(self) -> NoReturn:
        raise _no_copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise _no_copy()

    def __reduce__(self) -> tuple[Any, ...]:
        check_valid(self)
        cls, info = type(self), get_info(self)
        factory: Any = get_factory(self)
        moved: tuple[Any, ...] = (
            _restore,
            (cls.__name__, factory, None if info is None else tuple(info)),
        )
        small = factory.__proxy_reduce__(info, Proxy)
        if small is not NotImplemented:
            moved = (_restore_small, (cls.__name__, *small[1]))
        invalidate(self)
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
        _set(self, "__proxy_borrows__", Borrows())
        _set(self, "__proxy_finalizer__", when_gone(self, _evict, factory))


class Borrowed(BaseRefProxy[T]):
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


class RefProxy(Borrowed[T]):
    """A reference that borrows its object to read it.

    Args:
        factory: Gets the object.
        cache_defaults: Describe `target`, its hash included.
        owner: The owner, which this keeps alive; `None` in another process.
        target: The object, where it is at hand.
        info: What is known of the object.
    """

    __slots__ = ()


class RefMutProxy(Borrowed[T]):
    """The only borrowed reference of its object, to change it and `update` the store.

    Args:
        factory: Gets the object.
        cache_defaults: Describe `target`, its hash included.
        owner: The owner, which this keeps alive; `None` in another process.
        target: The object, where it is at hand.
        info: What is known of the object.
    """

    __slots__ = ()


def release(ref: RefProxy[T] | RefMutProxy[T] | Borrowed[T]) -> bool:
    """End a borrow and let go of its owner; tell whether there was one."""
    try:
        owner = _get(ref, "__proxy_owner__")
        _set(ref, "__proxy_owner__", None)
    except AttributeError:  # its constructor failed
        return False
    if owner is None:
        return False
    borrows: Borrows = _get(owner, "__proxy_borrows__")
    with borrows.lock:
        if issubclass(type(ref), RefMutProxy):  # isinstance() could resolve it
            borrows.writers -= 1
        else:
            borrows.readers -= 1
    return True


def invalidate(proxy: BaseRefProxy[Any]) -> None:
    _set(proxy, "__proxy_valid__", False)
    _set(proxy, "__proxy_info__", None)
    if proxy.__proxy_resolved__:
        del proxy.__proxy_wrapped__
    if issubclass(type(proxy), OwnedProxy):  # isinstance() could resolve it
        _get(proxy, "__proxy_finalizer__").detach()


class Borrows:
    """Counts the references that borrow from an owner."""

    __slots__ = ("lock", "readers", "writers")

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finalizer may need it in the middle of its holder
        self.readers = 0
        self.writers = 0


def check_valid(proxy: object) -> None:
    if not _get(proxy, "__proxy_valid__"):
        raise ReferenceInvalidError(
            "The reference is invalid: it was pickled, which moves it, or it went out of scope."
        )


def _no_copy() -> StoreUnsupportedError:
    return StoreUnsupportedError("References cannot be copied: use borrow() or clone().")


def _evict(factory: StoreFactory[Any, Any]) -> None:
    store = factory._store
    try:
        if store is None or store.closed:
            evict_late(factory.store_config, [factory.key])
        else:
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
    from proxystore_core.store.factory import load_proxy

    proxy = load_proxy(*args)
    made: BaseRefProxy[Any] = _KINDS[kind](get_factory(proxy), info=get_info(proxy))
    return made


_KINDS: dict[str, Any] = {cls.__name__: cls for cls in (OwnedProxy, RefProxy, RefMutProxy)}
