"""Results that reach a process without a session: it owns what it received.

An engine that hands results to clients which know nothing of us unpickles them with `receive`.
A `Session` that waited for the result takes it over with `Session.take_over`.
"""

from __future__ import annotations

import threading
from typing import Any

from proxystore_core.autoproxy.containers import walk
from proxystore_core.autoproxy.handles import Keeper, find_entry
from proxystore_core.autoproxy.refs import REFS, Channel, Ref
from proxystore_core.autoproxy.results import proxy_of
from proxystore_core.exceptions import ProxyStoreError

_keepers: dict[bytes, Keeper] = {}
_lock = threading.Lock()


def receive(value: Any, depth: int) -> Any:
    """Make proxies of the references in a result.

    An object is evicted when its last holder in this process lets go, and at the latest when
    the process ends. A proxy that is pickled goes by reference: from then on its object stays
    until the process ends.

    Args:
        value: What the task returned, with a `Ref` in the place of what is large.
        depth: How many levels of containers are searched.
    """
    return walk(value, _received, depth=depth, only=REFS)


def _received(ref: Ref) -> Any:
    entry = find_entry(ref)
    if entry is None:
        try:
            entry = _keeper_of(ref.channel).adopt(ref)
        except (ProxyStoreError, OSError):  # out of reach: whoever uses the proxy is told
            return proxy_of(ref, None)
    return proxy_of(ref, entry)


def _keeper_of(channel: Channel) -> Keeper:
    store = channel.store()
    with _lock:
        keeper = _keepers.get(channel.wire)
        if keeper is None or keeper.closed or keeper.foreign or keeper.store is not store:
            keeper = _keepers[channel.wire] = Keeper(store, lends=True)
        return keeper
