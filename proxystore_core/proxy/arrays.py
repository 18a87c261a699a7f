"""The protocols by which array libraries ask a foreign object to take part.

A proxy answers each of them by repeating the call with the targets in place of
the proxies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def unwrap(value: Any) -> Any:
    """Put targets in place of the proxies in a value and in its lists, tuples and dicts."""
    cls = type(value)
    if hasattr(cls, "__proxy_wrapped__"):
        return value.__proxy_wrapped__
    if cls in (list, tuple):
        return cls([unwrap(item) for item in value])
    if cls is dict:
        return {key: unwrap(item) for key, item in value.items()}
    return value


class ArrayProtocols:
    """The protocols of NumPy, Arrow and torch for what stands for something else."""

    __slots__ = ()

    __proxy_target__: Any

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        if copy is None:
            return np.asanyarray(self.__proxy_target__, dtype=dtype)
        return np.array(self.__proxy_target__, dtype=dtype, copy=copy, subok=True)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*unwrap(inputs), **unwrap(kwargs))

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        return func(*unwrap(args), **unwrap(kwargs))

    def __arrow_array__(self, type: Any = None) -> Any:  # noqa: A002  # pyarrow's name
        import pyarrow as pa

        return pa.array(self.__proxy_target__, type=type)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return func(*unwrap(args), **unwrap(kwargs or {}))
