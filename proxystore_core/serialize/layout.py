"""How a stored object lies in bytes; `docs/format.md` is the specification.

A fixed head, a table of buffers, the in-band data, then every buffer at a
multiple of 64 bytes. Writing never joins what is large; reading never copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct, pack, unpack_from
from typing import Any, NamedTuple, TypeAlias, TypeGuard
from zlib import crc32

from proxystore_core.exceptions import CorruptObjectError

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""What carries bytes without a copy."""

Pieces: TypeAlias = BytesLike | list[BytesLike]
"""One run of bytes, or the pieces whose concatenation is that run."""

MAGIC = b"\x93PSO"
VERSION = 1
ALIGNMENT = 64
DIGEST_SIZE = 32

# Bits 0-7 must be understood by a reader, bits 8-15 may be ignored.
HAS_DIGEST = 0x0001
_MUST_UNDERSTAND = 0x00FF
_KNOWN = HAS_DIGEST

_FIELDS = Struct(
    "<4sHHQQI16s"
)  # magic, version, flags, length, in-band length, buffers, serializer
_CRC = Struct("<I")
_CRC_AT = _FIELDS.size
_DIGEST_AT = _CRC_AT + _CRC.size
HEAD_SIZE = _DIGEST_AT + DIGEST_SIZE
_NO_DIGEST = bytes(DIGEST_SIZE)
_ZEROS = bytes(ALIGNMENT)
_ENTRY_SIZE = 16
_MAX_BUFFERS = 2**32 - 1

# Below this, one copy is cheaper than one more part to write.
_JOIN_BELOW = 65536


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
        if len(self.buffers) == 1 and type(self.buffers[0]) is bytes:
            return self.buffers[0]
        return b"".join(self.buffers)


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


class Content(NamedTuple):
    """Views of the content of a stored object."""

    header: Header
    data: memoryview
    buffers: list[memoryview]


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
        data: The in-band data, one-dimensional bytes.
        buffers: The out-of-band buffers, one-dimensional bytes.
        digest: Whether to add a SHA-256 digest of everything.
    """
    inband = data if type(data) is list else [data]
    inband_nbytes = _nbytes(inband)
    table = b""
    end = HEAD_SIZE + inband_nbytes
    parts: list[BytesLike] = []
    if buffers:
        end += _ENTRY_SIZE * len(buffers)
        entries = []
        for buffer in buffers:
            pieces = buffer if type(buffer) is list else [buffer]
            if pad := -end % ALIGNMENT:
                parts.append(_ZEROS[:pad])
                end += pad
            nbytes = _nbytes(pieces)
            entries += (end, nbytes)
            end += nbytes
            parts += pieces
        table = pack(f"<{len(entries)}Q", *entries)
    fields = _FIELDS.pack(
        MAGIC,
        VERSION,
        HAS_DIGEST if digest else 0,
        end,
        inband_nbytes,
        len(buffers),
        serializer.encode("ascii"),
    )
    crc = crc32(table, crc32(fields)) if table else crc32(fields)
    for piece in inband:
        crc = crc32(piece, crc)
    start = fields + _CRC.pack(crc)
    tail = [table, *inband, *parts] if table else [*inband, *parts]
    checked = _sha256((start, *tail)) if digest else _NO_DIGEST
    if end <= _JOIN_BELOW:
        return Parts((b"".join((start, checked, *tail)),), end, serializer)
    return Parts(tuple(_coalesce([start, checked, *tail])), end, serializer)


def _nbytes(pieces: Iterable[BytesLike]) -> int:
    return sum(map(len, pieces))


def _coalesce(parts: list[BytesLike]) -> Iterable[BytesLike]:
    """Join runs of small parts, so that a writer has few of them."""
    small: list[BytesLike] = []
    for part in parts:
        if len(part) < 4096:
            small.append(part)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield part
    if small:
        yield b"".join(small)


def _sha256(parts: Iterable[BytesLike]) -> bytes:
    import hashlib  # loads OpenSSL, which few need

    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return state.digest()


def parse(view: memoryview) -> Content:
    """Check the head of a stored object against its bytes, and find its content.

    Args:
        view: Exactly the bytes of the object, as `as_view` gives them.

    Raises:
        CorruptObjectError: If anything but the buffers' own bytes is not right.
    """
    size = len(view)
    if size < HEAD_SIZE:
        raise CorruptObjectError(
            f"Not a stored object: {size} bytes are less than its {HEAD_SIZE} bytes of head."
        )
    magic, version, flags, nbytes, inband, count, name = _FIELDS.unpack_from(view)
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
    if start + inband > size:
        raise CorruptObjectError(
            f"The head of the object says {count} buffers and {inband} bytes of in-band data, "
            f"which {size} bytes cannot hold."
        )
    (crc,) = _CRC.unpack_from(view, _CRC_AT)
    if crc != crc32(view[HEAD_SIZE : start + inband], crc32(view[:_CRC_AT])):
        raise CorruptObjectError("The head or the in-band data of the object was altered (CRC).")
    if unknown := flags & _MUST_UNDERSTAND & ~_KNOWN:
        raise CorruptObjectError(
            f"The object uses features that this release does not know (flags {unknown:#06x}): "
            "upgrade proxystore-core where the object is read."
        )
    digest = bytes(view[_DIGEST_AT:HEAD_SIZE])
    has_digest = bool(flags & HAS_DIGEST)
    if not has_digest and digest != _NO_DIGEST:
        raise CorruptObjectError("The head of the object was altered: a digest nobody announced.")
    try:
        serializer = name.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as e:
        raise CorruptObjectError(f"The object names no serializer: {name!r}.") from e
    header = Header(version, serializer, nbytes, has_digest, digest if has_digest else None, count)
    buffers = _buffers(view, count, start + inband) if count else []
    if not count and start + inband != size:
        raise CorruptObjectError("The object has bytes that belong to nothing.")
    return Content(header, view[start : start + inband], buffers)


def _buffers(view: memoryview, count: int, end: int) -> list[memoryview]:
    entries = unpack_from(f"<{2 * count}Q", view, HEAD_SIZE)
    found = []
    for offset, nbytes in zip(entries[::2], entries[1::2], strict=True):
        if offset < end or offset % ALIGNMENT or offset + nbytes > len(view):
            raise CorruptObjectError(
                f"A buffer of the object lies at {offset} with {nbytes} bytes, "
                f"which is not between {end} and {len(view)}."
            )
        end = offset + nbytes
        found.append(view[offset:end])
    if end != len(view):
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
    if _sha256((view[:_DIGEST_AT], view[HEAD_SIZE:])) != header.digest:
        raise CorruptObjectError("The object was altered: its SHA-256 digest is not right.")


def read_header(buffer: BytesLike) -> Header:
    """Read what the head of a stored object says, and check it.

    The magic, the version, all lengths and the checksum of head and in-band
    data are checked; the digest is not.

    Raises:
        CorruptObjectError: If one of them is not right.
    """
    return parse(as_view(buffer)).header
