"""pandas and polars frames: equal, read-only views, zero copy."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pytest

from proxystore_core.serialize import dump, layout, load

N = 20_000


def sizes(parts: layout.Parts) -> tuple[int, int]:
    """Return the length of the in-band data and of all buffers."""
    _, data, buffers = layout.parse(memoryview(parts.tobytes()))
    return len(data), sum(map(len, buffers))


@pytest.fixture(scope="module")
def pandas_frame() -> Any:
    pd = pytest.importorskip("pandas")
    columns = {
        "a": np.arange(float(N)),
        "b": np.arange(float(N)) * 2,
        "text": [f"text {i}" for i in range(N)],
        "when": pd.date_range("2020", periods=N, freq="s"),
        "zone": pd.date_range("2020", periods=N, freq="s", tz="Europe/Paris"),
        "span": pd.to_timedelta(np.arange(N)),
        "period": pd.period_range("1970", periods=N, freq="h"),
        "category": pd.Categorical(["a", "b"] * (N // 2)),
        "maybe": pd.array([1, None] * (N // 2), dtype="Int64"),
        "bool": [True, False] * (N // 2),
    }
    if pytest.importorskip("pyarrow"):
        columns["arrow text"] = pd.array(["y"] * N, dtype="string[pyarrow]")
        columns["arrow number"] = pd.array(np.arange(N), dtype="int64[pyarrow]")
    return pd.DataFrame(columns)


def test_pandas_frames_and_their_parts(pandas_frame: Any) -> None:
    import pandas as pd

    variants = [
        pandas_frame,
        pandas_frame.iloc[10:5000],
        pandas_frame.iloc[::2],
        pandas_frame.iloc[:0],
        pandas_frame.set_index("when"),
        pandas_frame.set_index("text"),
        pandas_frame.set_index(["text", "category"]),
        pd.concat([pandas_frame, pandas_frame]),
        pandas_frame[["b", "text"]],
        pd.DataFrame({"mixed": [None, "x", 3, {"k": 1}]}),
    ]
    for obj in variants:
        loaded = load(dump(obj).tobytes())
        pd.testing.assert_frame_equal(loaded, obj)
        assert (loaded.dtypes == obj.dtypes).all()
    writable = load(dump(pandas_frame).tobytes(), writable=True)
    pd.testing.assert_frame_equal(writable, pandas_frame)
    for name in pandas_frame.columns:
        series = pandas_frame[name].iloc[5:5000]
        pd.testing.assert_series_equal(load(dump(series).tobytes()), series)


def test_pandas_no_column_goes_in_band(pandas_frame: Any) -> None:
    frame = pandas_frame.astype({"text": "string[pyarrow]"})
    inband, buffers = sizes(dump(frame))
    assert inband < 5000
    assert buffers < 1.1 * frame.memory_usage(index=True, deep=True).sum()
    inband, buffers = sizes(dump(frame.iloc[1000:6000]))
    assert inband < 12_000
    assert buffers < 0.3 * frame.memory_usage(index=True, deep=True).sum()


def test_pandas_values_are_read_only_unless_asked(pandas_frame: Any) -> None:
    stored = dump(pandas_frame).tobytes()
    loaded = load(stored)
    with pytest.raises(ValueError, match="read-only"):
        loaded.iloc[0, 0] = 5
    assert not loaded["a"].to_numpy().flags.writeable
    loaded["new"] = loaded["a"] * 2  # new columns are the frame's own
    assert loaded.groupby("category", observed=True)["new"].sum().sum() == N * (N - 1)
    loaded = load(stored, writable=True)
    loaded.iloc[0, 0] = 5.0
    loaded.loc[0, "text"] = "other"
    assert loaded.loc[0, ["a", "text"]].tolist() == [5.0, "other"]
    assert load(stored).loc[0, "a"] == 0


def test_pandas_attributes_survive(pandas_frame: Any) -> None:
    named = pandas_frame[["a"]].copy()
    named.attrs["source"] = "test"
    assert load(dump({"f": named}).tobytes())["f"].attrs == {"source": "test"}


@pytest.fixture(scope="module")
def polars_frame() -> Any:
    pl = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    columns = {
        "a": np.arange(float(N)),
        "small": np.arange(N, dtype="u2"),
        "text": [f"some longer text {i}" for i in range(N)],
        "bool": [True, None] * (N // 2),
        "when": [dt.datetime(2020, 1, 1)] * N,
        "day": [dt.date(2020, 1, 1)] * N,
        "time": [dt.time(1)] * N,
        "span": [dt.timedelta(1)] * N,
        "list": [[1, 2]] * N,
        "struct": [{"x": 1, "y": "q"}] * N,
        "decimal": [decimal.Decimal("1.23")] * N,
        "bytes": [b"123"] * N,
    }
    return pl.DataFrame(columns).with_columns(
        pl.Series("enum", ["a", "b"] * (N // 2), dtype=pl.Enum(["a", "b", "c"])),
        pl.Series("array", [[1, 2]] * N, dtype=pl.Array(pl.Int32, 2)),
        pl.col("when").dt.replace_time_zone("Europe/Paris").alias("zone"),
        pl.col("text").cast(pl.Categorical).alias("category"),
        pl.lit(None).alias("null"),
    )


def test_polars_frames_and_their_parts(polars_frame: Any) -> None:
    import polars as pl
    from polars.testing import assert_frame_equal, assert_series_equal

    for obj in (
        polars_frame,
        polars_frame[100:15_000],
        pl.concat([polars_frame, polars_frame], rechunk=False),
    ):
        parts = dump(obj)
        assert parts.serializer == "polars"
        loaded = load(parts.tobytes())
        assert loaded.schema == obj.schema
        assert_frame_equal(loaded, obj)
        assert_frame_equal(load(dump([obj]).tobytes())[0], obj)
    for name in polars_frame.columns:
        assert_series_equal(load(dump(polars_frame[name]).tobytes()), polars_frame[name])
    assert_frame_equal(load(dump(polars_frame[:5]).tobytes()), polars_frame[:5])


def test_polars_memory_is_shared() -> None:
    pl = pytest.importorskip("polars")
    values = np.arange(100_000.0)
    frame = pl.DataFrame({"a": values, "text": ["some longer text"] * len(values)})
    parts = dump(frame)
    numbers = frame["a"].to_numpy()
    assert any(np.shares_memory(np.frombuffer(b, "u1"), numbers) for b in parts.buffers)
    stored = parts.tobytes()
    loaded = load(stored)["a"].to_numpy()
    assert np.shares_memory(loaded, np.frombuffer(stored, "u1"))


def test_polars_slices_send_their_rows_only() -> None:
    pl = pytest.importorskip("polars")
    text = pl.DataFrame({"text": [f"some longer text number {i}" for i in range(200_000)]})
    whole = dump(text).nbytes
    assert dump(text[1000:5000]).nbytes < 0.05 * whole
    assert dump({"x": text[1000:5000]}).nbytes < 0.05 * whole


def test_polars_types_that_arrow_does_not_know_are_pickled() -> None:
    pl = pytest.importorskip("polars")
    big = pl.DataFrame({"x": pl.Series([2**100] * N, dtype=pl.Int128)})
    parts = dump(big)
    assert parts.serializer == "pickle"
    assert load(parts.tobytes()).equals(big)
    lazy = big.lazy().select(pl.col("x") + 1)
    assert load(dump(lazy).tobytes()).collect()["x"][0] == 2**100 + 1
