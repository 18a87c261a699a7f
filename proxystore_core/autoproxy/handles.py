"""Who holds what: an object is evicted when the last that holds its entry lets go of it."""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from proxystore_core.autoproxy.sharing import Shared
from proxystore_core.exceptions import ProxyStoreError

if TYPE_CHECKING:
    from types import FrameType

    from proxystore_core.autoproxy.refs import Ref
    from proxystore_core.store.base import Store

logger = logging.getLogger(__name__)

_GUARDED = ("proxystore_core.store", "proxystore_core.connectors")


class Entry:
    """One object in a store that a session owns; Python's reference count is the holders' count.

    Attributes:
        ref: Where the object lies.
        keeper: What evicts it.
        factory: The factory of its proxies on this side, while there is one.
        source: The immutable object that was stored, or a weak reference to it.
    """

    __slots__ = ("__weakref__", "factory", "keeper", "ref", "source")

    def __init__(self, ref: Ref, keeper: Keeper) -> None:
        self.ref = ref
        self.keeper = keeper
        self.factory: weakref.ref[Any] | None = None
        self.source: Any = None

    @property
    def alive(self) -> bool:
        """Whether the object is there, and its session's."""
        return self.keeper.holds(self)


class _Watch(weakref.ref[Entry]):
    """Calls its keeper when an entry is gone; unlike `__del__` it cannot bring it back."""

    __slots__ = ("key",)

    key: Any

    def __new__(cls, entry: Entry, keeper: Keeper) -> _Watch:
        self = super().__new__(cls, entry, keeper.dropped)
        self.key = entry.ref.key
        return self


class Keeper:
    """Evicts the objects of one session.

    `dropped` runs wherever Python drops the last reference, which may be inside a garbage
    collection in the middle of anything. It evicts on the spot, unless this thread is just
    inside a store, whose locks it may hold: then a thread of its own does.

    Args:
        store: Where the objects lie.
        temporary: The store ends with the session.
        lends: Proxies of its objects pickle as references, and what they refer to stays until
            the keeper is closed: nobody else knows who uses it.

    Attributes:
        closed: Whether everything was evicted for good.
        evicted: Number of objects evicted.
        shared: Finds entries by the immutable objects that were stored.
    """

    def __init__(self, store: Store[Any], *, temporary: bool = False, lends: bool = False) -> None:
        self.store = store
        self.temporary = temporary
        self.lends = lends
        self.closed = False
        self.evicted = 0
        self.shared: Shared[Entry] = Shared()
        self._pid = os.getpid()
        self._getpid = os.getpid  # kept: module globals are gone at the end of the interpreter
        self._lock = threading.Lock()  # `dropped` must never take it
        self._live: dict[Any, _Watch] = {}
        self._lent: set[Entry] = set()
        self._pending: deque[Any] = deque()
        self._failed: list[Any] = []
        self._abandoned = False
        # Modules whose frames may hold a lock that evicting takes.
        self._guarded = (*_GUARDED, type(store.connector).__module__)
        _keepers.add(self)

    def __len__(self) -> int:
        return len(self._live)

    @property
    def foreign(self) -> bool:
        """Whether this is another process than the one that owns the objects."""
        return self._getpid() != self._pid

    def adopt(self, ref: Ref) -> Entry:
        """Own the object of a reference from now on; the same entry if it is owned already."""
        with self._lock:
            entry = self.find(ref.key)
            if entry is None:
                entry = Entry(ref, self)
                self._live[ref.key] = _Watch(entry, self)
            return entry

    def find(self, key: Any) -> Entry | None:
        """Return the entry of a key while someone holds it."""
        found = self._live.get(key)
        return found() if found is not None else None

    def entries(self) -> list[Entry]:
        """Return all entries that someone holds."""
        found = (watch() for watch in list(self._live.values()))
        return [entry for entry in found if entry is not None]

    def holds(self, entry: Entry) -> bool:
        """Tell whether the object of an entry is there, and ours."""
        return not self.closed and entry.ref.key in self._live

    def give_up(self, entry: Entry) -> None:
        """Own an object no longer: it stays in the store."""
        self._live.pop(entry.ref.key, None)
        self._lent.discard(entry)

    def take_over(self, entry: Entry) -> None:
        """Own the object of an entry that another keeper of the same store owned."""
        with self._lock:
            self._live[entry.ref.key] = _Watch(entry, self)
        former, entry.keeper = entry.keeper, self
        former.give_up(entry)

    def lend(self, entry: Entry) -> None:
        """Hold an object until the keeper is closed."""
        self._lent.add(entry)

    def dropped(self, watch: Any) -> None:
        """Evict the object of an entry that is gone."""
        key = watch.key
        if self.closed or self.foreign or self._live.get(key) is not watch:
            return
        self._live.pop(key, None)
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
            if key not in self._live:  # else adopted again
                self._evict(key)
        if self._abandoned and not self._live:
            self.close()

    def abandon(self) -> None:
        """Close when nothing is held any more; the session is gone, its results are not yet."""
        self._abandoned = True
        self.reap()

    def close(self) -> None:
        """Evict everything, whoever holds it; calling it twice is no error."""
        if self.closed or self.foreign:
            return
        self.closed = True
        _keepers.discard(self)
        for key in {*self._live, *self._pending, *self._failed}:
            self._evict(key)
        self._live.clear()
        self._lent.clear()
        if self.temporary:
            self.store.close()

    def _evict(self, key: Any) -> None:
        if self.store.closed:
            return
        try:
            self.store.evict(key)
            self.evicted += 1
        except (ProxyStoreError, OSError):
            self._failed.append(key)
            logger.warning("Could not evict %r; trying again at the end.", key, exc_info=True)
        except BaseException:
            self._failed.append(key)
            raise

    def _inside_store(self) -> bool:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if str(frame.f_globals.get("__name__")).startswith(self._guarded):
                return True
            frame = frame.f_back
        return False


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

    def leave(self) -> None:
        """Let go, and leave the objects where they are: the task goes on without this process."""
        for entry in self._held or ():
            entry.keeper.give_up(entry)
        self._held = None


def find_entry(ref: Ref) -> Entry | None:
    """Return the entry that holds an object, whatever session of this process it belongs to."""
    for keeper in list(_keepers):
        entry = keeper.find(ref.key)
        if entry is not None and entry.ref == ref:
            return entry
    return None


_keepers: set[Keeper] = set()  # holds them: an entry may outlive its session


@atexit.register
def _close_all() -> None:
    for keeper in list(_keepers):
        keeper.close()
