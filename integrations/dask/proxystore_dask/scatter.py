"""Scattering by reference."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import distributed
from dask.tokenize import tokenize

from proxystore_dask import _seams
from proxystore_dask.graphs import Taker
from proxystore_dask.memory import Memory
from proxystore_dask.tokens import GivenNode, Giver


def make_scatter(
    client: distributed.Client, memory: Memory, tell: Callable[..., None]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what goes in front of `Client._scatter`.

    Args:
        client: The client.
        memory: Where large objects go.
        tell: Tells the scheduler about them.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def _scatter(
            data: Any, workers: Any = None, broadcast: Any = False, **options: Any
        ) -> Any:
            if not memory.policy.args or options.get("local_worker"):
                return await original(data, workers=workers, broadcast=broadcast, **options)
            giver = Giver(memory)
            named, rebuild = await asyncio.to_thread(_named, data, options.get("hash", True), giver)
            if named is None:
                return await original(data, workers=workers, broadcast=broadcast, **options)
            taker = Taker(memory)
            sent, types = {}, {}
            for name, value in named.items():
                handle = await asyncio.to_thread(_store, taker, giver, value, name)
                sent[name] = value if handle is None else handle
                types[name] = type(value)
            scattered = {name: sent[name] for name in sent if sent[name] is not named[name]}
            try:
                tell("claim", taker.needs, scattered=scattered)
                futures = await original(sent, workers=workers, broadcast=broadcast, **options)
                tell("settle", taker.needs)
            except BaseException:
                memory.evict(taker.stored)
                tell("drop", taker.needs)
                raise
            _seams.finish(client, {name: types[name] for name in scattered})
            return rebuild(futures)

        return _scatter

    return make


def _store(taker: Taker, giver: Giver, value: Any, name: Any) -> Any:
    if not taker.is_large(value):
        return None
    given = giver.give(value)
    return taker.store(value, name, parts=given.parts if type(given) is GivenNode else None)


def _named(
    data: Any, hashed: bool, giver: Giver
) -> tuple[dict[Any, Any] | None, Callable[[dict[Any, Any]], Any]]:
    """Give what is scattered keys as Dask would, and say how its futures come back."""
    cls = type(data)
    if cls is dict:
        return data, lambda futures: futures
    if cls is range or isinstance(data, Iterator):
        return None, lambda futures: futures  # of these Dask makes a list, of small things mostly
    is_namedtuple = isinstance(data, tuple) and hasattr(data, "_fields")
    if cls not in (list, tuple, set, frozenset) and not is_namedtuple:
        name = _name(data, hashed, giver)
        return {name: data}, lambda futures: futures[name]
    names = [_name(item, hashed, giver) for item in data]
    named = dict(zip(names, data, strict=True))
    if is_namedtuple:
        return named, lambda futures: cls(*(futures[name] for name in names))
    return named, lambda futures: cls(futures[name] for name in names)


def _name(item: Any, hashed: bool, giver: Giver) -> str:
    token = tokenize(giver.give(item)) if hashed else uuid.uuid4().hex
    return f"{type(item).__name__}-{token}"
