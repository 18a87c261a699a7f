"""What runs on a worker: fetch the arguments, call the function, store the result."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxystore_core.autoproxy.errors import name_of
from proxystore_core.autoproxy.handles import Lease
from proxystore_core.autoproxy.refs import Ref
from proxystore_core.autoproxy.settings import Settings, settings_of
from proxystore_core.autoproxy.worker import Outcome, carries, decode, fetch


@dataclass(slots=True)
class Task:
    """A call, ready to be handed to an engine.

    Attributes:
        func: What the engine runs in place of the function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        lease: Holds what the arguments refer to; release it when the task is over, and not
            before its result went through `Session.result`.
        stored: Bytes that went into the store for this task.
    """

    func: Remote
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    lease: Lease = field(default_factory=Lease)
    stored: int = 0


class Remote:
    """Calls a function with the objects that its arguments refer to.

    It is equal to another of the same function and settings, and looks like the function.

    Args:
        func: Any callable.
        settings: How arguments and results travel.
    """

    def __init__(self, func: Callable[..., Any], settings: Settings) -> None:
        self._func = func
        self._settings = settings
        self.__name__: str
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            value = getattr(func, name, None)
            if value is not None:
                self.__dict__[name] = value
        if "__name__" not in self.__dict__:
            self.__dict__["__name__"] = name_of(func)
        if settings.wrapped:
            self.__wrapped__ = func

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the function.

        Raises:
            ReferenceUnreachableError: If an argument lies where this host cannot reach.
            ProxyResolveMissingKeyError: If an argument is gone.
            ResultSerializationError: If the result cannot be serialized.
        """
        settings = self._settings
        refs: dict[Ref, Any] | None = None
        if carries(args) or carries(kwargs.values()):
            policy = settings.policy
            refs = fetch((*args, *kwargs.values()), policy)
            args = tuple(decode(value, refs, policy.depth) for value in args)
            kwargs = {name: decode(value, refs, policy.depth) for name, value in kwargs.items()}
        result = self._func(*args, **kwargs)
        return Outcome(settings, refs, self.__name__).envelope(result)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return NotImplemented
        return self._settings.wire == other._settings.wire and bool(self._func == other._func)

    def __hash__(self) -> int:
        try:
            return hash((self._func, self._settings.wire))
        except TypeError:  # a callable object with no hash of its own
            return hash((type(self._func), self._settings.wire))

    def __repr__(self) -> str:
        return f"<Remote {self.__name__}>"

    def __dask_tokenize__(self) -> Any:
        from dask.base import normalize_token

        return "proxystore-remote", normalize_token(self._func), self._settings.wire

    def __reduce__(self) -> tuple[Any, ...]:
        func = self._func
        if not self._settings.own_code and not _importable(func):
            import cloudpickle

            try:
                return _remote, (None, self._settings.wire, cloudpickle.dumps(func, 5))
            except Exception:  # noqa: BLE001  # the engine's pickler may know a way, or its error
                return _remote, (func, self._settings.wire)
        return _remote, (func, self._settings.wire)


def _remote(func: Any, wire: bytes, pickled: bytes | None = None) -> Remote:
    return Remote(func if pickled is None else pickle.loads(pickled), settings_of(wire))


def _importable(func: Any) -> bool:
    """Tell whether a callable pickles by itself, as far as a look at it tells."""
    if isinstance(func, types.MethodType):
        owner = func.__self__
        return _importable(owner if isinstance(owner, type) else type(owner))
    if not isinstance(func, (types.FunctionType, type)):
        inner = getattr(func, "func", None)  # a partial
        return _importable(type(func)) and (inner is None or _importable(inner))
    found: Any = sys.modules.get(func.__module__)
    for part in func.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is func
