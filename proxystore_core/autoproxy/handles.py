"""Who holds what: an object is evicted when the last that holds its entry lets go of it."""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import sys
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from proxystore_core.autoproxy.immutable import is_frozen
from proxystore_core.exceptions import ProxyStoreError

if TYPE_CHECKING:
    from proxystore_core.autoproxy.refs import Ref
    from proxystore_core.store.base import Store

logger = logging.getLogger(__name__)

_RECENT = 32
_ONLY_OURS = 2  # the entry's and getrefcount's own
_GUARDED = ("proxystore_core.store", "proxystore_core.connectors")


class Entry:
    """One object in a store that a session owns; Python's reference count is the holders' count.

    Attributes:
        ref: Where the object lies.
        keeper: What evicts it.
        factory: The factory of its proxies on this side, while there is one.
        source: The immutable object that was stored, or a weak reference to it.
        kept: Whether it was made to last: then it is not ours to evict.
    """

    __slots__ = ("__weakref__", "factory", "keeper", "kept", "ref", "source")

    def __init__(self, ref: Ref, keeper: Keeper) -> None:
        self.ref = ref
        self.keeper = keeper
        self.factory: weakref.ref[Any] | None = None
        self.source: Any = None
        self.kept = False

    @property
    def alive(self) -> bool:
        """Whether the object is still in the store."""
        return not self.keeper.closed

    def __del__(self) -> None:
        if not self.kept:
            self.keeper.drop(self.ref.key)


class Keeper:
    """Evicts the objects of one session.

    `drop` runs wherever Python drops the last reference, which may be inside a garbage
    collection in the middle of anything. It evicts on the spot, unless this thread is just
    inside a store, whose locks it may hold: then a thread of its own does.

    Args:
        store: Where the objects lie.
        temporary: The store ends with the session.
    """

    def __init__(self, store: Store[Any], *, temporary: bool = False) -> None:
        self.store = store
        self.temporary = temporary
        self.closed = False
        self.evicted = 0
        self._pid = os.getpid()
        self._getpid = os.getpid  # kept: module globals are gone at the end of the interpreter
        self._live: dict[Any, weakref.ref[Entry]] = {}
        self._pending: deque[Any] = deque()
        self._failed: list[Any] = []
        self._shared: dict[int, weakref.ref[Entry]] = {}
        self._shared_limit = _RECENT
        self._recent: deque[weakref.ref[Entry]] = deque(maxlen=_RECENT)
        # Modules whose frames may hold a lock that evicting takes.
        self._guarded = (*_GUARDED, type(store.connector).__module__)
        _keepers.add(self)

    def __len__(self) -> int:
        return len(self._live)

    def adopt(self, ref: Ref) -> Entry:
        """Own the object of a reference from now on; the same entry if it is owned already."""
        entry = self.find(ref.key)
        if entry is None:
            entry = Entry(ref, self)
            self._live[ref.key] = weakref.ref(entry)
        return entry

    def find(self, key: Any) -> Entry | None:
        """Return the entry of a key while someone holds it."""
        found = self._live.get(key)
        return found() if found is not None else None

    def entries(self) -> list[Entry]:
        """Return all entries that someone holds."""
        found = (reference() for reference in list(self._live.values()))
        return [entry for entry in found if entry is not None]

    def share(self, entry: Entry, obj: Any) -> None:
        """Let `shared` find the entry of an immutable object by the object itself."""
        try:
            entry.source = weakref.ref(obj)
        except TypeError:  # bytes and str: held until nobody else does
            entry.source = obj
            self._let_go()
            self._recent.append(weakref.ref(entry))
        if len(self._shared) >= self._shared_limit:
            dead = [ident for ident, found in list(self._shared.items()) if found() is None]
            for ident in dead:
                self._shared.pop(ident, None)
            self._shared_limit = max(_RECENT, 2 * len(self._shared))
        self._shared[id(obj)] = weakref.ref(entry)

    def shared(self, obj: Any) -> Entry | None:
        """Return the entry of an immutable object that is in the store already."""
        found = self._shared.get(id(obj))
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
            if entry is not None and sys.getrefcount(entry.source) == _ONLY_OURS:
                entry.source = None

    def drop(self, key: Any) -> None:
        """Evict a key that nobody holds."""
        if self.closed or self._getpid() != self._pid:
            return
        self._pending.append(key)
        if not self._inside_store():
            self.reap()
            return
        try:
            _thread.start_new_thread(self.reap, ())  # takes no lock, unlike threading.Thread
        except RuntimeError:
            return  # no threads any more: close() evicts at exit

    def reap(self) -> None:
        """Evict all that nobody holds."""
        while self._pending:
            try:
                key = self._pending.popleft()
            except IndexError:
                return  # another thread took it
            self._evict(key)

    def _evict(self, key: Any) -> None:
        if self.find(key) is not None:
            return  # adopted again
        self._live.pop(key, None)
        try:
            self.store.evict(key)
            self.evicted += 1
        except (ProxyStoreError, OSError):
            self._failed.append(key)
            logger.warning("Could not evict %r; trying again at the end.", key, exc_info=True)

    def _inside_store(self) -> bool:
        frame = sys._getframe(1)
        while frame is not None:
            if str(frame.f_globals.get("__name__")).startswith(self._guarded):
                return True
            frame = frame.f_back  # type: ignore[assignment]
        return False

    def close(self) -> None:
        """Evict everything, whoever holds it; calling it twice is no error."""
        if self.closed or self._getpid() != self._pid:
            return
        self.closed = True
        _keepers.discard(self)
        for key in {*self._live, *self._pending, *self._failed}:
            entry = self.find(key)
            if entry is not None and entry.kept:
                continue
            try:
                self.store.evict(key)
                self.evicted += 1
            except (ProxyStoreError, OSError):
                logger.warning("Could not evict %r.", key, exc_info=True)
        self._live.clear()


class Lease:
    """Holds what a task needs until the task is over.

    Release it when the task's future is done and its result went through `Session.result`.
    """

    __slots__ = ("_held",)

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._held: list[Entry] | None = list(entries)

    def add(self, entry: Entry) -> None:
        """Hold one more."""
        if self._held is None:
            raise ValueError("The lease was released.")
        self._held.append(entry)

    def join(self, other: Lease) -> None:
        """Hold what another holds, too."""
        for entry in other._held or ():
            self.add(entry)

    def __len__(self) -> int:
        return len(self._held or ())

    def release(self) -> None:
        """Let go; calling it twice is no error."""
        self._held = None


def find_entry(ref: Ref) -> Entry | None:
    """Return the entry that holds an object, whatever session of this process it belongs to."""
    for keeper in list(_keepers):
        entry = keeper.find(ref.key)
        if entry is not None and entry.ref == ref:
            return entry
    return None


_keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for keeper in list(_keepers):
        keeper.close()
