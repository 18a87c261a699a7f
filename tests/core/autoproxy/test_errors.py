from __future__ import annotations

import functools
import threading
from typing import Any

import pytest

from proxystore_core.autoproxy.errors import argument_error, name_of, parameter
from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize import dump


def job(first: Any, /, second: Any, *rest: Any, third: Any = None, **more: Any) -> None: ...


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (0, "first"),
        (1, "second"),
        (2, "args[2]"),
        ("second", "second"),
        ("third", "third"),
        ("fourth", "kwargs['fourth']"),
        ("first", "kwargs['first']"),
    ],
)
def test_arguments_are_called_as_the_function_calls_them(where: int | str, name: str) -> None:
    assert parameter(job, where) == name


def test_functions_without_a_signature() -> None:
    assert parameter(dict.fromkeys, 7) == "args[7]"
    assert parameter(type, 0) == "args[0]"
    assert parameter(type, "x") == "kwargs['x']"


def test_names() -> None:
    assert name_of(job) == "job"
    assert name_of(functools.partial(functools.partial(job, 1), 2)) == "job"
    assert name_of(threading.Event()) == "Event"


def explain(value: Any) -> str:
    with pytest.raises(SerializationError) as info:
        dump(value)
    return argument_error(job, 1, value, info.value, task="t", dump=dump).argument


def test_the_way_to_the_culprit() -> None:
    lock = threading.Lock()
    assert explain(lock) == "second"
    assert explain([1, {"k": (2, lock)}]) == "second[1]['k'][1]"
    event = threading.Event()
    assert explain({"e": event}).startswith("second['e']._cond")
    deep: Any = lock
    for _ in range(50):
        deep = [deep]
    assert explain(deep) == "second" + "[0]" * 12 + "…"


def test_cycles_and_very_wide_things_end() -> None:
    lock = threading.Lock()
    loop: list[Any] = [lock]
    loop.insert(0, loop)
    assert explain(loop).startswith("second[0]")
    assert explain([*range(3000), lock]) == "second"
