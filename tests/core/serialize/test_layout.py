"""The stored layout: every field is checked, and sizes beyond 32 bits are right."""

from __future__ import annotations

import mmap
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_core.exceptions import CorruptObjectError, SerializationError
from proxystore_core.serialize import Parts, dump, is_bytes_like, layout, load, read_header

runs = st.binary(max_size=200) | st.lists(st.binary(max_size=70), max_size=4)


def flat(run: bytes | list[bytes]) -> bytes:
    return run if isinstance(run, bytes) else b"".join(run)


def resealed(data: bytes) -> bytes:
    """Make the checksum right again after a change of the head."""
    count = struct.unpack_from("<I", data, 24)[0]
    inband = struct.unpack_from("<Q", data, 16)[0]
    end = 80 + 16 * count + inband
    crc = zlib.crc32(data[80:end], zlib.crc32(data[:44]))
    return data[:44] + struct.pack("<I", crc) + data[48:]


@given(runs, st.lists(runs, max_size=5), st.booleans())
def test_what_is_built_is_parsed(
    data: bytes | list[bytes], buffers: list[bytes | list[bytes]], digest: bool
) -> None:
    parts = layout.build("any", data, buffers, digest=digest)
    stored = parts.tobytes()
    header, inband, found = layout.parse(memoryview(stored))
    assert bytes(inband) == flat(data)
    assert [bytes(b) for b in found] == [flat(b) for b in buffers]
    assert len(stored) == parts.nbytes == header.nbytes == sum(map(len, parts.buffers))
    assert header.serializer == parts.serializer == "any"
    assert header.buffers == len(buffers)
    assert header.has_digest is digest is (header.digest is not None)
    if digest:
        layout.check_digest(memoryview(stored), header)


def test_buffers_start_at_multiples_of_64() -> None:
    stored = layout.build("any", b"x" * 7, [b"a" * 3, b"b" * 100, b"", b"c"]).tobytes()
    entries = struct.unpack_from("<8Q", stored, 80)
    assert [offset % 64 for offset in entries[::2]] == [0] * 4
    assert entries[1::2] == (3, 100, 0, 1)
    for offset, nbytes, run in zip(
        entries[::2], entries[1::2], ["aaa", "b" * 100, "", "c"], strict=True
    ):
        assert stored[offset : offset + nbytes] == run.encode()


def test_head_lies_as_the_specification_says() -> None:
    stored = layout.build("some-id", b"in-band", [b"buffer"], digest=True).tobytes()
    assert stored[:4] == b"\x93PSO"
    assert struct.unpack_from("<HHQQI", stored, 4) == (1, 1, len(stored), 7, 1)
    assert stored[28:44] == b"some-id".ljust(16, b"\0")
    assert struct.unpack_from("<I", stored, 44)[0] == zlib.crc32(
        stored[80 : 80 + 16 + 7], zlib.crc32(stored[:44])
    )
    assert struct.unpack_from("<QQ", stored, 80) == (128, 6)
    assert stored[96:103] == b"in-band"
    assert stored[103:128] == bytes(25)
    assert stored[128:] == b"buffer"


def test_large_runs_are_not_copied() -> None:
    big = bytearray(200_000)
    parts = layout.build("any", b"", [big, [b"x" * 10, memoryview(big)]])
    big[0] = 7
    views = [b for b in parts.buffers if len(b) == len(big)]
    assert len(views) == 2
    assert all(view[0] == 7 for view in views)
    assert len(parts.buffers) <= 4


def test_a_small_object_is_one_part() -> None:
    parts = dump([b"x"] * 100)
    assert len(parts.buffers) == 1
    assert parts.tobytes() is parts.buffers[0]


def test_parts_cannot_be_changed() -> None:
    parts = dump(b"x")
    with pytest.raises(AttributeError, match="cannot be changed"):
        parts.nbytes = 3
    with pytest.raises(AttributeError, match="cannot be changed"):
        del parts.buffers
    assert repr(parts) == "Parts(serializer='bytes', nbytes=81, buffers=1)"
    assert isinstance(parts, Parts)


def test_what_is_bytes_like() -> None:
    assert all(map(is_bytes_like, (b"", bytearray(), memoryview(b""))))
    assert not any(map(is_bytes_like, ("", [1], None, 3)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b"", "not a stored object"),
        (lambda b: b[:79], "not a stored object"),
        (lambda b: b"\x80\x04" + b[2:], "not a stored object"),
        (lambda b: b[:-1], "truncated"),
        (lambda b: b + b"\0", "followed by other bytes"),
        (lambda b: b[:4] + b"\x02\0" + b[6:], "upgrade"),
        (lambda b: resealed(b[:6] + b"\x02\0" + b[8:]), "upgrade"),
        (lambda b: b[:28] + b"other" + b[33:], "altered"),
        (lambda b: b[:90] + b"?" + b[91:], "altered"),
        (lambda b: b[:48] + b"d" * 32 + b[80:], "digest"),
        (lambda b: resealed(b[:16] + struct.pack("<Q", 2**63) + b[24:]), "cannot hold"),
    ],
)
def test_corrupt_bytes_are_named(change: object, says: str) -> None:
    stored = change(dump({"key": "value" * 10}).tobytes())  # type: ignore[operator]
    for read in (read_header, load):
        with pytest.raises(CorruptObjectError, match=f"(?i){says}"):
            read(stored)


def test_flags_that_may_be_ignored_are() -> None:
    stored = dump("text").tobytes()
    assert load(resealed(stored[:6] + b"\x00\x80" + stored[8:])) == "text"


@pytest.mark.parametrize(
    "entry", [(0, 5), (128, 6), (129, 5), (2**63, 5), (128, 2**63), (192, 5), (128, 4)]
)
def test_buffers_cannot_lie_elsewhere(entry: tuple[int, int]) -> None:
    stored = layout.build("bytes", b"x", [b"12345"]).tobytes()
    assert struct.unpack_from("<QQ", stored, 80) == (128, 5)
    with pytest.raises(CorruptObjectError):
        load(resealed(stored[:80] + struct.pack("<QQ", *entry) + stored[96:]))


def test_bytes_that_belong_to_nothing() -> None:
    stored = bytearray(layout.build("bytes", b"abc").tobytes() + b"hidden")
    struct.pack_into("<Q", stored, 8, len(stored))
    with pytest.raises(CorruptObjectError, match="belong to nothing"):
        load(resealed(bytes(stored)))


def test_a_name_that_is_not_ascii() -> None:
    stored = dump(b"x").tobytes()
    with pytest.raises(CorruptObjectError, match="names no serializer"):
        load(resealed(stored[:28] + b"\xff" + stored[29:]))


@given(st.integers(8, 43), st.binary(min_size=1, max_size=8))
def test_no_field_of_the_head_makes_us_allocate(at: int, value: bytes) -> None:
    stored = bytearray(layout.build("pickle", b"x" * 50, [b"y" * 50]).tobytes())
    value = value[: 44 - at]
    stored[at : at + len(value)] = value
    stored = bytearray(resealed_or_same(bytes(stored)))
    tracemalloc.start()
    try:
        load(stored)
    except SerializationError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200_000


def resealed_or_same(data: bytes) -> bytes:
    try:
        return resealed(data)
    except (struct.error, OverflowError):
        return data


def test_only_contiguous_bytes_are_taken() -> None:
    for wrong in ("text", 3, None, memoryview(b"abcd")[::2]):
        with pytest.raises(CorruptObjectError, match="Expected contiguous bytes"):
            load(wrong)  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="contiguous bytes"):
        layout.build("any", "text")
    assert load(memoryview(dump(5).tobytes()).cast("b")) == 5


@pytest.mark.parametrize("nbytes", [2**31 + 5, 2**32 + 5, 5 * 2**30])
def test_sizes_beyond_32_bits(nbytes: int) -> None:
    # Pages that nobody touches cost nothing.
    with mmap.mmap(-1, nbytes) as source:
        source[-3:] = b"end"
        whole = memoryview(source)
        parts = dump(whole)
        assert parts.nbytes == sum(map(len, parts.buffers)) == 128 + nbytes
        assert struct.unpack_from("<Q", parts.buffers[0], 8) == (128 + nbytes,)
        with mmap.mmap(-1, parts.nbytes) as target:
            target[:128] = parts.buffers[0]
            target[-3:] = b"end"
            loaded = load(target)  # type: ignore[arg-type]
            assert len(loaded) == nbytes
            assert loaded[-3:] == b"end"
            assert read_header(target).nbytes == parts.nbytes  # type: ignore[arg-type]
            loaded.release()
        del parts
        whole.release()


def test_offsets_beyond_32_bits() -> None:
    sizes = [2**31 + 1, 2**31 + 1, 3]
    with mmap.mmap(-1, sizes[0]) as source:
        big = memoryview(source)
        parts = layout.build("any", b"", [big, big, b"end"])
        table = struct.unpack_from("<6Q", parts.buffers[0], 80)
        assert table == (128, sizes[0], 2**31 + 192, sizes[1], 2**32 + 256, 3)
        assert parts.nbytes == 2**32 + 259
        del parts
        big.release()


@pytest.mark.soak
def test_a_real_object_of_more_than_2_gb() -> None:
    payload = bytes(range(256)) * (9_000_000)
    assert len(payload) > 2**31
    loaded = load(dump(payload).tobytes())
    assert loaded == payload
    nested = load(dump({"x": payload}).tobytes())
    assert nested["x"] == payload
