"""The arguments of one call, serialized where the call was made."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

from globus_compute_sdk.serialize import (
    AllDataStrategies,
    ComputeSerializer,
    DillDataBase64,
    JSONData,
)

from proxystore_core.autoproxy.errors import argument_error
from proxystore_core.autoproxy.refs import Packed, Ref
from proxystore_core.autoproxy.worker import carries
from proxystore_core.exceptions import SerializationError
from proxystore_globus_compute.marks import framed


class ReadyArgs(tuple[Any, ...]):
    """Positional arguments, and what they are serialized; a plain tuple for everyone else."""

    payload: str = ""
    call: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)


class ReadyKwargs(dict[str, Any]):
    """Keyword arguments, and what they are serialized; a plain dictionary for everyone else."""

    payload: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def speaks_json(serializer: ComputeSerializer) -> bool:
    """Tell whether arguments travel as JSON and in no other form."""
    return isinstance(serializer.data_serializer, JSONData)


def ready(
    serializer: ComputeSerializer,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    func: Callable[..., Any] | None,
    task: str,
) -> tuple[ReadyArgs, ReadyKwargs]:
    """Serialize the arguments of a call.

    Args:
        serializer: The serializer of the client.
        args: Positional arguments, references among them.
        kwargs: Keyword arguments.
        func: The function, for messages; `None` if it is not known.
        task: Name of the task, for messages.

    Raises:
        ArgumentSerializationError: If an argument cannot be serialized.
    """
    if carries(args) or carries(kwargs.values()):
        args, kwargs = _in_json(serializer, args, kwargs)
    made, named = ReadyArgs(args), ReadyKwargs(kwargs)
    try:
        made.payload = serializer.serialize(args)
        named.payload = _plain_dict(serializer) if not kwargs else serializer.serialize(kwargs)
    except Exception as error:
        _blame(serializer, args, kwargs, func, task)
        raise error
    return made, named


_NONE: dict[type, str] = {
    strategy: ComputeSerializer(strategy_data=strategy).serialize({})
    for strategy in (DillDataBase64, JSONData)
}


def _plain_dict(serializer: ComputeSerializer) -> str:
    """Serialize no keyword arguments: so it is with most calls."""
    known = _NONE.get(type(serializer.data_serializer))
    return serializer.serialize({}) if known is None else known


def _in_json(
    serializer: ComputeSerializer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give references a form that JSON takes, where that is what the call travels as."""
    strategy = serializer.data_serializer
    if isinstance(strategy, JSONData):
        return framed(args, kwargs)
    if isinstance(strategy, AllDataStrategies):
        try:
            found = framed(args, kwargs)
            json.dumps(found[0])
        except (TypeError, ValueError):  # then as dill alone
            return args, kwargs
        return found
    return args, kwargs


def _blame(
    serializer: ComputeSerializer,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    func: Callable[..., Any] | None,
    task: str,
) -> None:
    """Raise the error that names the argument which cannot be serialized."""

    def dump(value: Any) -> str:
        try:
            return serializer.serialize([value])  # in a list: a callable would count as code
        except Exception as error:  # noqa: BLE001  # whatever the strategies raise
            raise SerializationError(str(error)) from (error.__cause__ or error)

    arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for where, value in arguments:
        if type(value) in (Ref, Packed):
            continue
        try:
            dump(value)
        except SerializationError as cause:
            raise argument_error(
                func or _unknown, where, value, cause, task=task, dump=dump
            ) from cause


def _unknown(*args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError
