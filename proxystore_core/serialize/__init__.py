"""Objects to bytes and back, without copies of what is large.

`dump` gives the `Parts` of an object, `load` the object of one buffer. The
layout is specified in `docs/format.md`; `register_serializer` adds types.
"""

from __future__ import annotations

from proxystore_core.exceptions import CorruptObjectError, SerializationError
from proxystore_core.serialize.api import (
    deserialize,
    dump,
    dump_raw,
    get_serializer,
    load,
    load_raw,
    serialize,
)
from proxystore_core.serialize.layout import BytesLike, Header, Parts, is_bytes_like, read_header
from proxystore_core.serialize.registry import (
    Serializer,
    register_serializer,
    unregister_serializer,
)

__all__ = [
    "BytesLike",
    "CorruptObjectError",
    "Header",
    "Parts",
    "SerializationError",
    "Serializer",
    "deserialize",
    "dump",
    "dump_raw",
    "get_serializer",
    "is_bytes_like",
    "load",
    "load_raw",
    "read_header",
    "register_serializer",
    "serialize",
    "unregister_serializer",
]
