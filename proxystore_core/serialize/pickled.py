"""Everything else: pickle 5 with out-of-band buffers, and cloudpickle where pickle gives up."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize.layout import BytesLike

PROTOCOL = 5
INBAND_BELOW = 4096


class PickleSerializer:
    """Any object that pickle or cloudpickle can take."""

    identifier = "pickle"

    def dump(self, obj: Any) -> tuple[list[BytesLike], list[BytesLike]]:
        try:
            return _dump(obj, pickle.Pickler)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  # a user's __reduce__ may raise anything; cloudpickle decides
            return self._dump_by_value(obj)

    def _dump_by_value(self, obj: Any) -> tuple[list[BytesLike], list[BytesLike]]:
        import cloudpickle

        try:
            return _dump(obj, cloudpickle.Pickler)
        except MemoryError:
            raise
        except Exception as e:
            cls = type(obj)
            raise SerializationError(
                f"An object of type {cls.__module__}.{cls.__qualname__} cannot be serialized: {e}"
            ) from e

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Any:
        return pickle.loads(data, buffers=buffers)


class _Chunks:
    """A file for a pickler that keeps what is written, without joining it."""

    __slots__ = ("write",)


def _dump(obj: Any, pickler: Any) -> tuple[list[BytesLike], list[BytesLike]]:
    chunks: list[BytesLike] = []
    buffers: list[BytesLike] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if len(view) < INBAND_BELOW:
            return True
        buffers.append(view)
        return False

    file = _Chunks()
    file.write = chunks.append
    pickler(file, PROTOCOL, buffer_callback=keep).dump(obj)
    return chunks, buffers
