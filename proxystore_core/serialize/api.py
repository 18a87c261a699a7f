"""From objects to parts and back."""

from __future__ import annotations

from typing import Any

from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize import arrays, builtin, pickled, registry
from proxystore_core.serialize.layout import (
    BytesLike,
    Content,
    Parts,
    as_view,
    build,
    check_digest,
    parse,
)
from proxystore_core.serialize.registry import Serializer

_RAW = "raw"
_PICKLE = pickled.PickleSerializer()


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
    made = serializer.dump(obj)
    if made is NotImplemented:
        serializer = _PICKLE
        made = serializer.dump(obj)
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
    content = _checked(view, verify)
    name = content.header.serializer
    serializer = registry.by_identifier(name)
    if serializer is None:
        raise _unknown(name)
    if writable or getattr(serializer, "writable", False):
        if view.readonly or not writable:
            content = parse(memoryview(bytearray(view)))
    elif not view.readonly:
        content = parse(view.toreadonly())
    try:
        return serializer.load(content.data, content.buffers)
    except (SerializationError, MemoryError):
        raise
    except Exception as e:
        raise SerializationError(
            f"The {name!r} serializer cannot load an object of {len(view)} bytes: "
            f"{type(e).__name__}: {e}"
        ) from e


def dump_raw(payload: BytesLike, *, digest: bool = False) -> Parts:
    """Frame bytes that a serializer of the caller's own made.

    Args:
        payload: The bytes.
        digest: Whether to add a SHA-256 digest.
    """
    data, buffers = builtin.place(as_view(payload))
    return build(_RAW, data, buffers, digest=digest)


def load_raw(buffer: BytesLike, *, verify: bool | None = None) -> memoryview:
    """Return a view of the bytes that `dump_raw` framed.

    Args:
        buffer: Exactly the bytes of one object.
        verify: As for `load`.

    Raises:
        CorruptObjectError: If the bytes are not those that were stored.
        SerializationError: If the object was not framed by `dump_raw`.
    """
    content = _checked(as_view(buffer), verify)
    if content.header.serializer != _RAW:
        raise SerializationError(
            f"The object was stored by the {content.header.serializer!r} serializer: "
            "read it without a deserializer of your own."
        )
    return builtin.placed(content.data, content.buffers)


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


def _checked(view: memoryview, verify: bool | None) -> Content:
    content = parse(view)
    if verify or (verify is None and content.header.has_digest):
        check_digest(view, content.header)
    return content


def _unknown(name: str) -> SerializationError:
    if name == _RAW:
        return SerializationError(
            "The object was stored by a serializer of the caller's own: read it with the "
            "deserializer that belongs to it."
        )
    return SerializationError(
        f"No serializer {name!r} is registered in this process: "
        "register it with proxystore_core.serialize.register_serializer before loading."
    )


def _register() -> None:
    own: list[tuple[registry.TypeSpec, Serializer]] = [
        (bytes, builtin.BytesSerializer()),
        (bytearray, builtin.BytearraySerializer()),
        (memoryview, builtin.MemoryviewSerializer()),
        (str, builtin.StrSerializer()),
        ("numpy:ndarray", arrays.NdarraySerializer()),
        ((), _PICKLE),
    ]
    for types, serializer in own:
        registry.register_serializer(types, serializer, subclasses=False)


_register()
