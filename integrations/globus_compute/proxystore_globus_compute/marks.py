"""References where only JSON may travel: plain dictionaries that stand for them."""

from __future__ import annotations

import dataclasses
from typing import Any

from proxystore_core.autoproxy.containers import walk
from proxystore_core.autoproxy.received import receive
from proxystore_core.autoproxy.refs import REFS, Channel, Packed, Ref, channel_for
from proxystore_core.proxy import TargetInfo
from proxystore_core.store.config import StoreConfig

KEY = "proxystore"
VERSION = 1
_DEPTH = 32

_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(StoreConfig)
    if field.name not in ("name", "connector", "auto_register")
}
_DEFAULTS["cache_bytes"] = 256_000_000


def mark_of(ref: Ref) -> dict[str, Any]:
    """Return the JSON form of a reference.

    Raises:
        TypeError: If its store has functions in its configuration, which have no such form.
    """
    config = ref.channel.config
    connector = config.connector
    store: dict[str, Any] = {
        "name": config.name,
        "connector": {"kind": connector.short_kind(), "options": connector.options},
    }
    for name, default in _DEFAULTS.items():
        value = getattr(config, name)
        if value != default:
            if callable(value):
                raise TypeError(
                    f"Store {config.name!r} has a {name} of its own, which cannot travel as JSON: "
                    "use a store without, or another serialization strategy for data."
                )
            store[name] = value
    return {
        KEY: VERSION,
        "store": store,
        "key": list(ref.key),
        "nbytes": ref.nbytes,
        "info": None if ref.info is None else list(ref.info),
    }


def to_marks(value: Any) -> Any:
    """Put marks in the place of references; raises as `mark_of`."""
    return walk(value, mark_of, depth=_DEPTH, only=REFS)


def from_marks(value: Any, only: Channel | None = None) -> tuple[Any, bool]:
    """Put references in the place of marks.

    Args:
        value: What JSON gives: lists, dictionaries and what is no container.
        only: Leave marks of other stores than this one as they are.

    Returns:
        The new value, and whether there was a mark.
    """
    cls = type(value)
    if cls is list:
        items = [from_marks(item, only) for item in value]
        return [new for new, _ in items], any(marked for _, marked in items)
    if cls is not dict:
        return value, False
    if value.get(KEY) == VERSION and value.keys() == _FIELDS:
        ref = _ref(value)
        return (ref, True) if only is None or ref.channel is only else (value, False)
    named = {key: from_marks(item, only) for key, item in value.items()}
    return {key: new for key, (new, _) in named.items()}, any(m for _, m in named.values())


_FIELDS = {KEY, "store", "key", "nbytes", "info"}


def _ref(mark: dict[str, Any]) -> Ref:
    channel = channel_for(StoreConfig.from_dict(mark["store"]))
    key = channel.config.connector.make_key(tuple(mark["key"]))
    info = mark["info"]
    if info is not None:
        info = TargetInfo(*info)
        if info.shape is not None:
            info = info._replace(shape=tuple(info.shape))
    return Ref(channel, key, mark["nbytes"], info)


def framed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make one argument of JSON types out of all those of a call; raises as `mark_of`."""
    frame = {
        KEY: VERSION,
        "args": [_open(value) for value in args],
        "kwargs": {name: _open(value) for name, value in kwargs.items()},
    }
    return (frame,), {}


def unframed(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of a call that `framed` may have packed."""
    if len(args) == 1 and not kwargs and type(args[0]) is dict:
        frame = args[0]
        if frame.get(KEY) == VERSION and frame.keys() == {KEY, "args", "kwargs"}:
            named = {name: _close(value) for name, value in frame["kwargs"].items()}
            return tuple(_close(value) for value in frame["args"]), named
    return args, kwargs


def _open(value: Any) -> Any:
    return to_marks(value.value if type(value) is Packed else value)


def _close(value: Any) -> Any:
    new, marked = from_marks(value)
    return Packed(new) if marked and type(new) is not Ref else new


class Returned(dict[str, Any]):
    """A result with references inside, ready for whatever serializes results on the endpoint.

    As JSON it is a mark, which the future of a `ProxyExecutor` understands. Unpickled, it is
    the result, with proxies in the place of what is large, for whoever receives it.
    """

    def __init__(self, value: Any, depth: int) -> None:
        self._parts = value, depth
        try:
            content = to_marks(value)
        except TypeError:
            content = value  # JSON will say that it cannot take it
        super().__init__({KEY: VERSION, "result": content})

    def __reduce__(self) -> tuple[Any, ...]:
        return receive, self._parts


def returned(value: Any, only: Channel) -> tuple[Any] | None:
    """Return, in a tuple, the result that a `Returned` became as JSON; `None` if it is none."""
    if type(value) is dict and value.get(KEY) == VERSION and value.keys() == {KEY, "result"}:
        result, marked = from_marks(value["result"], only)
        return (result,) if marked else None
    return None
