"""Arrow data as an IPC stream whose bodies are the buffers of the table itself.

Arrow's own writer cuts slices to their rows and hands out every buffer
without a copy; what it writes around them is small and gets a checksum.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any
from zlib import crc32

from proxystore_core.exceptions import CorruptObjectError
from proxystore_core.serialize import reducers
from proxystore_core.serialize.layout import BytesLike
from proxystore_core.serialize.registry import Dumped

_SEAL = Struct("<cI")  # kind, CRC-32 of all that is not a body
_BODY = Struct("<QQ")  # offset and length of a body in the stream
_BODY_FROM = 4096
_WASTE = 65536  # bytes that may be sent for nothing
_ROWS = 65536

TABLE, BATCH, CHUNKED, ARRAY = b"T", b"B", b"C", b"A"


class ArrowSerializer:
    """Tables, record batches, chunked arrays and arrays."""

    identifier = "arrow"

    def dump(self, obj: Any) -> Dumped:
        """Give the pieces of an IPC stream."""
        written = _try_write(obj)
        return None if written is None else (written[0], (written[1],))

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Any:
        """Open the stream in place."""
        return read(data, buffers[0])


class _Sink:
    """A file that keeps the buffers it is given."""

    closed = False

    def __init__(self) -> None:
        self.pieces: list[BytesLike] = []
        self.bodies: list[int] = []
        self.position = 0
        self.crc = 0

    def write(self, piece: Any) -> int:
        view = memoryview(piece).cast("B")
        if len(view) >= _BODY_FROM:
            self.bodies += (self.position, len(view))
        else:
            view = memoryview(bytes(view))  # Arrow may use the memory again
            self.crc = crc32(view, self.crc)
        self.pieces.append(view)
        self.position += len(view)
        return len(view)

    def tell(self) -> int:
        return self.position

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def write(obj: Any) -> tuple[bytes, list[BytesLike]]:
    """Return the seal of some Arrow data, and the pieces of its IPC stream."""
    import pyarrow as pa

    kind = TABLE
    if isinstance(obj, pa.RecordBatch):
        kind, obj = BATCH, pa.Table.from_batches([obj])
    elif isinstance(obj, pa.ChunkedArray):
        kind, obj = CHUNKED, pa.Table.from_arrays([obj], names=[""])
    elif isinstance(obj, pa.Array):
        kind, obj = ARRAY, pa.Table.from_arrays([obj], names=[""])
    obj = _compact(obj, pa)
    sink = _Sink()
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), obj.schema, options=options) as writer:
        writer.write_table(obj)
    bodies = [_BODY.pack(*pair) for pair in zip(sink.bodies[::2], sink.bodies[1::2], strict=True)]
    return b"".join((_SEAL.pack(kind, sink.crc), *bodies)), sink.pieces


def read(seal: BytesLike, stream: memoryview) -> Any:
    """Return the Arrow data of a stream, as views of it.

    Raises:
        CorruptObjectError: If what lies around the bodies was altered.
    """
    import pyarrow as pa

    seal = memoryview(seal)
    kind, expected = _SEAL.unpack_from(seal)
    crc = at = 0
    for offset, nbytes in _BODY.iter_unpack(seal[_SEAL.size :]):
        crc = crc32(stream[at:offset], crc)
        at = offset + nbytes
    if crc32(stream[at:], crc) != expected:
        raise CorruptObjectError("The object was altered: its Arrow metadata is not right.")
    table = pa.ipc.open_stream(pa.py_buffer(stream)).read_all()
    if kind == TABLE:
        return table
    if kind == BATCH:
        batches = table.to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    column = table.column(0)
    if kind == CHUNKED:
        return column
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _try_write(obj: Any) -> tuple[bytes, list[BytesLike]] | None:
    import pyarrow as pa

    try:
        return write(obj)
    except pa.ArrowException:
        return None  # a type that IPC does not know; pickle does


def _compact(table: Any, pa: Any) -> Any:
    """Leave out what views of text refer to, and the table does not show.

    Of all types these alone are written whole, however short the slice.
    """
    for i, field in enumerate(table.schema):
        if field.type not in (pa.string_view(), pa.binary_view()):
            continue
        chunks = table.column(i).chunks
        held = sum({b.address: b.size for c in chunks for b in c.buffers()[2:]}.values())
        if held < _WASTE or held < 2 * sum(_shown(chunk, pa) for chunk in chunks):
            continue
        plain = pa.large_string() if field.type == pa.string_view() else pa.large_binary()
        compact = [chunk.cast(plain).cast(field.type) for chunk in chunks]
        table = table.set_column(i, field, pa.chunked_array(compact, field.type))
    return table


def _shown(array: Any, pa: Any) -> int:
    """Add up the lengths in an array of views, which are the first of four int32."""
    import pyarrow.compute as pc

    views = array.buffers()[1]
    if views is None:
        return 0
    words = pa.Array.from_buffers(pa.int32(), views.size // 4, [None, views])
    rows = pa.FixedSizeListArray.from_arrays(words, 4).slice(array.offset, len(array))
    steps = (rows.slice(start, _ROWS) for start in range(0, len(rows), _ROWS))
    return sum(pc.sum(pc.list_element(step, 0)).as_py() or 0 for step in steps)


def _reduce(obj: Any, attach: reducers.Attach) -> Any:
    written = _try_write(obj)
    return NotImplemented if written is None else (_read_nested, (written[0], attach(written[1])))


def _read_nested(seal: bytes, stream: Any) -> Any:
    return read(seal, memoryview(stream))


def arrow_reducers(pyarrow: Any) -> dict[type, reducers.Reducer]:
    """Return the reducers of Arrow's types."""
    return dict.fromkeys((pyarrow.Table, pyarrow.RecordBatch, pyarrow.ChunkedArray), _reduce)
