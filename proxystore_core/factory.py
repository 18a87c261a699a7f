"""Factories: callables that give a proxy its target.

Any callable without parameters will do; these classes are for what should pickle
small and say what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

T = TypeVar("T")


class Factory(Generic[T]):
    """Base class of factories: a subclass says how to `resolve`.

    A factory is pickled with its proxies, so it should hold what is needed to find
    the target, not the target itself.
    """

    __proxy_reduce__: ClassVar[Any] = None  # asked at each pickling: found faster than missed

    def __init__(self) -> None:
        raise NotImplementedError(
            f"{type(self).__name__} is abstract: subclass it with __init__() and resolve()."
        )

    def __call__(self) -> T:
        """Give the target."""
        return self.resolve()

    def resolve(self) -> T:
        """Give the target."""
        raise NotImplementedError(f"{type(self).__name__} does not define resolve().")


class SimpleFactory(Factory[T]):
    """Gives an object that it holds.

    Args:
        obj: The object.
    """

    def __init__(self, obj: T) -> None:
        self._obj = obj

    def __repr__(self) -> str:
        return f"SimpleFactory(<{type(self._obj).__name__}>)"

    def resolve(self) -> T:
        """Give the object."""
        return self._obj


class LambdaFactory(Factory[T]):
    """Gives what a call returns.

    Args:
        target: What to call.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.

    Raises:
        TypeError: If `target` is not callable.
    """

    def __init__(self, target: Callable[..., T], *args: Any, **kwargs: Any) -> None:
        if not callable(target):
            raise TypeError(f"LambdaFactory needs a callable, not {type(target).__name__}.")
        self._target = target
        self._args = args
        self._kwargs = kwargs

    def __repr__(self) -> str:
        name = getattr(self._target, "__qualname__", None) or type(self._target).__qualname__
        return f"LambdaFactory({name})"

    def resolve(self) -> T:
        """Call the callable and give what it returns."""
        return self._target(*self._args, **self._kwargs)
