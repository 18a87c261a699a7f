"""Everything that pickle takes, and what to say where it does not."""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import pathlib
import pickle
import re
import sys
import threading
import types
import uuid
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize import dump, layout, load

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(max_size=50)
    | st.binary(max_size=50)
    | st.builds(bytearray, st.binary(max_size=50))
    | st.builds(lambda b: b * 3000, st.binary(min_size=20, max_size=50))
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
)
numbers = hnp.arrays(
    hnp.scalar_dtypes().filter(lambda d: d.kind not in "fcmM"), hnp.array_shapes(max_side=40)
)
nested = st.recursive(
    leaves | numbers,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


def equal(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


@settings(deadline=None)
@given(nested, st.booleans())
def test_nested_values(value: Any, digest: bool) -> None:
    stored = dump(value, digest=digest).tobytes()
    assert equal(load(stored), value)
    assert equal(load(bytearray(stored), writable=True), value)


class Color(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    a: int
    b: Any


@dataclasses.dataclass
class Record:
    name: str
    values: Any = None


class Slotted:
    __slots__ = ("x",)

    def __eq__(self, other: object) -> bool:
        return type(other) is Slotted and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


def test_objects_of_many_types() -> None:
    slotted = Slotted()
    slotted.x = [1]
    for obj in (
        Color.RED,
        Pair(1, Color.RED),
        Record("x", [1, 2]),
        slotted,
        collections.OrderedDict(a=1),
        collections.Counter("abc"),
        collections.deque([1, 2], maxlen=3),
        {1, 2},
        frozenset([1]),
        range(5),
        slice(1, 2),
        re.compile("a+"),
        pathlib.PurePosixPath("a/b"),
        types.SimpleNamespace(a=1),
        functools.partial(max, 3),
        decimal.Decimal("1.5"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=3),
        dt.UTC,
        print,
        Record,
        ...,
        NotImplemented,
        1j,
    ):
        loaded = load(dump(obj).tobytes())
        assert type(loaded) is type(obj)
        if not isinstance(obj, functools.partial):
            assert loaded == obj


def test_cycles_and_shared_objects() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    loaded = load(dump(cycle).tobytes())
    assert loaded[0] is loaded
    array = np.zeros(10_000)
    twice = load(dump([array, {"again": array}]).tobytes())
    assert twice[0] is twice[1]["again"]


def test_functions_that_pickle_cannot_take() -> None:
    captured = np.arange(5000)

    def inner(x: int) -> int:
        return int(captured[x])

    class Local:
        value = 3

    for obj, call in (
        (lambda x: x + 1, lambda f: f(2) == 3),
        (inner, lambda f: f(7) == 7),
        (Local(), lambda o: o.value == 3),
        (Local, lambda c: c().value == 3),
        ([inner, captured], lambda o: o[0](8) == 8),
    ):
        assert call(load(dump(obj).tobytes()))


def test_large_bytes_inside_are_not_copied() -> None:
    payload = bytes(200_000)
    changing = bytearray(200_000)
    parts = dump({"x": payload, "y": [changing]})
    assert any(getattr(b, "obj", b) is payload for b in parts.buffers)
    assert any(getattr(b, "obj", b) is changing for b in parts.buffers)
    assert load(parts.tobytes()) == {"x": payload, "y": [changing]}


def test_pickle_buffers() -> None:
    for size in (10, 10_000):
        data = bytearray(range(10)) * (size // 10)
        stored = dump([pickle.PickleBuffer(data)]).tobytes()
        assert bytes(load(stored)[0]) == data
        assert layout.parse(memoryview(stored))[0].buffers == (size > 2048)
    # Not of a memoryview: before Python 3.13, one in a cycle crashes the collector.
    gaps = pickle.PickleBuffer(np.zeros(10)[::2])
    with pytest.raises(SerializationError, match="PickleBuffer"):
        dump([gaps])


def test_registered_reducers_are_respected() -> None:
    class Odd:
        pass

    copyreg.pickle(Odd, lambda obj: (str, ("reduced",)))
    try:
        assert load(dump([Odd()]).tobytes()) == ["reduced"]
    finally:
        del copyreg.dispatch_table[Odd]


def test_modules_registered_by_value_are_sent() -> None:
    module = types.ModuleType("here_only")
    exec("def f(x): return x * 2\nclass C:\n  y = 5", module.__dict__)
    sys.modules["here_only"] = module
    cloudpickle.register_pickle_by_value(module)
    try:
        stored = dump([module.f, module.C()]).tobytes()
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules["here_only"]
    function, instance = load(stored)
    assert function(4) == 8
    assert instance.y == 5


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("will not")


class Holder:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


class SlottedHolder:
    __slots__ = ("inner",)


def slotted_holder() -> SlottedHolder:
    holder = SlottedHolder()
    holder.inner = threading.Lock()
    return holder


def closure_over(value: Any) -> Any:
    return lambda: value


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (threading.Lock(), r"type _thread\.lock cannot be serialized: cannot pickle"),
        (
            {"a": [1, (threading.Lock(),)]},
            r"type dict .*: \['a'\]\[1\]\[0\] is of type _thread.lock",
        ),
        (Holder(b=Holder(c={3: threading.Lock()})), r"Holder .*: \.b\.c\[3\] is of type _thread"),
        (slotted_holder(), r"SlottedHolder .*: \.inner is of type _thread"),
        (closure_over(threading.Lock()), r"function .*: \.<closure>\.value is of type _thread"),
        ([Unpicklable()], r"type list .*: \[0\] is of type .*Unpicklable: will not"),
        (
            {Unpicklable(): 1},
            r"type dict .*: \[key Unpicklable\] is of type .*Unpicklable: will not",
        ),
        (dict.fromkeys(["k" * 80], threading.Lock()), r"\['k{35}\.\.\.'\] is of type _thread"),
        ({"a", Unpicklable()}, r"\{\.\.\.\} is of type .*Unpicklable"),
    ],
)
def test_errors_name_what_cannot_be_pickled(obj: Any, says: str) -> None:
    with pytest.raises(SerializationError, match=says) as info:
        dump(obj)
    assert info.value.__cause__ is not None


def test_looking_for_the_culprit_is_bounded() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError, match="recursion"):
        dump(deep)
    wide = [[] for _ in range(100_000)] + [threading.Lock()]
    with pytest.raises(SerializationError, match=r"cannot pickle '_thread\.lock' object"):
        dump(wide)


def test_out_of_memory_is_no_serialization_error() -> None:
    class Greedy:
        def __reduce__(self) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        dump(Greedy())
    with pytest.raises(MemoryError):
        dump([lambda: 0, Greedy()])


def test_interrupts_pass() -> None:
    class Interrupted:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dump([Interrupted()])


def test_threads_do_not_disturb_each_other() -> None:
    stored = dump([np.zeros(5) for _ in range(200)]).tobytes()
    wrong: list[str] = []

    def work(writable: bool) -> None:
        for _ in range(30):
            loaded = load(stored, writable=writable)
            if any(a.flags.writeable is not writable for a in loaded):
                wrong.append(str(writable))

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_loads_inside_a_load_keep_their_own_mode() -> None:
    inner = dump([np.zeros(5)]).tobytes()
    stored = dump([np.zeros(5), Nested(inner), np.zeros(6)]).tobytes()
    first, (between,), last = load(stored, writable=True)
    assert first.flags.writeable
    assert last.flags.writeable
    assert not between.flags.writeable


class Nested:
    def __init__(self, stored: bytes) -> None:
        self.stored = stored

    def __reduce__(self) -> Any:
        return load, (self.stored,)
