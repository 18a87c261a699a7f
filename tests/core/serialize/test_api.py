"""`dump` and `load`: digests, writable views, raw payloads, errors."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxystore_core.exceptions import CorruptObjectError, MissingLibraryError, SerializationError
from proxystore_core.serialize import (
    deserialize,
    dump,
    dump_raw,
    get_serializer,
    load,
    load_raw,
    serialize,
)

SAMPLES = [
    b"bytes",
    b"more bytes " * 3000,
    "text",
    {"key": [1, 2.5, None, ("x",)]},
    np.arange(600.0),
    {"small": np.arange(3), "large": np.arange(5000)},
]


def equal(a: object, b: object) -> bool:
    return pickle.dumps(a) == pickle.dumps(b)


def test_serialize_and_deserialize_are_dump_and_load() -> None:
    for sample in SAMPLES:
        stored = serialize(sample)
        assert type(stored) is bytes
        assert stored == dump(sample).tobytes()
        assert equal(deserialize(stored), sample)


def test_verify() -> None:
    plain, sealed = dump("x").tobytes(), dump("x", digest=True).tobytes()
    assert load(plain) == load(plain, verify=False) == "x"
    assert load(sealed) == load(sealed, verify=True) == load(sealed, verify=False) == "x"
    with pytest.raises(CorruptObjectError, match="no digest to verify"):
        load(plain, verify=True)


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_no_altered_bit_passes_the_digest(sample: object) -> None:
    stored = dump(sample, digest=True).tobytes()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(stored) * 8 - 1))
    def flipped(bit: int) -> None:
        bad = bytearray(stored)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptObjectError):
            load(bad)

    flipped()


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_mutated_bytes_only_raise_our_errors(sample: object) -> None:
    stored = dump(sample).tobytes()
    spans = st.tuples(st.integers(0, len(stored)), st.integers(0, 40), st.binary(max_size=40))

    @settings(max_examples=100, deadline=None)
    @given(st.lists(spans, min_size=1, max_size=4))
    def mutated(changes: list[tuple[int, int, bytes]]) -> None:
        bad = stored
        for at, cut, new in changes:
            bad = bad[:at] + new + bad[at + cut :]
        try:
            load(bad)
        except CorruptObjectError:
            return
        # It loaded, so all that a checksum covers is as it was.
        assert len(bad) == len(stored)
        assert bad[:80] == stored[:80]

    mutated()


@given(st.binary(max_size=300))
def test_random_bytes_are_corrupt(data: bytes) -> None:
    for bad in (data, b"\x93PSO" + data, b"\x93PSO\x01\0\0\0" + data):
        with pytest.raises(CorruptObjectError):
            load(bad)


def test_nothing_is_unpickled_before_it_was_checked() -> None:
    stored = bytearray(dump([_Loud()], digest=True).tobytes())
    stored[-1] ^= 1
    _Loud.loaded = 0
    with pytest.raises(CorruptObjectError):
        load(stored)
    assert _Loud.loaded == 0
    stored[-1] ^= 1
    load(stored)
    assert _Loud.loaded == 1


class _Loud:
    loaded = 0

    def __reduce__(self) -> tuple[object, ...]:
        return _load_loud, ()


def _load_loud() -> None:
    _Loud.loaded += 1


def test_a_failure_of_the_object_itself_keeps_its_cause() -> None:
    stored = dump(_Explosive()).tobytes()
    with pytest.raises(
        SerializationError, match=r"'pickle'.*cannot be loaded: OSError: boom"
    ) as info:
        load(stored)
    assert not isinstance(info.value, CorruptObjectError)
    assert isinstance(info.value.__cause__, OSError)


class _Explosive:
    def __reduce__(self) -> tuple[object, ...]:
        return _explode, ()


def _explode() -> None:
    raise OSError("boom")


def test_a_missing_library_is_named() -> None:
    code = "import sys; sys.modules['numpy'] = None\n"
    code += "from proxystore_core.serialize import load\n"
    code += "from proxystore_core.exceptions import MissingLibraryError\n"
    code += "import pickle\n"
    code += "try: load(sys.stdin.buffer.read())\n"
    code += "except MissingLibraryError as e: sys.stdout.buffer.write(pickle.dumps(e))"
    for sample in (np.arange(3), [np.arange(3)], [np.arange(3000)]):
        done = subprocess.run(
            [sys.executable, "-c", code], input=serialize(sample), capture_output=True, check=True
        )
        error = pickle.loads(done.stdout)
        assert isinstance(error, MissingLibraryError)
        assert isinstance(error, ImportError)
        assert error.library.partition(".")[0] == "numpy"
        assert "install it where the object is read" in str(error)


def test_libraries_are_imported_only_for_their_objects() -> None:
    code = """
import sys
from proxystore_core.serialize import deserialize, get_serializer, serialize
for obj in (b'x', 'x', bytearray(b'x'), memoryview(b'x'), {'a': [1, (2.5,)]}, range(3)):
    deserialize(serialize(obj))
heavy = {'numpy', 'pandas', 'polars', 'pyarrow', 'torch', 'cloudpickle', 'hashlib', 'inspect'}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_views_are_read_only_unless_asked() -> None:
    for sample in (np.arange(600.0), memoryview(b"x" * 100)):
        stored = bytearray(dump(sample).tobytes())
        for buffer in (stored, bytes(stored), memoryview(stored)):
            assert memoryview(load(buffer)).readonly
            assert not memoryview(load(buffer, writable=True)).readonly


def test_writable_views_write_into_a_writable_buffer_only() -> None:
    stored = bytearray(dump(np.zeros(600)).tobytes())
    load(stored, writable=True)[:] = 7
    assert load(stored)[599] == 7
    frozen = bytes(stored)
    load(frozen, writable=True)[:] = 1
    assert load(frozen)[0] == 7


@given(st.binary(max_size=100), st.booleans())
def test_raw_payloads(payload: bytes, digest: bool) -> None:
    for raw in (payload, bytearray(payload), memoryview(payload), payload * 1000):
        stored = dump_raw(raw, digest=digest).tobytes()
        assert load_raw(stored) == raw
        assert isinstance(load_raw(stored), memoryview)


def test_raw_payloads_are_checked_too() -> None:
    stored = bytearray(dump_raw(b"x" * 100_000, digest=True).tobytes())
    stored[-1] ^= 1
    with pytest.raises(CorruptObjectError, match="digest"):
        load_raw(stored)
    assert load_raw(stored, verify=False)[-1] != ord("x")
    with pytest.raises(CorruptObjectError, match="no digest"):
        load_raw(dump_raw(b"x").tobytes(), verify=True)


def test_raw_and_other_objects_are_told_apart() -> None:
    with pytest.raises(SerializationError, match="the deserializer that belongs to it"):
        load(dump_raw(b"x").tobytes())
    with pytest.raises(SerializationError, match="'str' serializer"):
        load_raw(dump("x").tobytes())
    with pytest.raises(CorruptObjectError, match="Expected contiguous bytes"):
        dump_raw("text")  # type: ignore[arg-type]


def test_serializers_of_types() -> None:
    names = [get_serializer(obj).identifier for obj in (b"", "", bytearray(), np.arange(2), [], 1)]
    assert names == ["bytes", "str", "bytearray", "ndarray", "pickle", "pickle"]
