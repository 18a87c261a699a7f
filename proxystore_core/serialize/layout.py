"""How a stored object lies in bytes; `docs/format.md` is the specification.

A fixed head, a table of buffers, the in-band data, then every buffer at a
multiple of 64 bytes. Writing never joins what is large; reading never copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct, pack, unpack_from
from typing import Any, NamedTuple, TypeAlias, TypeGuard
from zlib import crc32

from proxystore_core.exceptions import CorruptObjectError, SerializationError

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""What carries bytes without a copy."""

Pieces: TypeAlias = BytesLike | Sequence[BytesLike]
"""One run of bytes, or a list of the pieces whose concatenation is that run."""

MAGIC = b"\x93PSO"
VERSION = 1
ALIGNMENT = 64

# Bits 0-7 must be understood by a reader, bits 8-15 may be ignored.
HAS_DIGEST = 0x0001
MUST_UNDERSTAND = 0x00FF

# Magic, version, flags, length, in-band length, buffers, serializer.
FIELDS = Struct("<4sHHQQI16s")
HEAD = Struct("<4sHHQQI16sI32s")  # the same, then CRC-32 and digest
HEAD_SIZE = HEAD.size
DIGEST_AT = FIELDS.size + 4
_CRC = Struct("<I")
_NO_DIGEST = bytes(32)
_ZEROS = bytes(ALIGNMENT)
_ENTRY_SIZE = 16

_JOIN_BELOW = 65536  # where one copy is cheaper than one more part to write
_JOIN_PART_BELOW = 4096


def is_bytes_like(obj: object) -> TypeGuard[BytesLike]:
    """Tell whether the object is `bytes`, a `bytearray` or a `memoryview`."""
    return isinstance(obj, (bytes, bytearray, memoryview))


class Parts:
    """An object as the parts of its stored form, which are never joined.

    Attributes:
        buffers: One-dimensional, contiguous runs of bytes; their concatenation
            is the stored form. They may share memory with the object, so store
            them before the object changes.
        nbytes: Length of the stored form in bytes.
        serializer: Identifier of the serializer that made it.
    """

    __slots__ = ("buffers", "nbytes", "serializer")

    buffers: tuple[BytesLike, ...]
    nbytes: int
    serializer: str

    def __init__(self, buffers: tuple[BytesLike, ...], nbytes: int, serializer: str) -> None:
        _set_buffers(self, buffers)
        _set_nbytes(self, nbytes)
        _set_serializer(self, serializer)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Parts cannot be changed: {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Parts cannot be changed: {name!r}")

    def __repr__(self) -> str:
        return (
            f"Parts(serializer={self.serializer!r}, nbytes={self.nbytes}, "
            f"buffers={len(self.buffers)})"
        )

    def tobytes(self) -> bytes:
        """Join the parts, which copies all of them once."""
        first = self.buffers[0]
        return first if len(self.buffers) == 1 and type(first) is bytes else b"".join(self.buffers)


# The slots themselves, because the class refuses to set attributes.
_set_buffers: Any = Parts.__dict__["buffers"].__set__
_set_nbytes: Any = Parts.__dict__["nbytes"].__set__
_set_serializer: Any = Parts.__dict__["serializer"].__set__


class Header(NamedTuple):
    """What the head of a stored object says, checked against its bytes.

    Attributes:
        version: Version of the layout.
        serializer: Identifier of the serializer that reads the rest.
        nbytes: Length of the stored form in bytes.
        has_digest: Whether there is a digest.
        digest: SHA-256 of everything but the digest itself.
        buffers: Number of out-of-band buffers.
    """

    version: int
    serializer: str
    nbytes: int
    has_digest: bool
    digest: bytes | None
    buffers: int


def as_view(buffer: BytesLike) -> memoryview:
    """Return a one-dimensional view of bytes, without a copy.

    Raises:
        CorruptObjectError: If the object has no contiguous buffer.
    """
    try:
        view = memoryview(buffer)
        return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")
    except TypeError as e:
        raise CorruptObjectError(
            f"Expected contiguous bytes, a bytearray or a memoryview, not {type(buffer).__name__}."
        ) from e


def build(
    serializer: str, data: Pieces, buffers: Sequence[Pieces] = (), *, digest: bool = False
) -> Parts:
    """Lay out in-band data and buffers as a stored object.

    Args:
        serializer: Identifier, ASCII, 1 to 16 characters.
        data: The in-band data.
        buffers: The out-of-band buffers.
        digest: Whether to add a SHA-256 digest of everything.

    Raises:
        SerializationError: If one of them is not contiguous bytes.
    """
    tail = _runs(data)
    inband_nbytes = sum(map(len, tail))
    end = HEAD_SIZE + _ENTRY_SIZE * len(buffers) + inband_nbytes
    if buffers:
        entries: list[int] = []
        for buffer in buffers:
            if pad := -end % ALIGNMENT:
                tail.append(_ZEROS[:pad])
                end += pad
            runs = _runs(buffer)
            nbytes = sum(map(len, runs))
            entries += (end, nbytes)
            end += nbytes
            tail += runs
        tail.insert(0, pack(f"<{len(entries)}Q", *entries))
    flags = HAS_DIGEST if digest else 0
    name = serializer.encode("ascii")
    fields = FIELDS.pack(MAGIC, VERSION, flags, end, inband_nbytes, len(buffers), name)
    start = fields + _CRC.pack(_checksum(fields, tail, _ENTRY_SIZE * len(buffers) + inband_nbytes))
    parts = [start, sha256((start, *tail)) if digest else _NO_DIGEST, *tail]
    if end <= _JOIN_BELOW:
        return Parts((b"".join(parts),), end, serializer)
    return Parts(tuple(_join_small(parts)), end, serializer)


def _runs(pieces: Pieces) -> list[BytesLike]:
    if type(pieces) is bytes:
        return [pieces]
    if isinstance(pieces, (list, tuple)):
        return [piece if type(piece) is bytes else _run(piece) for piece in pieces]
    return [_run(pieces)]


def _run(piece: Any) -> BytesLike:
    try:
        return as_view(piece)
    except CorruptObjectError as e:
        raise SerializationError(f"A serializer has to give contiguous bytes: {e}") from e


def _checksum(fields: bytes, tail: list[BytesLike], nbytes: int) -> int:
    crc = crc32(fields)
    for run in tail:
        if nbytes <= 0:
            break
        crc = crc32(run, crc)
        nbytes -= len(run)
    return crc


def _join_small(parts: list[BytesLike]) -> Iterator[BytesLike]:
    """Join runs of small parts, so that a writer has few of them."""
    small: list[BytesLike] = []
    for part in parts:
        if len(part) < _JOIN_PART_BELOW:
            small.append(part)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield part
    if small:
        yield b"".join(small)


def sha256(parts: Iterable[BytesLike]) -> bytes:
    """Return the SHA-256 digest of the concatenation of parts."""
    import hashlib  # loads OpenSSL, which few need

    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return state.digest()


def parse(view: memoryview) -> tuple[Header, memoryview, list[memoryview]]:
    """Check the head of a stored object against its bytes, and find its content.

    Args:
        view: Exactly the bytes of the object, as `as_view` gives them.

    Returns:
        The header, the in-band data and the buffers, as views.

    Raises:
        CorruptObjectError: If anything but the buffers' own bytes is not right.
    """
    size = len(view)
    if size < HEAD_SIZE:
        raise CorruptObjectError(
            f"Not a stored object: {size} bytes are less than its {HEAD_SIZE} bytes of head."
        )
    magic, version, flags, nbytes, inband, count, name, crc, digest = HEAD.unpack_from(view)
    if magic != MAGIC:
        raise CorruptObjectError(f"Not a stored object: it starts with {magic!r}, not {MAGIC!r}.")
    if version != VERSION:
        raise CorruptObjectError(
            f"The object has layout version {version}, and this release reads {VERSION}: "
            "upgrade proxystore-core where the object is read."
        )
    if nbytes != size:
        what = "truncated" if size < nbytes else "followed by other bytes"
        raise CorruptObjectError(
            f"The object is {what}: there are {size} bytes, its head says {nbytes}."
        )
    start = HEAD_SIZE + _ENTRY_SIZE * count
    end = start + inband
    if end > size:
        raise CorruptObjectError(
            f"The object was altered: its head says {count} buffers and {inband} bytes in-band, "
            f"which {size} bytes cannot hold."
        )
    if crc != crc32(view[HEAD_SIZE:end], crc32(view[: FIELDS.size])):
        raise CorruptObjectError("The object was altered: the checksum of its head is not right.")
    if unknown := flags & MUST_UNDERSTAND & ~HAS_DIGEST:
        raise CorruptObjectError(
            f"The object needs features that this release does not know (flags {unknown:#06x}): "
            "upgrade proxystore-core where the object is read."
        )
    has_digest = flags & HAS_DIGEST != 0
    if not has_digest and digest != _NO_DIGEST:
        raise CorruptObjectError("The object was altered: it has a digest that nobody announced.")
    try:
        serializer = str(name.rstrip(b"\0"), "ascii")
    except UnicodeDecodeError as e:
        raise CorruptObjectError(f"The object names no serializer: {name!r}.") from e
    buffers = _buffers(view, count, end) if count else []
    if not count and end != size:
        raise CorruptObjectError("The object has bytes that belong to nothing.")
    header = Header(version, serializer, nbytes, has_digest, digest if has_digest else None, count)
    return header, view[start:end], buffers


def _buffers(view: memoryview, count: int, end: int) -> list[memoryview]:
    entries = unpack_from(f"<{2 * count}Q", view, HEAD_SIZE)
    size = len(view)
    found = []
    for offset, nbytes in zip(entries[::2], entries[1::2], strict=True):
        if offset < end or offset % ALIGNMENT or offset + nbytes > size:
            raise CorruptObjectError(
                f"A buffer of the object lies at {offset} with {nbytes} bytes, "
                f"which is not between {end} and {size}."
            )
        end = offset + nbytes
        found.append(view[offset:end])
    if end != size:
        raise CorruptObjectError("The object has bytes that belong to nothing.")
    return found


def check_digest(view: memoryview, header: Header) -> None:
    """Compare the digest of an object with its bytes.

    Raises:
        CorruptObjectError: If there is no digest, or it is another one.
    """
    if header.digest is None:
        raise CorruptObjectError(
            "The object has no digest to verify: it was stored without one (digest=True adds it)."
        )
    if sha256((view[:DIGEST_AT], view[HEAD_SIZE:])) != header.digest:
        raise CorruptObjectError("The object was altered: its SHA-256 digest is not right.")


def read_header(buffer: BytesLike) -> Header:
    """Read what the head of a stored object says, and check it.

    The magic, the version, all lengths and the checksum of head and in-band
    data are checked; the digest is not.

    Raises:
        CorruptObjectError: If one of them is not right.
    """
    return parse(as_view(buffer))[0]
