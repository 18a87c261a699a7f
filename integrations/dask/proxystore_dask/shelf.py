"""What a worker keeps: results, some of them only as handles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any

from dask.sizeof import sizeof

from proxystore_dask import access
from proxystore_dask.access import Handle

_SMALL = 512

instead: ContextVar[Mapping[Any, Any] | None] = ContextVar("instead", default=None)
"""What to hand out in place of what is on the shelf, in this context."""

arriving: ContextVar[bool] = ContextVar("arriving", default=False)
"""Whether handles are measured as the objects that they stand for, because they arrive."""


class Shelf(MutableMapping[Any, Any]):
    """The mapping of a worker from keys to results, around the one that Dask made.

    Whoever asks for a result gets the object; only `raw` knows of handles.

    Args:
        raw: The mapping that Dask made, which may spill.
        on_handle: Called with the key when a handle comes from another worker.
        writable: Whether objects that lie in the memory can be written to.
    """

    def __init__(
        self,
        raw: MutableMapping[Any, Any],
        on_handle: Callable[[Any, Handle], object],
        writable: bool,
    ) -> None:
        self.raw = raw
        self._on_handle = on_handle
        self._writable = writable
        self.handles: dict[Any, Handle] = {}

    def __getitem__(self, key: Any) -> Any:
        given = instead.get()
        if given is not None and key in given:
            return given[key]
        value = self.raw[key]
        return access.get(value, writable=self._writable) if type(value) is Handle else value

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(value) is not Handle:
            self.handles.pop(key, None)
            self.raw[key] = value
            return
        if not arriving.get():
            self._on_handle(key, value)
        token = arriving.set(False)
        try:
            self.hold(key, value)
        finally:
            arriving.reset(token)

    def hold(self, key: Any, handle: Handle) -> None:
        """Put a handle on the shelf."""
        self.raw[key] = handle
        self.handles[key] = handle

    def __delitem__(self, key: Any) -> None:
        self.handles.pop(key, None)
        del self.raw[key]

    def __contains__(self, key: object) -> bool:
        return key in self.raw

    def __iter__(self) -> Iterator[Any]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __getattr__(self, name: str) -> Any:  # how Dask measures and spills
        return getattr(self.raw, name)


@sizeof.register(Handle)  # type: ignore[untyped-decorator]  # Dask has no types
def _sizeof_handle(handle: Handle) -> int:
    if arriving.get():
        return handle.nbytes
    return _SMALL if handle.kept is None else _SMALL + int(handle.nbytes)
