"""What runs on a worker; it imports nothing of the SDK."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from proxystore_core.autoproxy.containers import walk
from proxystore_core.autoproxy.policy import Policy
from proxystore_core.autoproxy.refs import PROXIES, Envelope, Packed, Ref
from proxystore_core.autoproxy.results import lent_ref
from proxystore_core.autoproxy.settings import Settings, settings_of
from proxystore_core.autoproxy.sizes import ATOM, kind_of
from proxystore_core.autoproxy.task import Remote
from proxystore_globus_compute.marks import Returned, unframed


class RemoteFunction:
    """What is registered in the place of a function: gets real arguments, stores large results.

    Args:
        func: Any callable.
        settings: How arguments and results travel.
        chunk: Takes a list of calls, and returns the list of their results.
    """

    def __init__(
        self, func: Callable[..., Any], settings: Settings, *, chunk: bool = False
    ) -> None:
        self._func = func
        self._settings = settings
        self._chunk = chunk
        self._remote = Remote(_Chunk(func) if chunk else func, settings)
        self.__name__: str = self._remote.__name__
        self.__qualname__: str = getattr(func, "__qualname__", self.__name__)
        self.__doc__ = getattr(func, "__doc__", None)
        module = getattr(func, "__module__", None)
        if module is not None:
            self.__module__ = module

    @property
    def func(self) -> Callable[..., Any]:
        """The function."""
        return self._func

    @property
    def settings(self) -> Settings:
        """How arguments and results travel."""
        return self._settings

    @property
    def chunk(self) -> bool:
        """Whether it takes a list of calls."""
        return self._chunk

    def __getattr__(self, name: str) -> Any:
        if name == "__signature__" and "_func" in self.__dict__:  # made when it is asked for
            return inspect.signature(_Chunk(self._func) if self._chunk else self._func)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the function as a task; raises what `Remote` does."""
        return self._run(args, kwargs)

    def _run(self, args: Any, kwargs: dict[str, Any]) -> Any:
        args, kwargs = unframed(args, kwargs)
        policy = self._settings.policy
        if policy.resolve == "eager":
            args = [_borrowed(value, policy) for value in args]
            kwargs = {name: _borrowed(value, policy) for name, value in kwargs.items()}
        result = self._remote(*args, **kwargs)
        return Returned(result.value, policy.depth) if type(result) is Envelope else result

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__name__}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _remote_function, (self._func, self._settings.wire, self._chunk)


def _remote_function(func: Callable[..., Any], wire: bytes, chunk: bool) -> RemoteFunction:
    return RemoteFunction(func, settings_of(wire), chunk=chunk)


class TaskFunction(RemoteFunction):
    """A function that is a task where an endpoint calls it, and itself everywhere else.

    So a function may call itself, or another one that is decorated, within a task.
    """

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the task, or call the function."""
        return self.enter(args, kwargs)

    def enter(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """Do what `__call__` does, for one that does nothing else."""
        return self._run(args, kwargs) if _runs_task(3) else self._func(*args, **kwargs)


def attach(func: Callable[..., Any], wire: bytes, chunk: bool = False) -> TaskFunction:
    """Wrap a function of which the source text travelled; `source` writes the call."""
    if isinstance(func, RemoteFunction):
        func = func.func
    return TaskFunction(func, settings_of(wire), chunk=chunk)


class _Chunk:
    """Several calls of a function in one task, for `map`."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func
        self.__name__ = getattr(func, "__name__", type(func).__name__)

    def __call__(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        return [self._func(*args) for args in calls]


def _borrowed(value: Any, policy: Policy) -> Any:
    """Make references of proxies that a client sent to a function which it did not know."""
    if kind_of(type(value)) is ATOM:
        return value
    new = walk(value, _ref, depth=policy.depth, only=PROXIES)
    return new if new is value or type(new) is Ref else Packed(new)


def _ref(proxy: Any) -> Any:
    ref = lent_ref(proxy)
    return proxy if ref is None else ref


_ENGINE = "globus_compute_endpoint."
_TIMEOUT = "parsl.app.python"


def _runs_task(depth: int) -> bool:
    """Tell whether what calls is what runs the tasks of an endpoint.

    Args:
        depth: How many frames up the call is.
    """
    frame = sys._getframe(depth)
    name = str(frame.f_globals.get("__name__"))
    if name == _TIMEOUT and frame.f_back is not None:  # GC_TASK_TIMEOUT is set
        name = str(frame.f_back.f_globals.get("__name__"))
    return name.startswith(_ENGINE)
