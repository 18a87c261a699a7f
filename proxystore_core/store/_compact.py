"""Configurations and facts as plain strings and numbers, so that a pickled proxy is small."""

from __future__ import annotations

from typing import Any

from proxystore_core.proxy import TargetInfo
from proxystore_core.store.config import ConnectorConfig, StoreConfig

_MAX_CONFIGS = 256
_DEFAULTS = {
    name: value
    for name, value in vars(StoreConfig("default", ConnectorConfig("local"))).items()
    if name not in ("name", "connector", "auto_register")
}
# Options that go without their names, in this order. Never change an order that was released.
_POSITIONAL = {
    "local": ("channel",),
    "file": ("store_dir", "clear"),
    "shm": ("directory", "host"),
}
_LENGTH = TargetInfo._fields.index("length")
_NO_LENGTH = -1
# Of the proxies that came in: many of them share a configuration.
_configs: dict[Any, StoreConfig] = {}


def pack_config(config: StoreConfig) -> tuple[str, str, tuple[Any, ...], dict[str, Any]]:
    """Take a configuration apart: name, kind, connector options, other options."""
    kind = config.connector.short_kind()
    options = dict(config.connector.options)
    names = _POSITIONAL.get(kind, ())
    # None stands for an option that is not there: it goes with its name where it is meant.
    flat = [options.pop(name) if options.get(name) is not None else None for name in names]
    flat += [part for item in options.items() for part in item]
    fields = vars(config)
    others = {name: fields[name] for name, value in _DEFAULTS.items() if fields[name] != value}
    return config.name, kind, tuple(flat), others


def unpack_config(
    name: str, kind: str, flat: tuple[Any, ...], others: dict[str, Any]
) -> StoreConfig:
    """Make the configuration that `pack_config` took apart."""
    index: Any = (name, kind, flat, tuple(others.items()))
    try:
        config = _configs.get(index)
    except TypeError:  # an option is a list or a dictionary
        index = config = None
    if config is None:
        names = _POSITIONAL.get(kind, ())
        rest = flat[len(names) :]
        options = {
            name: value for name, value in zip(names, flat, strict=False) if value is not None
        }
        options |= zip(rest[::2], rest[1::2], strict=True)
        config = StoreConfig(name, ConnectorConfig(kind, options), **others)
        if index is not None:
            while len(_configs) >= _MAX_CONFIGS:
                _configs.pop(next(iter(_configs)), None)
            _configs[index] = config
    return config


def pack_info(info: TargetInfo | None) -> tuple[Any, ...]:
    """Take what is known of a target apart."""
    if info is None:
        return ()
    facts: list[Any] = list(info)
    if info.shape:  # mostly the length is known from it
        known = _NO_LENGTH if info.length is None else info.length
        facts[_LENGTH] = None if known == info.shape[0] else known
    while facts and facts[-1] is None:
        facts.pop()
    return tuple(facts)


def unpack_info(facts: tuple[Any, ...]) -> TargetInfo | None:
    """Put together what `pack_info` took apart."""
    if not facts:
        return None
    info = TargetInfo(*facts)
    if info.shape:
        length = info.shape[0] if info.length is None else info.length
        info = info._replace(length=None if length == _NO_LENGTH else length)
    return info
