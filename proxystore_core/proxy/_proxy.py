"""The proxy itself: its state, its attributes, and how it is copied and pickled."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeAlias, TypeVar

from proxystore_core.proxy._flight import ABSENT, load
from proxystore_core.proxy.arrays import ArrayProtocols
from proxystore_core.proxy.info import TargetInfo, decode_hash, describe, encode_hash
from proxystore_core.proxy.known import (
    DISPLAY_NAMES,
    known_attribute,
    known_class,
    known_truth,
    summary,
)
from proxystore_core.proxy.operators import Operators

T = TypeVar("T")
FactoryType: TypeAlias = Callable[[], T]
DefaultClassType: TypeAlias = type[Any] | None
DefaultHashType: TypeAlias = Exception | int | None

_set = object.__setattr__
# The addresses that the last two give do not keep their array alive, and the first of them loses
# types of elements: without them NumPy uses `__array__`.
_OWN_NAMES = frozenset(
    {"__proxy_target__", "__proxy_peek__", "__array_struct__", "__array_interface__"}
)
_BY_ADDRESS: Any = object.__hash__


class Proxy(Operators, ArrayProtocols, Generic[T]):
    """A reference that resolves itself when it is first used.

    While it is unresolved, `isinstance`, `hash`, `len`, `bool` and the attributes
    `shape`, `dtype`, `ndim`, `size` and `nbytes` are answered from the `TargetInfo`
    on board, as far as that goes. `repr`, `copy`, `pickle`, `sys.getsizeof` and
    Dask's `tokenize` and `sizeof` never resolve. A pickled proxy takes its factory
    along, never its target.

    Attributes:
        __proxy_factory__: The factory.
        __proxy_target__: The target; reading it resolves.
        __proxy_wrapped__: The same; deleting it makes the proxy unresolved again.
        __proxy_info__: What is known of the target, or `None`.
        __proxy_resolved__: Whether the target is here.

    Args:
        factory: Gives the target. Threads that need it at the same time share one call.
        cache_defaults: Describe `target`, its hash included, whatever that costs.
        target: The target, where it is at hand; `None` means that it is not.
        info: What is known of the target.

    Raises:
        TypeError: If `factory` is not callable.
    """

    __slots__ = ("__proxy_factory__", "__proxy_info__", "__weakref__")
    __module__ = "proxystore_core.proxy"

    if TYPE_CHECKING:
        __proxy_factory__: FactoryType[T]
        __proxy_info__: TargetInfo | None
        __proxy_target__: T

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _unveil(cls)

    def __init__(
        self,
        factory: FactoryType[T],
        *,
        cache_defaults: bool = False,
        target: T | None = None,
        info: TargetInfo | None = None,
    ) -> None:
        if not callable(factory):
            raise TypeError(f"A proxy needs a callable factory, not a {type(factory).__name__}.")
        if target is not None:
            _set(self, "__proxy_target__", target)
            if cache_defaults and info is None:
                info = _describe_with_hash(target)
        _set(self, "__proxy_factory__", factory)
        _set(self, "__proxy_info__", info)

    def __proxy_load__(self) -> T:
        """Fill the empty `__proxy_target__` and give it.

        Every operation that finds no target comes here. A subclass that may be used
        under conditions only overrides this method, and empties `__proxy_target__`
        when they no longer hold.
        """
        target: T = load(self)
        return target

    @property
    def __proxy_resolved__(self) -> bool:
        return self.__proxy_peek__ is not ABSENT

    @property
    def __proxy_wrapped__(self) -> T:
        return self.__proxy_target__

    @__proxy_wrapped__.setter
    def __proxy_wrapped__(self, target: T) -> None:
        _set(self, "__proxy_target__", target)

    @__proxy_wrapped__.deleter
    def __proxy_wrapped__(self) -> None:
        object.__delattr__(self, "__proxy_target__")

    @property
    def __proxy_default_class__(self) -> DefaultClassType:
        info = self.__proxy_info__
        return None if info is None else known_class(info)

    @property
    def __proxy_default_hash__(self) -> DefaultHashType:
        info = self.__proxy_info__
        return None if info is None else decode_hash(info.hash)

    @property  # type: ignore[misc]  # assignment goes through __setattr__
    def __class__(self) -> Any:
        target, cls = self.__proxy_peek__, None
        if target is ABSENT and (info := self.__proxy_info__) is not None:
            cls = known_class(info)
        if cls is None:
            cls = self.__proxy_target__.__class__
        torch = sys.modules.get("torch")
        # Torch reads the memory of every instance of Tensor as a tensor's: to pass for one crashes.
        if torch is not None and issubclass(cls, getattr(torch, "Tensor", ())):
            return type(self)
        return cls

    def __getattr__(self, name: str) -> Any:
        # Python comes here for the target's attributes, and for our own empty slots.
        if name in _OWN_NAMES:
            if name == "__proxy_target__":
                return self.__proxy_load__()
            if name == "__proxy_peek__":
                return ABSENT
            raise AttributeError(f"A proxy has no {name!r}: numpy.asarray() gives its array.")
        target = self.__proxy_peek__
        if target is ABSENT:
            return _unresolved_attribute(self, name)
        return getattr(target, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if "__proxy_" in name:
            _set(self, name, value)
        elif name == "__orig_class__":  # typing's mark on what Proxy[int](...) has made
            raise AttributeError(name)
        else:
            setattr(self.__proxy_target__, name, value)

    def __delattr__(self, name: str) -> None:
        if "__proxy_" in name:
            object.__delattr__(self, name)
        else:
            delattr(self.__proxy_target__, name)

    def __hash__(self) -> int:
        info = self.__proxy_info__
        if info is not None:
            target = self.__proxy_peek__
            # What has no hash of its own is hashed by its address: another one after each
            # resolve, so that the proxy would get lost in the dicts that hold it.
            if target is ABSENT or type(target).__hash__ is _BY_ADDRESS:
                known = decode_hash(info.hash)
                if known is not None:
                    return known
            if target is ABSENT:
                cls = known_class(info)
                if cls is not None and cls.__hash__ is None:
                    raise TypeError(f"unhashable type: {cls.__name__!r}")
        return hash(self.__proxy_target__)

    def __bool__(self) -> bool:
        target = self.__proxy_peek__
        if target is ABSENT:
            info = self.__proxy_info__
            truth = None if info is None else known_truth(info)
            return bool(self.__proxy_target__) if truth is None else truth
        return bool(target)

    def __len__(self) -> int:
        target = self.__proxy_peek__
        if target is ABSENT:
            info = self.__proxy_info__
            if info is not None and info.length is not None:
                return info.length
            target = self.__proxy_target__
        return len(target)

    def __fspath__(self) -> str | bytes:
        path: Any = self.__proxy_target__
        return os.fspath(path)  # type: ignore[no-any-return]  # whatever fspath takes

    def __sizeof__(self) -> int:
        target = self.__proxy_peek__
        return object.__sizeof__(self) + (0 if target is ABSENT else sys.getsizeof(target))

    def __repr__(self) -> str:
        target, info = self.__proxy_peek__, self.__proxy_info__
        if target is not ABSENT:
            return repr(target)
        what = repr(self.__proxy_factory__) if info is None else summary(info)
        return f"<{type(self).__name__}, unresolved, of {what}>"

    def __copy__(self) -> Proxy[T]:
        from copy import copy

        return _copied(self, copy)

    def __deepcopy__(self, memo: dict[int, Any]) -> Proxy[T]:
        from copy import deepcopy

        return _copied(self, lambda target: deepcopy(target, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        factory, info, cls = self.__proxy_factory__, self.__proxy_info__, type(self)
        hook = getattr(type(factory), "__proxy_reduce__", None)
        if hook is not None:
            reduced: tuple[Any, ...] = hook(factory, info, cls)
            if reduced is not NotImplemented:
                return reduced
        plain = None if info is None else tuple(info)
        return restore, (factory, plain) if cls is Proxy else (factory, plain, cls)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return self.__reduce__()

    def __dask_tokenize__(self) -> Any:
        from dask.base import normalize_token

        factory = self.__proxy_factory__
        hook = getattr(type(factory), "__proxy_token__", None)
        return "Proxy", normalize_token(factory if hook is None else hook(factory))


def restore(
    factory: FactoryType[T],
    info: tuple[Any, ...] | None = None,
    cls: type[Proxy[T]] = Proxy,
) -> Proxy[T]:
    """Make an unresolved proxy of what a pickle carries."""
    proxy = cls.__new__(cls)
    _set(proxy, "__proxy_factory__", factory)
    _set(proxy, "__proxy_info__", None if info is None else TargetInfo(*info))
    return proxy


class _Veiled(str):
    """A text of a class that a proxy of that class replaces by the text of its target."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name

    def __new__(cls, text: str, name: str) -> _Veiled:
        return super().__new__(cls, text)

    def __get__(self, proxy: Proxy[Any] | None, cls: type[Any] | None = None) -> Any:
        return self if proxy is None else proxy.__getattr__(self._name)

    def __reduce__(self) -> tuple[Any, ...]:  # pickles name a class by its module
        return str, (str(self),)


def _unveil(cls: type[Any]) -> None:
    """Keep what every class has from hiding what the target has under the same name."""
    cls.__doc__ = _Veiled(cls.__doc__ or "", "__doc__")
    cls.__module__ = _Veiled(cls.__module__, "__module__")
    for base in cls.__mro__:
        if "__annotations__" in base.__dict__ and base.__module__.startswith(__package__):
            del base.__annotations__


_unveil(Proxy)
restore.__module__ = str(Proxy.__module__)  # where pickles look for it


def _describe_with_hash(target: Any) -> TargetInfo:
    info = describe(target)
    if info.hash is None and type(target).__hash__ is not None:
        try:
            return info._replace(hash=encode_hash(hash(target), type(target)))
        except TypeError:  # a tuple of lists
            pass
    return info


def _unresolved_attribute(proxy: Proxy[Any], name: str) -> Any:
    if "__proxy_" in name:
        raise AttributeError(f"{type(proxy).__name__!r} object has no attribute {name!r}")
    if name in DISPLAY_NAMES:
        raise AttributeError(f"{name!r} of an unresolved proxy")
    info = proxy.__proxy_info__
    if info is not None:
        try:
            return known_attribute(info, name)
        except LookupError:
            pass  # then the target is asked
    return getattr(proxy.__proxy_target__, name)


def _copied(proxy: Proxy[T], copy: Callable[[T], T]) -> Proxy[T]:
    factory = proxy.__proxy_factory__
    hook = getattr(type(factory), "__proxy_copied__", None)
    clone = restore(factory if hook is None else hook(factory), proxy.__proxy_info__, type(proxy))
    target = proxy.__proxy_peek__
    if target is not ABSENT:
        _set(clone, "__proxy_target__", copy(target))
    return clone
