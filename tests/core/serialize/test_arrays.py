"""NumPy arrays: every dtype, layout and nesting, without copies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize import dump, layout, load

dtypes = (
    hnp.scalar_dtypes()
    | hnp.byte_string_dtypes(min_len=1)
    | hnp.unicode_string_dtypes(min_len=1)
    | hnp.array_dtypes(hnp.scalar_dtypes(), allow_subarrays=True)
)
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=6))
)


def same(a: Any, b: Any) -> bool:
    """Tell whether arrays are equal bit by bit, NaNs and padding aside."""
    if type(a) is not type(b) or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return repr(a.tolist()) == repr(b.tolist())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(arrays, st.data())
def test_every_dtype_and_layout(array: np.ndarray[Any, Any], data: st.DataObject) -> None:
    if array.ndim:
        array = array.transpose(data.draw(st.permutations(range(array.ndim))))
        steps = st.sampled_from([slice(None), slice(None, None, 2), slice(None, None, -1)])
        array = array[tuple(data.draw(steps) for _ in range(array.ndim))]
    for writable in (False, True):
        top = load(dump(array).tobytes(), writable=writable)
        (nested,) = load(dump([array]).tobytes(), writable=writable)
        for loaded in (top, nested):
            assert same(loaded, array)
            assert loaded.flags.writeable is writable


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12_000.0),
        np.arange(12_000.0).reshape(120, 100).T,
        np.zeros((20, 30, 40), "i4", order="F"),
        np.zeros((20, 30, 400), "u1").transpose(2, 0, 1),
        np.zeros((60, 1, 200)).transpose(1, 2, 0),
        np.arange(60000).astype("M8[us]"),
        np.zeros(10_000, "m8[ns]"),
        np.zeros(50_000, "S3"),
        np.zeros(10_000, "U3"),
        np.zeros(10_000, "c16"),
        np.zeros(10_000, ">f8"),
        np.zeros(10_000, "V8"),
        np.zeros((4, 20_000))[:, 1000:9000],  # long runs
    ],
    ids=lambda a: f"{a.dtype}-{a.shape}",
)
def test_memory_is_shared_and_order_is_kept(array: np.ndarray[Any, Any]) -> None:
    parts = dump(array)
    assert parts.serializer == "ndarray"
    assert shares(parts, array)
    stored = parts.tobytes()
    loaded = load(stored)
    assert np.shares_memory(loaded, np.frombuffer(stored, "u1"))
    assert same(loaded, array)
    assert loaded.flags.aligned
    if array.flags.c_contiguous or array.flags.f_contiguous:
        assert loaded.squeeze().strides == array.squeeze().strides  # those of one item mean nothing
    nested = dump({"x": [array, array]})
    assert shares(nested, array)
    assert nested.nbytes < parts.nbytes + 1000  # one object is stored once
    twice = load(nested.tobytes())["x"]
    assert twice[0] is twice[1]
    assert same(twice[0], array)


def shares(parts: layout.Parts, array: np.ndarray[Any, Any]) -> bool:
    return any(np.shares_memory(np.frombuffer(b, "u1"), array) for b in parts.buffers if len(b))


@pytest.mark.parametrize("size", [10, 1000, 4000])
def test_records_go_out_of_band_by_pickle(size: int) -> None:
    array = np.zeros(size, [("a", "i2"), ("when", "M8[s]"), ("c", [("x", "f8", (2,))])])
    array["a"] = np.arange(size)
    parts = dump(array)
    assert parts.serializer == "pickle"
    assert shares(parts, array) is (array.nbytes >= 65536)
    assert same(load(parts.tobytes()), array)
    assert same(load(dump(array[::2]).tobytes()), array[::2])


def test_objects_are_pickled() -> None:
    array = np.array([1, "x", None, {"k": np.arange(2)}], dtype=object)
    loaded = load(dump(array).tobytes())
    assert loaded.dtype == object
    assert list(loaded[:3]) == [1, "x", None]
    records = np.array([(1, "x")], [("a", "i4"), ("b", object)])
    assert load(dump(records).tobytes()) == records
    if hasattr(np.dtypes, "StringDType"):  # from NumPy 2
        text = np.array(["a", "long text " * 5], dtype=np.dtypes.StringDType())
        assert same(load(dump(text).tobytes()), text)


def test_metadata_of_a_dtype_is_not_lost() -> None:
    array = np.zeros(3, np.dtype("f8", metadata={"unit": "m"}))
    assert load(dump(array).tobytes()).dtype.metadata == {"unit": "m"}


class Tagged(np.ndarray[Any, Any]):
    pass


def test_subclasses_stay_subclasses() -> None:
    for cls in (Tagged, np.matrix, np.recarray):
        array = np.zeros((3, 1000)).view(cls)
        loaded = load(dump(array).tobytes())
        assert type(loaded) is cls
        assert (loaded == array).all()
    masked = np.ma.masked_greater(np.arange(1000), 500)
    loaded = load(dump(masked).tobytes())
    assert (loaded.mask == masked.mask).all()
    assert loaded.sum() == masked.sum()


def test_memory_maps_are_not_copied(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "data", "f8", "w+", shape=(100, 100))
    mapped[:] = 3
    for obj in (mapped, [mapped]):
        parts = dump(obj)
        assert shares(parts, mapped)
        loaded = load(parts.tobytes())
        loaded = loaded[0] if isinstance(loaded, list) else loaded
        assert type(loaded) is np.memmap
        assert (loaded == 3).all()


def test_a_read_only_array_can_be_loaded_writable() -> None:
    first = load(dump([np.zeros(3), np.zeros(3000)]).tobytes())
    second = load(dump(first).tobytes(), writable=True)
    for array in second:
        array += 1
    assert second[1].sum() == 3000


def test_scalars_and_generators() -> None:
    for scalar in (np.float32(1.5), np.datetime64("2020-01-01"), np.bool_(True)):
        loaded = load(dump(scalar).tobytes())
        assert loaded == scalar
        assert type(loaded) is type(scalar)
    generator = np.random.default_rng(3)
    twin = load(dump(generator).tobytes())
    assert twin.integers(1 << 40) == generator.integers(1 << 40)
    old = np.random.RandomState(3)
    assert load(dump(old).tobytes()).randint(1 << 30) == old.randint(1 << 30)


def test_in_band_arrays_need_no_buffers() -> None:
    stored = dump([np.arange(i) for i in range(100)]).tobytes()
    header, _, _ = layout.parse(memoryview(stored))
    assert header.buffers == 0
    loaded = load(stored)
    assert all(same(a, np.arange(i)) for i, a in enumerate(loaded))
    assert not any(a.flags.writeable for a in loaded)


def test_altered_shapes_are_refused() -> None:
    stored = layout.build("ndarray", b"<f8;1000000;", [b"x" * 80]).tobytes()
    with pytest.raises(SerializationError, match="buffer is too small"):
        load(stored)
    stored = layout.build("ndarray", b"|O;2;", [b"x" * 16]).tobytes()
    with pytest.raises(SerializationError, match="cannot lie in bytes"):
        load(stored)


def test_arrays_dumped_while_numpy_is_imported_late() -> None:
    code = """
from proxystore_core.serialize import dump, load
dump([1])
import numpy as np
parts = dump([np.zeros(10000)])
assert len(parts.buffers) == 2, parts
assert load(parts.tobytes())[0].sum() == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)
