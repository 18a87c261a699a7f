"""The decorator, for functions that anyone registers and calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from proxystore_core.autoproxy.policy import Policy
from proxystore_core.autoproxy.refs import channel_of
from proxystore_core.autoproxy.settings import Settings, settings_of
from proxystore_core.store.base import Store
from proxystore_globus_compute.options import checked
from proxystore_globus_compute.worker import TaskFunction

P = ParamSpec("P")
R = TypeVar("R")


class AutoProxied(TaskFunction, Generic[P, R]):
    """A function whose results, as a task of Globus Compute, travel by reference.

    Called in any other way it is the function itself, which `func` gives.
    """

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, or run the task where an endpoint calls."""
        found: R = self.enter(args, kwargs)
        return found

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Be a method, as the function would."""
        return self if instance is None else self._func.__get__(instance, owner)

    def __reduce__(self) -> str | tuple[Any, ...]:
        func, wire = self._func, self._settings.wire
        if self._importable():  # what is imported there may have another store
            return _imported, (self.__module__, self.__qualname__, wire)
        import cloudpickle

        try:
            return _made, (None, wire, cloudpickle.dumps(func, 5))
        except Exception:  # noqa: BLE001  # the SDK's pickler may know a way, or its error
            return _made, (func, wire)

    def _importable(self) -> bool:
        if self.__module__ == "__main__":
            return False
        found: Any = sys.modules.get(self.__module__)
        for part in self.__qualname__.split("."):
            found = getattr(found, part, None)
        return found is self


def _imported(module: str, qualname: str, wire: bytes) -> AutoProxied[..., Any]:
    from importlib import import_module

    found: Any = import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if isinstance(found, AutoProxied):
        if found.settings.wire == wire:
            return found
        found = found.func
    return AutoProxied(found, settings_of(wire))


def _made(func: Any, wire: bytes, pickled: bytes | None = None) -> AutoProxied[..., Any]:
    import pickle

    return AutoProxied(func if pickled is None else pickle.loads(pickled), settings_of(wire))


class Decorator:
    """What `auto_proxy` with options gives.

    Args:
        settings: How arguments and results travel.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, func: Callable[P, R]) -> AutoProxied[P, R]:
        """Decorate a function."""
        return AutoProxied(func, self._settings)


@overload
def auto_proxy(
    func: Callable[P, R],
    /,
    *,
    store: Store[Any],
    threshold: int | str | None = ...,
    policy: Policy | None = ...,
) -> AutoProxied[P, R]: ...


@overload
def auto_proxy(
    *,
    store: Store[Any],
    threshold: int | str | None = ...,
    policy: Policy | None = ...,
) -> Decorator: ...


def auto_proxy(
    func: Callable[P, R] | None = None,
    /,
    *,
    store: Store[Any] | None = None,
    threshold: int | str | None = None,
    policy: Policy | None = None,
) -> AutoProxied[P, R] | Decorator:
    """Let the large results of a function travel by reference, whoever calls it.

    For functions that are registered once and called by others, or with the SDK's own
    `Executor` or `Client`. What is large of a result reaches the caller as a `Proxy`, and is
    evicted when the caller lets go of it, at the latest when the caller's process ends. Large
    arguments that a `ProxyExecutor` or `ProxyClient` sends arrive as the real objects.

    Called in this process, in a pool, or inside of another task, the function is as before.

    Args:
        func: The function, where the decorator is not used as `@auto_proxy(...)`.
        store: Where the objects lie. The workers and the callers must reach it.
        threshold: Smallest size that travels by reference, in bytes or as `'50 kB'`.
        policy: What else decides about what travels by reference, and how.

    Raises:
        ExecutorConfigError: If there is no store, or an option is not what it should be.
    """
    used = checked(store, threshold, policy, who="auto_proxy")
    made = Decorator(Settings(channel_of(used.store), used.task_policy, wrapped=False))
    return made if func is None else made(func)
