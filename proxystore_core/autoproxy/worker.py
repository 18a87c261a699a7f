"""The worker's side of a call: gets what the arguments refer to, stores what the result holds."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from proxystore_core.autoproxy.containers import walk
from proxystore_core.autoproxy.immutable import is_frozen
from proxystore_core.autoproxy.plan import Planner
from proxystore_core.autoproxy.policy import Policy
from proxystore_core.autoproxy.refs import CARRIERS, REFS, Channel, Envelope, Items, Packed, Ref
from proxystore_core.autoproxy.results import auto_factory, proxy_of
from proxystore_core.autoproxy.settings import Settings
from proxystore_core.autoproxy.sizes import ATOM, PROXY, kind_of
from proxystore_core.exceptions import (
    ConnectorError,
    ResultSerializationError,
    StorageFullError,
    StoreError,
)
from proxystore_core.proxy import describe
from proxystore_core.serialize import Parts, SerializationError

_THREADS = 8


def carries(values: Iterable[Any]) -> bool:
    """Tell whether some of the arguments are, or hold, references."""
    return any(type(value) in CARRIERS for value in values)


def fetch(values: Iterable[Any], policy: Policy) -> dict[Ref, Any]:
    """Get all objects that the encoded arguments of a call refer to, side by side."""
    refs: dict[Ref, Any] = {}

    def collect(ref: Ref) -> Ref:
        refs[ref] = None
        return ref

    def search(values: Iterable[Any]) -> None:
        for value in values:
            if type(value) is Ref:
                refs[value] = None
            elif type(value) is Packed:
                walk(value.value, collect, depth=policy.depth, only=REFS)
            elif type(value) is Items:
                search(value)

    search(values)
    if policy.resolve == "lazy":
        return {ref: proxy_of(ref, None, writable=policy.writable) for ref in refs}
    if len(refs) > 1 and not all(ref.channel.maps for ref in refs):
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(len(refs), _THREADS), "proxystore-fetch") as pool:
            found = pool.map(lambda ref: ref.fetch(writable=policy.writable), refs)
            return dict(zip(refs, found, strict=True))
    return {ref: ref.fetch(writable=policy.writable) for ref in refs}


def decode(value: Any, objects: dict[Ref, Any], depth: int) -> Any:
    """Put the objects in the place of their references."""
    cls = type(value)
    if cls is Ref:
        return objects[value]
    if cls is Packed:
        return walk(value.value, objects.__getitem__, depth=depth, only=REFS)
    if cls is Items:
        return [decode(item, objects, depth) for item in value]
    return value


class Outcome:
    """Stores what is large of one result.

    Args:
        settings: Those of the task.
        refs: What the task's arguments referred to.
        task: Name of the task.
    """

    def __init__(self, settings: Settings, refs: dict[Ref, Any] | None, task: str) -> None:
        self._settings = settings
        self._refs = refs or {}
        self._task = task
        self._put: list[Any] = []  # keys
        self._left = False  # some of it is for the engine's own pickler

    def envelope(self, result: Any) -> Any:
        """Return what travels in the place of a result.

        Raises:
            ResultSerializationError: If it cannot be serialized.
        """
        policy = self._settings.policy
        kind = kind_of(type(result))
        if kind is ATOM and policy.should_proxy is None:
            return result
        if not policy.results:
            return Envelope(result) if kind is PROXY else result
        try:
            new = Planner(policy, self, put=True).encode(result)
        except BaseException:
            self._undo()
            raise
        if self._left:  # it may fail there too, and nobody would know of what was stored
            self._undo()
            return result
        changed = new is not result or kind_of(type(new)) is PROXY
        return Envelope(new) if changed else result

    def known(self, obj: Any) -> Ref | None:
        """Return the reference of an argument that nobody can have changed."""
        if is_frozen(obj):
            for ref, origin in self._refs.items():
                if origin is obj:  # an argument that comes back
                    return Ref(ref.channel, ref.key, ref.nbytes, describe(obj))
        return None

    def proxy(self, proxy: Any) -> Any:
        """Return the reference of a proxy that was handed in, or else what travels for it."""
        factory = auto_factory(proxy)
        if factory is None:
            return proxy
        if factory.ref in self._refs and factory.stands_for(proxy):
            return factory.ref
        return proxy.__proxy_wrapped__  # one that came from elsewhere: nobody holds its object

    def dump(self, obj: Any) -> Parts:
        """Serialize an object as the store does."""
        try:
            return self._settings.channel.store().dump(obj)
        except (ConnectorError, StoreError):  # no store on this host
            from proxystore_core.serialize import dump

            return dump(obj)

    def put(self, obj: Any, parts: Parts) -> Ref | None:
        """Store an object; `None` if the store does not take it."""
        source = self._settings.channel
        try:
            key = source.store().put_parts(parts)
        except (ConnectorError, StoreError, OSError) as error:
            full = isinstance(error, StorageFullError)
            if full and self._settings.policy.on_full == "raise":
                raise
            _warn_once(source, self._task, error)
            return None
        self._put.append(key)
        return Ref(source, key, parts.nbytes, describe(obj))

    def _undo(self) -> None:
        for key in self._put:
            self._settings.channel.store().evict(key)

    def unpicklable(self, top: Any, obj: Any, error: SerializationError) -> None:
        """Raise the error that names the task, if the policy wants it."""
        if self._settings.policy.on_unpicklable == "leave":
            self._left = True
            return
        raise ResultSerializationError(
            f"The result of task {self._task!r} cannot be serialized: it is, or holds, a "
            f"{type(obj).__name__} ({error}). Return plain data instead.",
            task=self._task,
        ) from error


_warned: set[tuple[bytes, type]] = set()


def _warn_once(source: Channel, task: str, error: Exception) -> None:
    mark = (source.wire, type(error))
    if mark in _warned:
        return
    _warned.add(mark)
    warnings.warn(
        f"The result of task {task!r} travels by value, because the store "
        f"{source.config.name!r} does not take it here: {error}",
        RuntimeWarning,
        stacklevel=2,
    )
