"""The sink of arguments: stores what is large of one call, and holds it for the task."""

from __future__ import annotations

import functools
import operator
import threading
import types
import warnings
from collections.abc import Callable, Collection
from typing import Any

from proxystore_core.autoproxy.containers import Shape
from proxystore_core.autoproxy.errors import argument_error, name_of
from proxystore_core.autoproxy.handles import Keeper, Lease
from proxystore_core.autoproxy.immutable import is_immutable
from proxystore_core.autoproxy.plan import Planner
from proxystore_core.autoproxy.policy import Policy
from proxystore_core.autoproxy.refs import Channel, Items, Packed, Ref
from proxystore_core.autoproxy.results import auto_factory
from proxystore_core.autoproxy.sizes import ATOM, NUMBERS, SMALL, STRINGS, kind_of
from proxystore_core.exceptions import ObjectTooLargeError, StorageFullError
from proxystore_core.proxy import describe, extract
from proxystore_core.serialize import Parts, SerializationError


class Tally:
    """Counts what the calls of a session did."""

    def __init__(self) -> None:
        self.puts = self.nbytes = self.refs = self.hits = 0
        self._warned = False
        self._lock = threading.Lock()

    def add(self, *, puts: int = 0, nbytes: int = 0, refs: int = 0, hits: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.puts += puts
            self.nbytes += nbytes
            self.refs += refs
            self.hits += hits

    def warn_full(self, error: Exception) -> None:
        """Warn the first time that an argument finds no room."""
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            warnings.warn(
                f"Arguments travel by value while the store takes no more: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


class Call:
    """Encodes the arguments of one call.

    Args:
        keeper: Owns what is stored.
        source: The keeper's store.
        policy: What travels by reference.
        tally: Counts it.
        func: The function, for messages.
        name: Name of the task, if it is another than the function's.

    Attributes:
        lease: Holds all that the encoded arguments refer to.
        stored: Bytes stored for them.
    """

    def __init__(
        self,
        keeper: Keeper,
        source: Channel,
        policy: Policy,
        tally: Tally,
        func: Callable[..., Any],
        name: str | None,
    ) -> None:
        self.lease = Lease()
        self.stored = 0
        self._keeper = keeper
        self._channel = source
        self._policy = policy
        self._tally = tally
        self._func = func
        self._name = name
        self._where: int | str = 0
        self._planner = Planner(policy, self, put=policy.args)

    def close(self) -> None:
        """Let go of the arguments: the planner knows them, and this is its sink."""
        del self._planner

    def encode(self, value: Any, where: int | str) -> Any:
        """Return what travels in the place of an argument."""
        self._where = where
        new = self._planner.encode(value)
        return new if new is value or type(new) is Ref else Packed(new)

    def encode_items(self, values: list[Any], where: str) -> list[Any]:
        """Return what travels in the place of a list that the engine looks into."""
        items = Items([self.encode(value, where) for value in values])
        return values if all(map(operator.is_, items, values)) else items

    def unbind(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """Make arguments of what a partial or a method is bound to, if some of it is large."""
        if isinstance(func, types.MethodType):
            owner = self.encode(func.__self__, "self")
            if owner is func.__self__:
                return func, args, kwargs
            return func.__func__, (owner, *args), kwargs
        first = tuple([self.encode(value, i) for i, value in enumerate(func.args)])
        named = {key: self.encode(value, key) for key, value in func.keywords.items()}
        pairs = zip((*first, *named.values()), bound_values(func), strict=True)
        if all(new is old for new, old in pairs):
            return func, args, kwargs
        return func.func, (*first, *args), {**named, **kwargs}

    def known(self, obj: Any) -> Ref | None:
        """Return the reference of an immutable object that is in the store already."""
        entry = self._keeper.shared.find(obj)
        if entry is None:
            return None
        self.lease.add(entry)
        self._tally.add(refs=1, hits=1)
        return self._ref(entry.ref, obj)

    def proxy(self, proxy: Any) -> Any:
        """Return the reference of a result proxy, or else what travels for it."""
        factory = auto_factory(proxy)
        if factory is None:
            return proxy
        if factory.entry is None or not factory.stands_for(proxy):
            return extract(proxy)
        self.lease.add(factory.entry)
        self._tally.add(refs=1, hits=1)
        return factory.ref

    def dump(self, obj: Any) -> Parts:
        """Serialize an object as the store does."""
        return self._keeper.store.dump(obj)

    def put(self, obj: Any, parts: Parts) -> Ref | None:
        """Store an object; `None` if there is no room."""
        try:
            key = self._keeper.store.put_parts(parts)
        except (StorageFullError, ObjectTooLargeError) as error:
            if self._policy.on_full == "raise":
                raise
            self._tally.warn_full(error)
            return None
        entry = self._keeper.adopt(Ref(self._channel, key, parts.nbytes))
        self.lease.add(entry)
        self.stored += parts.nbytes
        self._tally.add(puts=1, nbytes=parts.nbytes, refs=1)
        if is_immutable(obj):
            self._keeper.shared.add(entry, obj)
        return self._ref(entry.ref, obj)

    def unpicklable(self, top: Any, obj: Any, error: SerializationError) -> None:
        """Raise the error that names the argument, if the policy wants it."""
        if self._policy.on_unpicklable == "leave":
            return
        task = self._name or name_of(self._func)
        raise argument_error(self._func, self._where, top, error, task=task, dump=self.dump)

    def _ref(self, ref: Ref, obj: Any) -> Ref:
        if self._policy.resolve == "eager":
            return ref
        return Ref(ref.channel, ref.key, ref.nbytes, describe(obj))


def bound_values(func: Any) -> tuple[Any, ...]:
    """Return what a partial or a method is bound to."""
    if isinstance(func, functools.partial):
        return (*func.args, *func.keywords.values())
    if isinstance(func, types.MethodType):
        return (func.__self__,)
    return ()


def all_small(values: Collection[Any], policy: Policy) -> bool:
    """Tell whether a glance shows nothing large: the way of most calls."""
    limit = policy.nbytes
    if policy.should_proxy is not None or limit <= _GLANCE:
        return not values
    for value in values:
        cls = type(value)
        if cls in NUMBERS:
            continue
        if cls in STRINGS:
            if len(value) >= limit:
                return False
            continue
        kind = kind_of(cls)
        if kind is ATOM:
            continue
        if cls in _PLAIN:
            inner = value.values() if cls is dict else value
            if len(inner) > _FEW or not all(map(NUMBERS.__contains__, map(type, inner))):
                return False
        elif isinstance(kind, (str, Shape)) or (size := kind(value)) is None or size >= limit:
            return False
    return True


_FEW = 16
_GLANCE = SMALL * (_FEW + 1)
_PLAIN = frozenset((list, tuple, dict, set))
