"""Everything else: pickle 5 with out-of-band buffers, and cloudpickle where pickle gives up."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize import blame, reducers
from proxystore_core.serialize.layout import BytesLike, Pieces
from proxystore_core.serialize.registry import PICKLE

PROTOCOL = 5


class PickleSerializer:
    """Any object that pickle or cloudpickle can take."""

    identifier = PICKLE

    def dump(self, obj: Any) -> tuple[Pieces, Sequence[Pieces]]:
        """Pickle an object; what it refers to by buffers stays where it is."""
        reducers.update()
        if not _wants_by_value():
            try:
                return _dump(obj, _Pickler)
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001, S110  # a __reduce__ raises anything; cloudpickle decides
                pass
        try:
            return _dump(obj, _by_value_pickler())
        except MemoryError:
            raise
        except Exception as e:
            raise SerializationError(blame.describe(obj, e, error_of)) from e

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Any:
        """Unpickle an object over its buffers."""
        before = reducers.mode.writable
        reducers.mode.writable = not data.readonly
        try:
            return pickle.loads(data, buffers=buffers)
        finally:
            reducers.mode.writable = before


class _Output:
    """The file of a pickler: keeps what is written without joining it."""

    __slots__ = ("attached", "buffers", "chunks", "write")

    write: Callable[[BytesLike], object]

    def __init__(self) -> None:
        self.chunks: list[BytesLike] = []
        self.buffers: list[Pieces] = []
        self.attached: dict[int, tuple[pickle.PickleBuffer, Pieces]] = {}
        self.write = self.chunks.append

    def attach(self, pieces: Pieces) -> pickle.PickleBuffer:
        # A writable stand-in: the pickle of a read-only buffer would be read-only for ever.
        stand_in = pickle.PickleBuffer(bytearray())
        self.attached[id(stand_in)] = stand_in, pieces
        return stand_in

    def keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Tell pickle whether to take a buffer in-band."""
        known = self.attached.pop(id(buffer), None)
        if known is not None:
            self.buffers.append(known[1])
            return False
        view = buffer.raw()
        if len(view) < reducers.INBAND_BELOW:
            return True
        self.buffers.append(view)
        return False


class _Pickler(pickle.Pickler):
    def __init__(self, out: _Output) -> None:
        super().__init__(out, PROTOCOL, buffer_callback=out.keep)
        self._attach = out.attach

    def reducer_override(self, obj: Any) -> Any:
        return reduce(obj, self._attach)


def reduce(obj: Any, attach: reducers.Attach) -> Any:
    """Reduce an object by the reducer of its type, or return `NotImplemented`."""
    cls = type(obj)
    reducer = reducers.reducers.get(cls)
    if reducer is None:
        if not issubclass(cls, type):
            return NotImplemented
        reducer = reducers.reducers[type]
    return reducer(obj, attach)


_by_value: type[Any] | None = None


def _by_value_pickler() -> type[Any]:
    global _by_value  # cloudpickle takes 20 ms to import, which few need
    if _by_value is None:
        import cloudpickle

        class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
            def __init__(self, out: _Output) -> None:
                super().__init__(out, PROTOCOL, buffer_callback=out.keep)
                self._attach = out.attach

            def reducer_override(self, obj: Any) -> Any:
                reduced = reduce(obj, self._attach)
                return super().reducer_override(obj) if reduced is NotImplemented else reduced

        _by_value = ByValuePickler
    return _by_value


def _wants_by_value() -> bool:
    """Tell whether the user asked cloudpickle to send whole modules."""
    cloudpickle = sys.modules.get("cloudpickle")
    listed = getattr(cloudpickle, "list_registry_pickle_by_value", None)
    return bool(listed and listed())


def _dump(obj: Any, pickler: Callable[[_Output], Any]) -> tuple[Pieces, Sequence[Pieces]]:
    out = _Output()
    pickler(out).dump(obj)
    return out.chunks, out.buffers


def error_of(obj: Any) -> Exception | None:
    """Return the error that an object cannot be pickled for, or `None`."""
    try:
        _dump(obj, _by_value_pickler())
    except MemoryError:
        raise
    except Exception as e:  # noqa: BLE001  # the answer is the error
        return e
    return None
