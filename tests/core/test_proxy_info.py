"""What is known of a target, and that asking for it does not resolve."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import pickle
import subprocess
import sys
from collections import OrderedDict
from typing import Any

import dask.array
import dask.base
import dask.sizeof
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy, TargetInfo, describe, is_resolved
from proxystore_core.proxy.info import HASH_LIMIT, decode_hash, encode_hash
from proxystore_core.proxy.known import known_class


@dataclasses.dataclass(frozen=True)
class Frozen:
    name: str


class ByAddress:
    pass


class Hostile:
    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


def proxy_of(target: Any) -> Any:
    return Proxy(SimpleFactory(target), info=describe(target))


FRAME = pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]})


@pytest.mark.parametrize(
    ("obj", "cls", "nbytes", "length", "shape", "dtype"),
    [
        (np.zeros((3, 4), "f4"), "numpy:ndarray", 48, 3, (3, 4), "<f4"),
        (np.zeros(()), "numpy:ndarray", 8, None, (), "<f8"),
        (np.float32(1), "numpy:float32", 4, None, (), "<f4"),
        (np.zeros(2, "M8[s]"), "numpy:ndarray", 16, 2, (2,), "<M8[s]"),
        (np.zeros(2, [("x", "f4")]), "numpy:ndarray", 8, 2, (2,), None),
        (FRAME, "pandas:DataFrame", 32, 2, (2, 2), None),
        (pd.Series([1.0, 2.0]), "pandas:Series", 16, 2, (2,), "float64"),
        (pl.DataFrame({"a": [1, 2]}), "polars:DataFrame", 16, 2, (2, 1), None),
        (pa.table({"a": [1, 2]}), "pyarrow:Table", 16, 2, (2, 1), None),
        (scipy.sparse.eye_array(3), "scipy:dia_array", None, None, (3, 3), None),
        ([1, 2], "builtins:list", None, 2, None, None),
        (b"abc", "builtins:bytes", 3, 3, None, None),
        (memoryview(np.zeros(3)), "builtins:memoryview", 24, 3, None, None),
        ("é", "builtins:str", 1, 1, None, None),
        (5, "builtins:int", None, None, None, None),
        (Hostile(), f"{__name__.split('.')[0]}:Hostile", None, None, None, None),
    ],
)
def test_describe(
    obj: Any, cls: str, nbytes: int, length: int, shape: tuple[int, ...], dtype: str
) -> None:
    info = describe(obj)
    module, _, name = info.cls.partition(":")
    assert (module.split(".")[0], name) == tuple(cls.split(":"))
    assert info.nbytes == nbytes
    assert info[3:] == (length, shape, dtype)
    assert all(type(part) in (str, int, tuple, type(None)) for part in info)
    assert TargetInfo(*pickle.loads(pickle.dumps(tuple(info)))) == info


def test_a_dask_collection_is_not_computed() -> None:
    array = dask.array.from_delayed(dask.delayed(lambda: 1 / 0)(), (3,), float)
    assert describe(array).length is None


def test_of_a_proxy() -> None:
    p = proxy_of([1])
    assert describe(p) == describe([1])
    assert not is_resolved(p)
    assert describe(Proxy(SimpleFactory([1]))) == describe([1])


def test_long_data_is_not_hashed() -> None:
    assert describe(b"x" * HASH_LIMIT).hash is not None
    assert describe(b"x" * (HASH_LIMIT + 1)).hash is None
    assert describe((b"x" * HASH_LIMIT,)).hash is None
    assert describe(tuple(range(1000))).hash is None
    assert describe((1, "x")).hash is not None


HASHABLE = [5, -1, -5, 2**70, 2.5, 1j, "text", b"bytes", (1, "a"), frozenset([1]), Frozen("x")]
HASHABLE += [decimal.Decimal(5), datetime.date(2020, 1, 1), np.float64(2.5), ByAddress]


@pytest.mark.parametrize("target", HASHABLE, ids=repr)
def test_hash_without_resolving(target: Any) -> None:
    p = proxy_of(target)
    assert hash(p) == hash(target)
    assert not is_resolved(p)
    assert {p: 1}[target] == 1
    q = pickle.loads(pickle.dumps(Proxy(SimpleFactory(0), info=describe(target))))
    assert hash(q) == hash(target)
    assert not is_resolved(q)


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([int, str]))
def test_hashes_travel(value: int, cls: type[Any]) -> None:
    value = hash(value)
    assert decode_hash(encode_hash(value, cls)) == value


def test_a_hash_of_another_family_of_processes_does_not_count() -> None:
    code = "import sys; from proxystore_core.proxy import describe; print(*describe({!r})[:2])"
    for target, same in (("text", False), (5, True)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(target)],
            env={"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        cls, value = done.stdout.split()
        p = Proxy(SimpleFactory(target), info=TargetInfo(cls, int(value)))
        assert hash(p) == hash(target)
        assert is_resolved(p) is not same


def test_what_is_hashed_by_address_stays_where_it_was_put() -> None:
    original = ByAddress()
    p = Proxy(ByAddress, info=describe(original))
    found = {p: 1}
    assert not is_resolved(p)
    assert p.__dict__ == {}
    assert is_resolved(p)
    assert found[p] == 1


def test_what_has_no_hash_is_refused_without_resolving() -> None:
    for target in ([], {}, np.zeros(3), FRAME):
        p = proxy_of(target)
        with pytest.raises(TypeError, match="unhashable"):
            hash(p)
        assert not is_resolved(p)


TARGETS = [[1, 2], {"a": 1}, "text", b"bytes", np.zeros((2, 3)), FRAME, pd.Series([1.5])]
TARGETS += [pl.DataFrame({"a": [1]}), pa.table({"a": [1]}), Frozen("x"), ByAddress(), 5, {1}]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: type(t).__name__)
def test_frameworks_do_not_resolve(target: Any) -> None:
    """ProxyStore #499, #500, #549: hash, isinstance, pickle, tokenize and repr resolved."""
    p = Proxy(SimpleFactory(target), info=describe(target))
    assert isinstance(p, type(target))
    assert not isinstance(p, OrderedDict | complex | Exception)
    assert p.__class__ is type(target)
    repr(p), sys.getsizeof(p), dask.sizeof.sizeof(p)
    pickle.dumps(p)
    if describe(target).length is not None:
        assert len(p) == len(target)
    assert dask.base.tokenize(p) == dask.base.tokenize(p)
    assert not dask.base.is_dask_collection(p)
    for name in ("__dask_graph__", "__array_interface__x", "__torch_function__x", "_repr_html_"):
        assert not hasattr(p, name)
    assert not is_resolved(p)


def test_tokens_follow_the_factory() -> None:
    class Named(SimpleFactory[Any]):
        def __proxy_token__(self) -> object:
            return ("key", 1)

    one, other = Proxy(Named([1])), Proxy(Named([2]))
    assert dask.base.tokenize(one) == dask.base.tokenize(other)
    assert dask.base.tokenize(one) != dask.base.tokenize(("key", 1))
    plain = [Proxy(SimpleFactory(n)) for n in (1, 1, 2)]
    tokens = [dask.base.tokenize(p) for p in plain]
    assert tokens[0] == tokens[1] != tokens[2]


def test_truth() -> None:
    for target, unresolved in (([], True), ([0], True), ("", True), (0, False), (5, False)):
        p = proxy_of(target)
        assert bool(p) is bool(target)
        assert is_resolved(p) is not unresolved
    for ambiguous in (FRAME, np.zeros(2)):
        with pytest.raises(ValueError, match="ambiguous"):
            bool(proxy_of(ambiguous))


@pytest.mark.parametrize(
    "target",
    [
        np.zeros((2, 3), "i2"),
        np.zeros(2, [("x", "f4")]),
        FRAME,
        pd.Series([1, 2]),
        pd.Series(["a"], dtype="category"),
        pl.DataFrame({"a": [1]}),
        pl.Series([1]),
        pa.table({"a": [1]}),
        np.float64(2),
    ],
    ids=lambda t: type(t).__name__,
)
def test_attributes_of_arrays(target: Any) -> None:
    missing = object()
    for name in ("shape", "dtype", "ndim", "size", "nbytes"):
        found, wanted = getattr(proxy_of(target), name, missing), getattr(target, name, missing)
        assert type(found) is type(wanted)
        assert found == wanted or callable(found)


def test_known_attributes_do_not_resolve() -> None:
    p = proxy_of(np.zeros((2, 3), "i2"))
    assert (p.shape, p.ndim, p.size, p.nbytes) == ((2, 3), 2, 6, 12)
    assert p.dtype == np.int16
    assert not is_resolved(p)
    structured = proxy_of(np.zeros(2, [("x", "f4")]))
    assert structured.shape == (2,)
    assert not is_resolved(structured)
    assert structured.dtype.names == ("x",)
    assert is_resolved(structured)


def test_own_attributes_of_an_instance_are_found_on_an_unresolved_proxy() -> None:
    target = ByAddress()
    target.__special__ = 1  # type: ignore[attr-defined]  # that is the point
    assert proxy_of(target).__special__ == 1


def test_a_class_that_cannot_be_found_is_asked_of_the_target() -> None:
    class Local:
        pass

    def function() -> None: ...

    assert known_class(describe(function)) is None
    for target in (Local(), function):
        p = proxy_of(target)
        assert p.__class__ is type(target)
        assert is_resolved(p)
    for cls in ("no_such_module:X", "builtins:no_such_class", "os:path", "odd", ":", "sys:"):
        p = Proxy(SimpleFactory([1]), info=TargetInfo(cls, None, None, 1))
        assert isinstance(p, list)
        assert is_resolved(p)


def test_the_class_is_imported_when_asked_for() -> None:
    code = """
import sys
from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy, TargetInfo, is_resolved
p = Proxy(SimpleFactory(5), info=TargetInfo("fractions:Fraction"))
assert "fractions" not in sys.modules
assert p.__class__.__name__ == "Fraction" and not is_resolved(p)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
