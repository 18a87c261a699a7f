"""A lazy, typed reference that behaves as the object it refers to.

A `Proxy[T]` holds a *factory*, any callable without parameters, and calls it when
the target is first needed; from then on every operation goes to the target. What
Python does not let a proxy imitate is listed in `docs/transparency.md`; there,
`extract(p)` gives the target itself.

A factory's type can refine how its proxies travel, with three optional methods:

* `__proxy_reduce__(self, info, proxy_cls)` gives the reduce tuple with which a
  proxy pickles, or `NotImplemented`;
* `__proxy_token__(self)` gives a deterministic token for `dask.base.tokenize`;
* `__proxy_copied__(self)` gives the factory for a copy of the proxy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeAlias, TypeVar

from proxystore_core.exceptions import ProxyResolveError
from proxystore_core.proxy._flight import load
from proxystore_core.proxy.arrays import ArrayProtocols
from proxystore_core.proxy.info import (
    TargetInfo,
    describe,
    known_attribute,
    known_class,
    known_hash,
    known_truth,
    with_hash,
)
from proxystore_core.proxy.operators import Operators

__all__ = [
    "FactoryType",
    "Proxy",
    "ProxyLocker",
    "ProxyOr",
    "ProxyResolveError",
    "TargetInfo",
    "describe",
    "extract",
    "get_factory",
    "get_info",
    "is_proxy",
    "is_resolved",
    "resolve",
]

T = TypeVar("T")
FactoryType: TypeAlias = Callable[[], T]
DefaultClassType: TypeAlias = type[Any] | None
DefaultHashType: TypeAlias = Exception | int | None

_get = object.__getattribute__
_set = object.__setattr__

_ARRAY_NAMES = frozenset({"shape", "dtype", "ndim", "size", "nbytes"})
# What IPython asks of everything it displays.
_DISPLAY_NAMES = frozenset(
    {"_ipython_display_", "_ipython_canary_method_should_not_exist_", "_repr_mimebundle_"}
    | {f"_repr_{kind}_" for kind in ("html", "markdown", "svg", "png", "pdf", "jpeg", "latex")}
    | {"_repr_json_", "_repr_javascript_"}
)
_CHECKED_NAMES = _ARRAY_NAMES | _DISPLAY_NAMES


class Proxy(Operators, ArrayProtocols, Generic[T]):
    """A reference that resolves itself when it is first used.

    While it is unresolved, `isinstance`, `hash`, `len`, `bool` and the attributes
    `shape`, `dtype`, `ndim`, `size` and `nbytes` are answered from the `TargetInfo`
    on board, as far as that goes. `repr`, `copy`, `pickle`, `sys.getsizeof` and
    Dask's `tokenize` and `sizeof` never resolve. Pickling takes the factory along,
    never the target.

    Attributes:
        __proxy_factory__: The factory.
        __proxy_target__: The target; reading it resolves.
        __proxy_info__: What is known of the target, or `None`.
        __proxy_resolved__: Whether the target is here.
        __proxy_wrapped__: The target; reading it resolves, deleting it makes the
            proxy unresolved again.

    Args:
        factory: Gives the target. Threads that need it at the same time share one call.
        cache_defaults: Describe `target`, its hash included. Ignored without a target.
        target: The target, where it is at hand; `None` means that it is not.
        info: What is known of the target.

    Raises:
        TypeError: If `factory` is not callable.
    """

    __slots__ = ("__proxy_factory__", "__proxy_info__", "__weakref__")

    if TYPE_CHECKING:  # annotations of the class would hide those of a target
        __proxy_factory__: FactoryType[T]
        __proxy_info__: TargetInfo | None
        __proxy_target__: T

    def __init__(
        self,
        factory: FactoryType[T],
        *,
        cache_defaults: bool = False,
        target: T | None = None,
        info: TargetInfo | None = None,
    ) -> None:
        if not callable(factory):
            raise TypeError(f"A proxy needs a callable factory, not {type(factory).__name__}.")
        if target is not None:
            _set(self, "__proxy_target__", target)
            if cache_defaults and info is None:
                info = with_hash(describe(target), target)
        _set(self, "__proxy_factory__", factory)
        _set(self, "__proxy_info__", info)

    def __proxy_load__(self) -> T:
        """Give the target of a proxy whose `__proxy_target__` is empty, and fill it.

        Every operation of an unresolved proxy comes here, so a subclass that has
        conditions to its use overrides this method and empties `__proxy_target__`
        when they no longer hold.
        """
        return load(self)  # type: ignore[no-any-return]  # untyped there

    @property
    def __proxy_resolved__(self) -> bool:
        try:
            _get(self, "__proxy_target__")
        except AttributeError:
            return False
        return True

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
        return None if info is None else known_hash(info)

    @property  # type: ignore[misc]  # assignment goes through __setattr__
    def __class__(self) -> Any:
        info = self.__proxy_info__
        if info is not None and not self.__proxy_resolved__:
            cls = known_class(info)
            if cls is not None:
                return cls
        return self.__proxy_target__.__class__

    def __getattr__(self, name: str) -> Any:
        if "__" in name or name in _CHECKED_NAMES:
            return _special_attribute(self, name)
        return getattr(self.__proxy_target__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if "__proxy_" in name:
            _set(self, name, value)
        elif name == "__orig_class__":  # typing's mark on what Proxy[int](...) made
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
            # An object without a hash of its own is hashed by its address, which would change
            # when the proxy resolves to another copy.
            resolved = self.__proxy_resolved__
            if not resolved or type(self.__proxy_target__).__hash__ is object.__hash__:
                value = known_hash(info)
                if value is not None:
                    return value
            if not resolved:
                cls = known_class(info)
                if cls is not None and cls.__hash__ is None:
                    raise TypeError(f"unhashable type: {cls.__name__!r}")
        return hash(self.__proxy_target__)

    def __bool__(self) -> bool:
        info = self.__proxy_info__
        if info is not None and info.length is not None and not self.__proxy_resolved__:
            truth = known_truth(info)
            if truth is not None:
                return truth
        return bool(self.__proxy_target__)

    def __len__(self) -> int:
        info = self.__proxy_info__
        if info is not None and info.length is not None and not self.__proxy_resolved__:
            return info.length
        return len(self.__proxy_target__)  # type: ignore[arg-type]  # T may have a length

    def __fspath__(self) -> str | bytes:
        import os

        return os.fspath(self.__proxy_target__)  # type: ignore[call-overload,no-any-return]  # T may be a path

    def __sizeof__(self) -> int:
        own = object.__sizeof__(self)
        if not self.__proxy_resolved__:
            return own
        import sys

        return own + sys.getsizeof(self.__proxy_target__)

    def __repr__(self) -> str:
        info = self.__proxy_info__
        name = type(self).__name__
        if self.__proxy_resolved__:
            import reprlib

            target = self.__proxy_target__
            return f"<{name} of {type(target).__name__}: {reprlib.repr(target)}>"
        if info is None:
            return f"<{name}, unresolved, of {self.__proxy_factory__!r}>"
        return f"<{name}, unresolved, of {_summary(info)}>"

    def __copy__(self) -> Proxy[T]:
        import copy

        return _copied(self, copy.copy)

    def __deepcopy__(self, memo: dict[int, Any]) -> Proxy[T]:
        import copy

        return _copied(self, lambda target: copy.deepcopy(target, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        factory, info, cls = self.__proxy_factory__, self.__proxy_info__, type(self)
        hook = getattr(type(factory), "__proxy_reduce__", None)
        if hook is not None:
            reduced: tuple[Any, ...] = hook(factory, info, cls)
            if reduced is not NotImplemented:
                return reduced
        plain = None if info is None else tuple(info)
        if cls is Proxy:
            return restore, (factory, plain)
        return restore, (factory, plain, cls)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return self.__reduce__()

    def __dask_tokenize__(self) -> Any:
        from dask.base import normalize_token

        factory = self.__proxy_factory__
        hook = getattr(type(factory), "__proxy_token__", None)
        return "Proxy", normalize_token(factory if hook is None else hook(factory))


ProxyOr: TypeAlias = Proxy[T] | T
"""A `T`, or a proxy of one."""


class ProxyLocker(Generic[T]):
    """Holds a proxy so that nothing can resolve it by accident.

    Args:
        proxy: The proxy to keep.
    """

    __slots__ = ("_proxy",)

    def __init__(self, proxy: Proxy[T]) -> None:
        self._proxy = proxy

    def __getattribute__(self, name: str) -> Any:
        if name == "_proxy":
            raise AttributeError("A locked proxy is reached with unlock() only.")
        return super().__getattribute__(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.unlock(),)

    def unlock(self) -> Proxy[T]:
        """Give the proxy back."""
        return super().__getattribute__("_proxy")  # type: ignore[no-any-return]  # untyped access


def is_proxy(obj: Any) -> bool:
    """Tell whether an object is a proxy, without resolving anything."""
    return issubclass(type(obj), Proxy)


def get_factory(proxy: Proxy[T]) -> FactoryType[T]:
    """Give the factory of a proxy."""
    return proxy.__proxy_factory__


def get_info(proxy: Proxy[T]) -> TargetInfo | None:
    """Give what a proxy knows of its target, without resolving it."""
    return proxy.__proxy_info__


def extract(proxy: Proxy[T]) -> T:
    """Give the target of a proxy, resolving it first where need be.

    Raises:
        ProxyResolveError: If the factory failed.
    """
    return proxy.__proxy_wrapped__


def is_resolved(proxy: Proxy[T]) -> bool:
    """Tell whether the target of a proxy is here."""
    return proxy.__proxy_resolved__


def resolve(proxy: Proxy[T]) -> None:
    """Make sure that the target of a proxy is here.

    Raises:
        ProxyResolveError: If the factory failed.
    """
    proxy.__proxy_wrapped__  # noqa: B018  # reading it resolves


def restore(
    factory: FactoryType[T],
    info: tuple[Any, ...] | None = None,
    cls: type[Proxy[T]] = Proxy,
) -> Proxy[T]:
    """Make an unresolved proxy from what a pickle carries."""
    proxy = cls.__new__(cls)
    _set(proxy, "__proxy_factory__", factory)
    _set(proxy, "__proxy_info__", None if info is None else TargetInfo(*info))
    return proxy


def _special_attribute(proxy: Proxy[Any], name: str) -> Any:
    if name == "__proxy_target__":
        return proxy.__proxy_load__()
    if "__proxy_" in name:
        raise AttributeError(f"{type(proxy).__name__!r} object has no attribute {name!r}")
    if not proxy.__proxy_resolved__:
        if name in _DISPLAY_NAMES:
            raise AttributeError(f"{name!r} of an unresolved proxy")
        info = proxy.__proxy_info__
        if info is not None:
            try:
                return known_attribute(info, name)
            except LookupError:
                pass
    return getattr(proxy.__proxy_target__, name)


def _copied(proxy: Proxy[T], copy: Callable[[T], T]) -> Proxy[T]:
    factory = proxy.__proxy_factory__
    hook = getattr(type(factory), "__proxy_copied__", None)
    clone = restore(factory if hook is None else hook(factory), cls=type(proxy))
    _set(clone, "__proxy_info__", proxy.__proxy_info__)
    if proxy.__proxy_resolved__:
        _set(clone, "__proxy_target__", copy(proxy.__proxy_target__))
    return clone


def _summary(info: TargetInfo) -> str:
    words = [info.cls.replace(":", ".").removeprefix("builtins.")]
    if info.shape is not None:
        words.append(f"shape {info.shape}")
    elif info.length is not None:
        words.append(f"length {info.length}")
    if info.dtype is not None:
        words.append(f"dtype {info.dtype}")
    if info.nbytes is not None:
        words.append(f"{info.nbytes} bytes")
    return ", ".join(words)
