"""Proxies that stand for results of tasks, wherever they are in a value."""

from __future__ import annotations

from typing import Any, NamedTuple

from proxystore_core.autoproxy import walk
from proxystore_core.autoproxy.results import AutoFactory, auto_factory
from proxystore_core.proxy import Proxy, extract, get_factory, get_info
from proxystore_core.store import Store, StoreFactory

_DEPTH = 6
_PROXIES = frozenset((Proxy,))


class Place(NamedTuple):
    """Where the target of a proxy is stored."""

    store: Store[Any]
    key: Any


def locate(proxy: Proxy[Any]) -> Place | None:
    """Tell where the target of a proxy is stored, if it is."""
    factory = get_factory(proxy)
    if isinstance(factory, AutoFactory):
        return Place(factory.ref.channel.store(), factory.ref.key)
    if isinstance(factory, StoreFactory):
        return Place(factory.get_store(), factory.key)
    return None


def results_in(value: Any) -> list[Proxy[Any]]:
    """List the proxies of results in nested containers."""
    found: list[Proxy[Any]] = []

    def visit(proxy: Any) -> Any:
        if auto_factory(proxy) is not None:
            found.append(proxy)
        return proxy

    walk(value, visit, depth=_DEPTH, only=_PROXIES)
    return found


def with_targets(value: Any) -> Any:
    """Put the objects in the place of the proxies of results."""
    return walk(value, _target, depth=_DEPTH, only=_PROXIES)


def without_results(value: Any) -> Any:
    """Put what is known of them in the place of the proxies of results."""
    return walk(value, _description, depth=_DEPTH, only=_PROXIES)


def is_gone(proxy: Proxy[Any]) -> bool:
    """Tell whether tasks could not get the object of a result any more."""
    factory = auto_factory(proxy)
    if factory is None or (factory.entry is not None and not factory.entry.alive):
        return False  # at home since its session closed
    return not factory.ref.channel.store().exists(factory.ref.key)


def _target(proxy: Any) -> Any:
    return proxy if auto_factory(proxy) is None else extract(proxy)


def _description(proxy: Any) -> Any:
    return proxy if auto_factory(proxy) is None else get_info(proxy)
