"""Proxies in the hands of NumPy, pandas and torch; the single functions are in the matrix."""

from __future__ import annotations

import sys
import weakref
from typing import Any

import numpy as np
import pandas as pd
import pytest

from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy, extract
from proxystore_core.proxy.arrays import unwrap


def proxy_of(target: Any) -> Any:
    return Proxy(SimpleFactory(target))


@pytest.mark.parametrize("dtype", ["f8", "i4", "M8[ns]", "U3", "O", "?", [("x", "f4")]])
def test_an_array_is_handed_over_without_a_copy(dtype: Any) -> None:
    array = np.zeros((3, 2), dtype)
    array.flags.writeable = False
    for made in (np.asarray(proxy_of(array)), np.asanyarray(proxy_of(array))):
        assert np.shares_memory(made, array)
        assert made.dtype == array.dtype
        assert not made.flags.writeable
    again = np.array(proxy_of(array), copy=True)
    assert not np.shares_memory(again, array)
    assert again.flags.writeable


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="copy=False is new")
def test_a_copy_that_was_forbidden_is_refused() -> None:
    with pytest.raises(ValueError, match="copy"):
        np.asarray(proxy_of([1, 2]), copy=False)
    array = np.zeros(3)
    assert np.shares_memory(np.asarray(proxy_of(array), copy=False), array)


def test_a_view_keeps_its_array_when_the_proxy_lets_go() -> None:
    p = proxy_of(np.full(10**6, 7.0))
    view = np.asarray(p)
    target = weakref.ref(extract(p))
    del p.__proxy_wrapped__
    object.__setattr__(p, "__proxy_factory__", int)
    assert target() is not None
    assert view.min() == 7.0


def test_a_large_array_is_not_copied_by_functions() -> None:
    array = np.zeros(10**6)
    for view in (np.ravel, np.atleast_2d, np.broadcast_arrays, np.squeeze, np.flip):
        made = view(proxy_of(array))
        made = made[0] if isinstance(made, tuple | list) else made
        assert np.shares_memory(made, array)


def test_memory_order_and_strides_are_kept() -> None:
    array = np.arange(12.0).reshape(3, 4)[:, ::2]
    assert np.asarray(proxy_of(array)).strides == array.strides


def test_subclasses_go_through_functions_as_themselves() -> None:
    masked = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    assert isinstance(np.sin(proxy_of(masked)), np.ma.MaskedArray)
    assert np.ma.sum(proxy_of(masked)) == 1.0
    series = pd.Series([1.0, 4.0], name="a")
    assert np.sqrt(proxy_of(series)).name == "a"


def test_results_go_into_a_proxied_array() -> None:
    array = np.zeros(3)
    made = np.add(np.ones(3), proxy_of(array), out=proxy_of(array))
    assert made is array
    assert array.tolist() == [1.0, 1.0, 1.0]
    view = proxy_of(array)
    view += 1
    view[0] = 5
    assert array.tolist() == [5.0, 2.0, 2.0]


def test_unwrap_looks_into_containers() -> None:
    array = np.zeros(3)
    p = proxy_of(array)
    assert unwrap([p, (p, {"a": p})])[1][1]["a"] is array
    plain = np.zeros(2)
    assert unwrap(plain) is plain


def test_errors_are_those_of_the_function() -> None:
    with pytest.raises(np.exceptions.AxisError):
        np.sum(proxy_of(np.zeros(3)), axis=5)
    with pytest.raises(ValueError, match="dimensions"):
        np.concatenate([proxy_of(np.zeros(3)), np.zeros((2, 2))])


def test_torch_functions_get_tensors() -> None:
    """The protocol, by a stand-in for what torch calls; `torch` itself is in the matrix."""
    p = proxy_of([3, 1])
    made = type(p).__torch_function__(sorted, (type(p),), (p,), {"reverse": True})
    assert made == [3, 1]
    assert type(p).__torch_function__(sorted, (), (p,)) == [1, 3]


def test_numpy_is_not_imported_for_a_proxy() -> None:
    import subprocess

    code = (
        "import sys, proxystore_core.proxy as p; p.describe(5); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_extract_gives_the_array_itself() -> None:
    array = np.zeros(3)
    assert extract(proxy_of(array)) is array
