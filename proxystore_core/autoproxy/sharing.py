"""Finds what was stored before by the object itself."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from typing import Any, Generic, Protocol, TypeVar

from proxystore_core.autoproxy.immutable import is_frozen

_RECENT = 32
_ONLY_OURS = 2  # the entry's reference, and that of the call of getrefcount


class _Sourced(Protocol):
    source: Any
    """The object, or a weak reference to it."""


EntryT = TypeVar("EntryT", bound=_Sourced)


class Shared(Generic[EntryT]):
    """Entries by the immutable objects that were stored; holds neither longer than others do.

    `bytes` and `str` cannot be referred to weakly: the entry holds them, until a look at the
    entries made last shows that it is the only one.
    """

    def __init__(self) -> None:
        self._entries: dict[int, weakref.ref[EntryT]] = {}
        self._limit = _RECENT
        self._recent: deque[weakref.ref[EntryT]] = deque(maxlen=_RECENT)

    def add(self, entry: EntryT, obj: Any) -> None:
        """Remember that an immutable object was stored as an entry."""
        try:
            entry.source = weakref.ref(obj)
        except TypeError:
            self._let_go()
            entry.source = obj
            self._recent.append(weakref.ref(entry))
        if len(self._entries) >= self._limit:
            for ident, found in list(self._entries.items()):
                if found() is None:
                    self._entries.pop(ident, None)
            self._limit = max(_RECENT, 2 * len(self._entries))
        self._entries[id(obj)] = weakref.ref(entry)

    def find(self, obj: Any) -> EntryT | None:
        """Return the entry of an object, if someone still holds it."""
        found = self._entries.get(id(obj))
        entry = found() if found is not None else None
        if entry is None or not is_frozen(obj):
            return None
        source = entry.source
        if type(source) is weakref.ref:
            source = source()
        return entry if source is obj else None

    def _let_go(self) -> None:
        for found in list(self._recent):
            entry = found()
            if entry is not None and sys.getrefcount(entry.source) <= _ONLY_OURS:
                entry.source = None
