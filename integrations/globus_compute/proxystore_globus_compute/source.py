"""Functions that travel as source text: what a worker runs of it is our wrapper.

The SDK's strategies take the text of the plain function, in one of the forms that
`globus_compute_sdk.serialize.concretes` defines; lines at its end bind the name anew.
"""

from __future__ import annotations

import ast
import base64
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import dill
from globus_compute_sdk.errors import SerializationError
from globus_compute_sdk.serialize import (
    AllCodeStrategies,
    CombinedCode,
    ComputeSerializer,
    DillCode,
    DillCodeSource,
    DillCodeTextInspect,
    PureSourceDill,
    PureSourceTextInspect,
    SerializationStrategy,
)

from proxystore_globus_compute import decorator, worker
from proxystore_globus_compute.worker import RemoteFunction

_PURE = (PureSourceTextInspect, PureSourceDill)
_PICKLED = (DillCodeSource, DillCodeTextInspect)
_COMBINED = (
    DillCodeSource,
    DillCode,
    DillCodeTextInspect,
    PureSourceDill,
    PureSourceTextInspect,
)
_COLON = ":"


def serialize_function(serializer: ComputeSerializer, remote: RemoteFunction) -> str:
    """Serialize one of our functions with the strategy for code of a serializer.

    Raises:
        SerializationError: As the SDK does.
    """
    strategy = serializer.code_serializer
    if isinstance(strategy, DillCode):
        return str(serializer.serialize(remote))
    try:
        return _serialize(strategy, remote)
    except Exception as error:
        raised: Callable[[str], Exception] = SerializationError  # it has no types
        name = type(strategy).__name__
        raise raised(f"Code serialization strategy {name} failed") from error


def _serialize(strategy: SerializationStrategy, remote: RemoteFunction) -> str:
    if isinstance(strategy, AllCodeStrategies):
        parts = _each([_instance(cls) for cls in strategy.strategies], remote)
        return str(strategy.identifier + ComputeSerializer.pack_buffers(parts))
    if isinstance(strategy, CombinedCode):
        chunks: list[str] = []
        for part in _each([_instance(cls) for cls in _COMBINED], remote):
            chunks += part[:_ID], part[_ID:]
        return str(strategy.identifier) + _COLON.join(chunks)
    if isinstance(strategy, _PURE):
        name, body = strategy.serialize(remote.func)[_ID:].split(_COLON, 1)
        return f"{strategy.identifier}{name}{_COLON}{_with_epilogue(name, body, remote)}"
    if isinstance(strategy, _PICKLED):
        name, body = dill.loads(base64.b64decode(strategy.serialize(remote.func)[_ID:]))
        pickled = dill.dumps((name, _with_epilogue(name, body, remote)))
        return str(strategy.identifier) + base64.encodebytes(pickled).decode()
    return str(strategy.serialize(remote))


_ID = 3  # characters of a strategy's identifier


def _instance(cls: type[SerializationStrategy]) -> SerializationStrategy:
    return SerializationStrategy.get_cached_by_class(cls)


def _each(strategies: list[SerializationStrategy], remote: RemoteFunction) -> list[str]:
    parts: list[str] = []
    failures: list[Exception] = []
    for strategy in strategies:
        try:
            parts.append(_serialize(strategy, remote))
        except Exception as error:  # noqa: BLE001  # another one may do
            failures.append(error)
    if not parts:
        raise ExceptionGroup("All strategies failed", failures)
    return parts


def _with_epilogue(name: str, body: str, remote: RemoteFunction) -> str:
    text = textwrap.dedent(body) if body[:1].isspace() else body
    text = _without_decorator(text, remote.func)
    return text + epilogue(name, remote.settings.wire, chunk=remote.chunk)


def epilogue(name: str, wire: bytes, *, chunk: bool = False) -> str:
    """Return the lines that put our wrapper in the place of a function.

    Args:
        name: What the function is called in the text before.
        wire: How arguments and results travel.
        chunk: It takes a list of calls.
    """
    if not name.isidentifier():  # a lambda; the worker will not find it
        return ""
    alias = f"__{worker.__name__.partition('.')[0]}__"
    return (
        f"\n\nfrom {worker.__name__} import {worker.attach.__name__} as {alias}\n"
        f"{name} = {alias}({name}, {wire!r}, {chunk})\n"
    )


def _without_decorator(text: str, func: Callable[..., Any]) -> str:
    """Take our own decorator off the text of a function, if it is the first."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    first = tree.body[0] if tree.body else None
    if not isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef) or not first.decorator_list:
        return text
    top = first.decorator_list[0]
    if not _is_ours(top, func):
        return text
    lines = text.splitlines(keepends=True)
    del lines[top.lineno - 1 : top.end_lineno]
    return "".join(lines)


def _is_ours(node: ast.expr, func: Callable[..., Any]) -> bool:
    """Tell whether an expression names our decorator, as the function's module sees it."""
    while isinstance(node, ast.Call):
        node = node.func
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return False
    found = _lookup(node.id, func)
    for name in reversed(names):
        found = getattr(found, name, None)
    if found is None:  # a name of the function that it was made in
        return (names[0] if names else node.id) == decorator.auto_proxy.__name__
    inner = getattr(found, "func", None)  # a partial
    return decorator.auto_proxy in (found, inner) or isinstance(found, decorator.Decorator)


def _lookup(name: str, func: Callable[..., Any]) -> Any:
    if not inspect.isfunction(func):
        return None
    if name in func.__code__.co_freevars:
        cell = (func.__closure__ or ())[func.__code__.co_freevars.index(name)]
        return cell.cell_contents
    return func.__globals__.get(name)
