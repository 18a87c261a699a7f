"""Configurations as plain strings and numbers, so that a pickled proxy is small."""

from __future__ import annotations

from typing import Any

from proxystore_core.store.config import ConnectorConfig, StoreConfig

_MAX_CONFIGS = 256
_DEFAULTS = {
    name: value
    for name, value in vars(StoreConfig("default", ConnectorConfig("local"))).items()
    if name not in ("name", "connector", "auto_register")
}
# Of the proxies that came in: many of them share a configuration.
_configs: dict[Any, StoreConfig] = {}


def pack_config(config: StoreConfig) -> tuple[str, str, tuple[Any, ...], dict[str, Any]]:
    """Take a configuration apart: name, kind, flat connector options, other options."""
    connector = config.connector
    options = tuple(part for item in connector.options.items() for part in item)
    fields = vars(config)
    others = {name: fields[name] for name, value in _DEFAULTS.items() if fields[name] != value}
    return config.name, connector.short_kind(), options, others


def unpack_config(
    name: str, kind: str, options: tuple[Any, ...], others: dict[str, Any]
) -> StoreConfig:
    """Make the configuration that `pack_config` took apart."""
    index: Any = (name, kind, options, tuple(others.items()))
    try:
        config = _configs.get(index)
    except TypeError:  # an option is a list or a dictionary
        index = config = None
    if config is None:
        named = dict(zip(options[::2], options[1::2], strict=True))
        config = StoreConfig(name, ConnectorConfig(kind, named), **others)
        if index is not None:
            while len(_configs) >= _MAX_CONFIGS:
                _configs.pop(next(iter(_configs)), None)
            _configs[index] = config
    return config
