"""What pickle is told about types whose memory should go out-of-band.

A reducer takes an object and a function `attach`, which turns bytes into a
buffer that travels beside the pickle, and returns what `__reduce__` returns,
or `NotImplemented`. Reducers of a library are added when it was imported by
someone else: without it there are no such objects.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pickle import PickleBuffer
from threading import local
from typing import Any, Protocol, TypeAlias

from proxystore_core.serialize.layout import Pieces

INBAND_BELOW = 2048  # measured: below, a copy into the pickle beats a buffer of its own


class Attach(Protocol):
    """Puts bytes beside the pickle."""

    def __call__(self, pieces: Pieces) -> PickleBuffer:
        """Return what stands for the bytes in the arguments of a reduction."""
        ...


Reducer: TypeAlias = Callable[[Any, Attach], Any]

reducers: dict[type, Reducer] = {}
_pending: dict[str, Callable[[Any], dict[type, Reducer]]] = {}


_seen = 0  # number of modules when `update` last looked


class Mode(local):
    """How the pickle that this thread loads wants its arrays."""

    writable = False


mode = Mode()


def as_wanted(data: Any) -> Any:
    """Return small in-band bytes as the load wants them, other buffers as they are."""
    return bytearray(data) if mode.writable and type(data) is bytes else data


def when_imported(module: str, make: Callable[[Any], dict[type, Reducer]]) -> None:
    """Add the reducers that `make` returns for a module, once it is imported."""
    _pending[module] = make


def update() -> None:
    """Add the reducers of modules that were imported since the last call."""
    global _seen
    modules = len(sys.modules)
    if modules == _seen:
        return
    for name in [name for name in _pending if name in sys.modules]:
        module = sys.modules[name]
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            modules = 0  # half imported, by another thread or by who calls us: look again
            continue
        make = _pending.pop(name, None)
        if make is not None:
            reducers.update(make(module))
    _seen = modules
