"""Which part of an object cannot be pickled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

_MAX_TRIES = 500
_MAX_DEPTH = 12
_MAX_SECONDS = 0.5


def describe(obj: Any, error: Exception, error_of: Callable[[Any], Exception | None]) -> str:
    """Say why an object cannot be serialized, and which part of it is to blame.

    Args:
        obj: The object.
        error: What pickling it raised.
        error_of: Returns what pickling a part raises, or `None`.
    """
    what = f"An object of type {_type_name(obj)} cannot be serialized"
    path, culprit, error = _search(obj, error, error_of)
    if not path:
        return f"{what}: {error}"
    return f"{what}: {path} is of type {_type_name(culprit)}: {error}"


def _search(
    obj: Any, error: Exception, error_of: Callable[[Any], Exception | None]
) -> tuple[str, Any, Exception]:
    path = ""
    tries = 0
    deadline = time.monotonic() + _MAX_SECONDS
    for _ in range(_MAX_DEPTH):
        for label, part in _parts(obj):
            tries += 1
            if tries > _MAX_TRIES or time.monotonic() > deadline:
                return path, obj, error
            found = error_of(part)
            if found is not None:
                path, obj, error = path + label, part, found
                break
        else:
            return path, obj, error
    return path, obj, error


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    """Iterate over the parts of an object that pickle would visit."""
    cls = type(obj)
    if issubclass(cls, dict):
        for key, value in dict.items(obj):
            yield f"[{_short(key)}]", value
            yield f"[key {_short(key)}]", key
    elif issubclass(cls, (list, tuple)):
        for i, value in enumerate(cls.__iter__(obj)):
            yield f"[{i}]", value
    elif issubclass(cls, (set, frozenset)):
        for value in cls.__iter__(obj):
            yield "{...}", value
    elif cls is FunctionType:
        code = obj.__code__
        for name, cell in zip(code.co_freevars, obj.__closure__ or (), strict=False):
            try:
                yield f".<closure>.{name}", cell.cell_contents
            except ValueError:
                continue  # a variable that has no value yet
        for name in code.co_names:
            if name in obj.__globals__:
                yield f".<globals>.{name}", obj.__globals__[name]
    # Not getattr: what an object hides, or fetches on access, stays untouched.
    try:
        attributes = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        attributes = {}
    if isinstance(attributes, dict):
        for name, value in attributes.items():
            yield f".{name}", value
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            try:
                yield f".{name}", object.__getattribute__(obj, name)
            except AttributeError:
                continue


def _short(key: Any) -> str:
    if type(key) in (str, int, float, bool, bytes, type(None)):
        text = repr(key)
        return text if len(text) <= 40 else f"{text[:36]}...{text[-1]}"
    return type(key).__name__


def _type_name(obj: Any) -> str:
    cls = type(obj)
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )
