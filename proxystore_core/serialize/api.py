"""From objects to parts and back."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from proxystore_core.exceptions import MissingLibraryError, SerializationError
from proxystore_core.serialize import builtin, reducers, registry
from proxystore_core.serialize.arrays import NdarraySerializer, array_reducers
from proxystore_core.serialize.arrow import ArrowSerializer, arrow_reducers
from proxystore_core.serialize.frames import PolarsSerializer, pandas_reducers, polars_reducers
from proxystore_core.serialize.layout import (
    BytesLike,
    Header,
    Parts,
    as_view,
    build,
    check_digest,
    parse,
)
from proxystore_core.serialize.main_module import reduce_definition
from proxystore_core.serialize.pickled import PickleSerializer
from proxystore_core.serialize.registry import RAW, Serializer, register_serializer
from proxystore_core.serialize.tensors import TensorSerializer, torch_reducers

_PICKLE = PickleSerializer()


def get_serializer(obj: Any) -> Serializer:
    """Return the serializer that takes an object: a registered one, or pickle."""
    return registry.find(type(obj)) or _PICKLE


def dump(obj: Any, *, digest: bool = False) -> Parts:
    """Turn an object into the parts of its stored form.

    Large memory of the object (arrays, frames, bytes) is not copied: the parts
    are views of it.

    Args:
        obj: Any object that a registered serializer, pickle or cloudpickle takes.
        digest: Whether to add a SHA-256 digest, for what leaves this machine or user.

    Raises:
        SerializationError: If nothing can serialize the object; the cause says why.
    """
    serializer = registry.find(type(obj)) or _PICKLE
    try:
        made = serializer.dump(obj)
    except (SerializationError, MemoryError):
        raise
    except Exception as e:
        cls = type(obj)
        raise SerializationError(
            f"An object of type {cls.__module__}.{cls.__qualname__} cannot be serialized "
            f"by {serializer.identifier!r}: {type(e).__name__}: {e}"
        ) from e
    if made is None:
        serializer = _PICKLE
        made = _PICKLE.dump(obj)
    data, buffers = made
    return build(serializer.identifier, data, buffers, digest=digest)


def load(buffer: BytesLike, *, verify: bool | None = None, writable: bool = False) -> Any:
    """Return the object of a stored form.

    Arrays, frames and memoryviews in it are views of the buffer and keep it alive.

    Args:
        buffer: Exactly the bytes of one object.
        verify: `None` checks the digest where there is one, `True` wants one,
            `False` skips it. The checksum of head and in-band data is always checked.
        writable: Whether views may be written: into the buffer where it is
            writable, and into a private copy of it else.

    Raises:
        CorruptObjectError: If the bytes are not those that were stored.
        SerializationError: If the bytes are right, and cannot be turned into an object.
    """
    view = as_view(buffer)
    header, data, buffers = _checked(view, verify)
    serializer = registry.by_identifier(header.serializer)
    if serializer is None:
        raise _unknown(header.serializer)
    if writable or getattr(serializer, "writable", False):
        if view.readonly or not writable:  # a writable buffer may be another's too
            _, data, buffers = parse(memoryview(bytearray(view)))
    elif not view.readonly:
        _, data, buffers = parse(view.toreadonly())
    try:
        return serializer.load(data, buffers)
    except (SerializationError, MemoryError):
        raise
    except ModuleNotFoundError as e:
        raise MissingLibraryError(e.name or str(e), what=_what(header)) from e
    except Exception as e:
        raise SerializationError(
            f"{_what(header)} cannot be loaded: {type(e).__name__}: {e}"
        ) from e


def dump_raw(payload: BytesLike, *, digest: bool = False) -> Parts:
    """Frame bytes that a serializer of the caller's own made.

    Args:
        payload: The bytes.
        digest: Whether to add a SHA-256 digest.
    """
    data, buffers = builtin.place(as_view(payload))
    return build(RAW, data, buffers, digest=digest)


def load_raw(buffer: BytesLike, *, verify: bool | None = None) -> memoryview:
    """Return a view of the bytes that `dump_raw` framed.

    Args:
        buffer: Exactly the bytes of one object.
        verify: As for `load`.

    Raises:
        CorruptObjectError: If the bytes are not those that were stored.
        SerializationError: If the object was not framed by `dump_raw`.
    """
    header, data, buffers = _checked(as_view(buffer), verify)
    if header.serializer != RAW:
        raise SerializationError(
            f"The object was stored by the {header.serializer!r} serializer: "
            "read it without a deserializer of your own."
        )
    return builtin.placed(data, buffers)


def serialize(obj: Any) -> bytes:
    """Turn an object into one run of bytes.

    Raises:
        SerializationError: If nothing can serialize the object; the cause says why.
    """
    return dump(obj).tobytes()


def deserialize(buffer: BytesLike) -> Any:
    """Return the object of a stored form; the same as `load`.

    Raises:
        CorruptObjectError: If the bytes are not those that were stored.
        SerializationError: If the bytes are right, and cannot be turned into an object.
    """
    return load(buffer)


def _checked(view: memoryview, verify: bool | None) -> tuple[Header, memoryview, list[memoryview]]:
    content = parse(view)
    header = content[0]
    if verify or (verify is None and header.has_digest):
        check_digest(view, header)
    return content


def _what(header: Header) -> str:
    return f"An object of {header.nbytes} bytes, stored by the {header.serializer!r} serializer,"


def _unknown(name: str) -> SerializationError:
    if name == RAW:
        return SerializationError(
            "The object was stored by a serializer of the caller's own: "
            "read it with the deserializer that belongs to it."
        )
    return SerializationError(
        f"No serializer {name!r} is registered in this process: "
        "call proxystore_core.serialize.register_serializer before loading."
    )


def _register() -> None:
    arrow = ArrowSerializer()
    for types, serializer in (
        (bytes, builtin.BytesSerializer()),
        (bytearray, builtin.BytearraySerializer()),
        (memoryview, builtin.MemoryviewSerializer()),
        (str, builtin.StrSerializer()),
        ("numpy:ndarray", NdarraySerializer()),
        (("pyarrow.lib:Table", "pyarrow.lib:RecordBatch", "pyarrow.lib:ChunkedArray"), arrow),
        (("polars.dataframe.frame:DataFrame", "polars.series.series:Series"), PolarsSerializer()),
        ("torch:Tensor", TensorSerializer()),
        ((), _PICKLE),
    ):
        register_serializer(types, serializer, subclasses=False)
    register_serializer("pyarrow.lib:Array", arrow)  # each type of items is a subclass
    reducers.reducers[type] = reduce_definition
    reducers.reducers[FunctionType] = reduce_definition
    reducers.reducers[memoryview] = builtin.reduce_memoryview
    reducers.when_imported("numpy", array_reducers)
    reducers.when_imported("pyarrow", arrow_reducers)
    reducers.when_imported("pandas", pandas_reducers)
    reducers.when_imported("polars", polars_reducers)
    reducers.when_imported("torch", torch_reducers)


_register()
