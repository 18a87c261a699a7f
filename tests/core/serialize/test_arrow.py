"""Arrow tables and arrays: zero copy, and slices send their rows only."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import numpy as np
import pytest

from proxystore_core.exceptions import CorruptObjectError
from proxystore_core.serialize import dump, layout, load

pa = pytest.importorskip("pyarrow")
N = 20_000


@pytest.fixture(scope="module")
def table() -> Any:
    columns = {
        "number": np.arange(float(N)),
        "text": [f"text {i}" for i in range(N)],
        "view": pa.array([f"some longer text {i}" for i in range(N)], pa.string_view()),
        "category": pa.array(["a", "b"] * (N // 2)).dictionary_encode(),
        "list": [[1, 2]] * N,
        "struct": [{"x": 1, "y": "z"}] * N,
        "null": pa.nulls(N),
        "bool": [True, None] * (N // 2),
        "when": pa.array(range(N), pa.timestamp("us", "UTC")),
    }
    return pa.table(columns).replace_schema_metadata({"key": "value"})


def variants(table: Any) -> dict[str, Any]:
    batch = table.to_batches()[0]
    return {
        "table": table,
        "slice": table.slice(1000, 10),
        "no rows": table.slice(0, 0),
        "no columns": pa.table({}),
        "chunks": pa.concat_tables([table, table.slice(5, 100)]),
        "batch": batch,
        "batch slice": batch.slice(7, 9),
        "batch without rows": batch.slice(0, 0),
        "chunked": table["text"],
        "no chunks": pa.chunked_array([], pa.int32()),
        "empty array": pa.array([], pa.string()),
        **{f"array {name}": table[name].chunk(0) for name in table.column_names},
        **{f"part of {name}": table[name].chunk(0).slice(3, 77) for name in table.column_names},
    }


def test_what_is_loaded_is_equal_and_valid(table: Any) -> None:
    for name, obj in variants(table).items():
        parts = dump(obj)
        assert parts.serializer == "arrow"
        stored = parts.tobytes()
        loaded = load(stored)
        assert type(loaded) is type(obj), name
        assert loaded.equals(obj), name
        if hasattr(obj, "schema"):
            assert loaded.schema.equals(obj.schema, check_metadata=True), name
        else:
            assert loaded.type == obj.type, name
        loaded.validate(full=True)
        nested = load(dump({"x": [obj]}).tobytes())["x"][0]
        assert nested.equals(obj), name


def test_memory_is_shared(table: Any) -> None:
    numbers = pa.table({"x": np.arange(100_000.0)})
    address = numbers["x"].chunk(0).buffers()[1].address
    for obj in (numbers, {"t": numbers}):
        parts = dump(obj)
        assert any(addressof(b) == address for b in parts.buffers)
        stored = parts.tobytes()
        loaded = load(stored)
        column = (loaded["t"] if isinstance(loaded, dict) else loaded)["x"]
        start = addressof(stored)
        assert start < column.chunk(0).buffers()[1].address < start + len(stored)
        assert column.chunk(0).buffers()[1].address % 8 == 0


def addressof(buffer: Any) -> int:
    return int(np.frombuffer(buffer, "u1").ctypes.data)


def test_slices_send_their_rows_only(table: Any) -> None:
    for name in table.column_names:
        short = table.select([name]).slice(10_000, 10)
        for obj in (short, short[name], short[name].chunk(0), [short], {"x": short[name]}):
            assert dump(obj).nbytes < 4000, name


def test_altered_metadata_is_noticed_without_a_digest(table: Any) -> None:
    stored = bytearray(dump(table).tobytes())
    _, seal, (stream,) = layout.parse(memoryview(stored))
    start = layout.HEAD_SIZE + 16 + len(seal)
    start += -start % 64
    assert len(stored) == start + len(stream)
    (first,) = struct.unpack_from("<Q", seal, 5)
    for at in itertools.chain(range(0, first, 37), [len(stream) - 1]):
        stored[start + at] ^= 0x10
        with pytest.raises(CorruptObjectError, match="metadata"):
            load(stored)
        stored[start + at] ^= 0x10
    assert load(stored).equals(table)


def test_schemas_and_buffers_are_pickled(table: Any) -> None:
    assert load(dump(table.schema).tobytes()).equals(table.schema, check_metadata=True)
    buffer = pa.py_buffer(b"x" * 5000)
    assert load(dump(buffer).tobytes()).equals(buffer)
