"""Finds the words for an argument that cannot be serialized."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxystore_core.autoproxy.containers import shape_of
from proxystore_core.exceptions import ArgumentSerializationError
from proxystore_core.serialize import SerializationError

_TRIALS = 2000
_STEPS = 12

Dump = Callable[[Any], object]


def argument_error(
    func: Callable[..., Any],
    where: int | str,
    value: Any,
    error: SerializationError,
    *,
    task: str,
    dump: Dump,
) -> ArgumentSerializationError:
    """Say which part of which argument cannot be serialized.

    Args:
        func: The function.
        where: Position or name of the argument.
        value: The argument.
        error: What serializing it raised.
        task: Name of the task.
        dump: Serializes an object, or raises `SerializationError`.
    """
    steps, culprit = _culprit(value, dump)
    argument = parameter(func, where) + "".join(steps)
    cause = error.__cause__ or error
    made = ArgumentSerializationError(
        f"Argument {argument} of task {task!r} cannot be serialized: it is a "
        f"{type(culprit).__module__}.{type(culprit).__qualname__} ({cause}). "
        "Pass data that can be pickled, and open files, locks and connections inside the task.",
        task=task,
        argument=argument,
    )
    made.__cause__ = error
    return made


def name_of(func: Any) -> str:
    """Return the name of a callable for messages."""
    name = getattr(func, "__name__", None)
    if name is None and hasattr(func, "func"):  # a partial
        return name_of(func.func)
    return str(name) if name is not None else type(func).__name__


def parameter(func: Callable[..., Any], where: int | str) -> str:
    """Return the name of the parameter that takes an argument, as it is written in code."""
    import inspect

    plain = f"args[{where}]" if isinstance(where, int) else f"kwargs[{where!r}]"
    try:
        parameters = list(inspect.signature(func).parameters.values())
    except (TypeError, ValueError):
        return plain
    if isinstance(where, str):
        named = any(p.name == where and p.kind != p.POSITIONAL_ONLY for p in parameters)
        return where if named else plain
    positional = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return positional[where] if where < len(positional) else plain


def _culprit(value: Any, dump: Dump) -> tuple[list[str], Any]:
    """Go down into what cannot be serialized as far as that can be told."""
    steps: list[str] = []
    seen: set[int] = set()
    trials = 0
    while id(value) not in seen:
        if len(steps) == _STEPS:
            return [*steps, "…"], value
        seen.add(id(value))
        for step, child in _parts(value):
            trials += 1
            if trials > _TRIALS:
                return steps, value
            if _fails(child, dump):
                steps.append(step)
                value = child
                break
        else:
            break
    return steps, value


def _parts(value: Any) -> list[tuple[str, Any]]:
    shape = shape_of(type(value))
    if shape is not None:
        return list(zip(shape.steps(value), shape.children(value), strict=True))
    state = getattr(value, "__dict__", None)
    if not isinstance(state, dict) or isinstance(value, type):
        return []
    return [(f".{name}", child) for name, child in state.items()]


def _fails(value: Any, dump: Dump) -> bool:
    try:
        dump(value)
    except SerializationError:
        return True
    return False
